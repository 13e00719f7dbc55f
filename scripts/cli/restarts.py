"""How a command that torchrun started says that it must not be started again.

torchrun starts its processes again whenever one of them ends with another status than 0: a run that was asked to
stop, too, and a mistyped option. ``scripts/launch/torchrun.sh`` names a folder in ``LIKENESS_STOP_DIR``. A file
``asked`` in it holds the status with which processes that start leave at once; in ``stopped`` those that leave say
the status that the launcher ends with, and end with 0 themselves. A SIGTERM that nothing waits for asks for nothing:
torchrun sends it to the ranks that are left when one is dead, and the launcher writes ``asked`` itself for its own.
"""

import os
from pathlib import Path

FOLDER = "LIKENESS_STOP_DIR"


def asked() -> int | None:
    """The status to leave with before anything is begun; None where the run is wanted."""
    file = _file("asked")
    return int(file.read_text()) if file is not None and file.exists() else None


def ask(status: int) -> None:
    """Have all processes that are started from now on leave with ``status``."""
    if (file := _file("asked")) is not None:
        _write(file, status)


def leave(status: int) -> int:
    """The status to end this process with, where the launcher is to end with ``status``."""
    if (file := _file("stopped")) is None:
        return status
    _write(file, status)
    return 0


def _file(name: str) -> Path | None:
    folder = os.environ.get(FOLDER)
    return None if folder is None else Path(folder, name)


def _write(file: Path, status: int) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")  # ranks write the same at once
    temporary.write_text(f"{status}\n")
    os.replace(temporary, file)
