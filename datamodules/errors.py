"""Errors of data that are not what they should be: on disk, in a file that somebody names, or in a download."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from likeness.files.errors import DataError as DataError

SILENCE = 60.0  # seconds without a byte after which a connection counts as dead


class OptionError(ValueError):
    """An option of a datamodule does not fit the data that were read."""


def corrupt(path: Path, expected: str, how: str) -> DataError:
    """A file that is not the published one: which, the checksum or content expected, and how to mend it."""
    return DataError(f"{path.resolve()} is damaged: expected {expected}; {how}")


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
