"""Errors of files that are not what they should be."""

from pathlib import Path


class DataError(ValueError):
    """Data that are missing, damaged or impossible; the message is one line that names the file or the sample."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class MissingDataError(DataError, FileNotFoundError):
    """A file of data is not there."""


def missing(path: Path, how: str) -> MissingDataError:
    """A file that is not there: which, where, and how to get it."""
    return MissingDataError(f"{path.name} is missing: expected at {path.resolve()}; {how}")
