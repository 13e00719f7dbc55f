"""What a datamodule raises when the data on disk are not what they should be."""

from pathlib import Path


class DataError(RuntimeError):
    """Data that are missing, damaged or impossible; the message is one line that names the file or the sample."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OptionError(ValueError):
    """An option of a datamodule does not fit the data that were read."""


class MissingDataError(DataError, FileNotFoundError):
    """A file of data is not there."""


def missing(path: Path, how: str) -> MissingDataError:
    """A file that is not there: which, where, and how to get it."""
    return MissingDataError(f"{path.name} is missing: expected at {path.resolve()}; {how}")


def corrupt(path: Path, expected: str, how: str) -> DataError:
    """A file that is not the published one: which, the checksum or content expected, and how to mend it."""
    return DataError(f"{path.resolve()} is damaged: expected {expected}; {how}")
