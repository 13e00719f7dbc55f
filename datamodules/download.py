"""torchvision's downloads, with errors of one line and a limit on silence."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.errors import DataError

SILENCE = 60.0  # seconds without a byte after which a connection counts as dead


@contextmanager
def downloading(what: str, into: Path, source: str) -> Iterator[None]:
    """Turn a failed download inside the block into a DataError that says what to fetch by hand, and to where."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        into.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, EOFError) as error:  # URLError is an OSError; torchvision raises RuntimeError
        raise DataError(
            f"{what} could not be downloaded into {into.resolve()} ({error}); "
            f"without a network, fetch it from {source} elsewhere and put it there"
        ) from error
    finally:
        socket.setdefaulttimeout(previous)
