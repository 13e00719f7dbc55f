"""Run directories that are looked at again and again: of ``metrics.csv`` only the new rows are read each time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from scripts.cli.entry_point import UsageError
from scripts.report.curves import Metrics, metrics_of, unread
from scripts.report.runs import MARKS, Run, names_of, read_record

REMEMBERED = 256  # bytes before the end of what was read, by which a file is known again
CLAIMED = ".likeness"  # the folder that a run makes first
Stamp = tuple[int, ...] | None


@dataclass
class _Read:
    """What has been read of a file."""

    file: tuple[int, int] | None = None  # device and number
    end: int = 0  # of the rows
    before_end: bytes = b""
    head: bytes = b""  # the line of the columns
    metrics: Metrics = field(default_factory=Metrics)


class FollowedMetrics:
    """The metrics of a file to which rows are added, and in whose place another one may come at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = _Read()
        self._seen: Stamp = None

    def read(self) -> Metrics:
        """The metrics of all whole rows that the file has now; a row that is being written waits."""
        try:
            stamp = _stamp(self._path)
            if stamp is None or stamp != self._seen:
                with self._path.open("rb") as file:
                    if not self._goes_on(file):
                        self._read = _Read()
                    self._take(file)
                self._seen = stamp
        except OSError as error:
            self._read, self._seen = _Read(), None
            return unread(error)
        return self._read.metrics

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether it is the file that was read, with all that was read of it."""
        read = self._read
        file.seek(read.end - len(read.before_end))
        return read.file == _identity(file) and file.read(len(read.before_end)) == read.before_end

    def _take(self, file: BinaryIO) -> None:
        read = self._read
        file.seek(read.end)
        new = file.read()
        lines = new[: new.rfind(b"\n") + 1]
        read.file, read.end = _identity(file), read.end + len(lines)
        read.before_end = (read.before_end + lines)[-REMEMBERED:]
        if not read.head:
            read.head, lines = _divided(lines)
        if lines:
            later = metrics_of(read.head + lines)
            read.metrics = later if read.metrics.last_step is None else read.metrics.then(later)


class FollowedRun:
    """A run directory, which need not be there yet."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._metrics = FollowedMetrics(path / "metrics.csv")
        self._stamps: Sequence[Stamp] | None = None

    def look(self) -> Run:
        """The run as it is now."""
        stamps = [_stamp(self._path / name) for name in ("config.yaml", "segments.json")]
        if stamps != self._stamps:
            self._record, self._stamps = read_record(self._path, self._name), stamps
        return replace(self._record, metrics=self._metrics.read())


def followed(paths: Sequence[str]) -> list[FollowedRun]:
    """These runs, each once. Raises UsageError naming a path where there is something that is no run directory."""
    for path in map(Path, paths):
        if not _may_be_run(path):
            raise UsageError(f"{path} is no run directory: it holds none of {', '.join(MARKS)}")
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    return [FollowedRun(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]


def _may_be_run(path: Path) -> bool:
    if not path.exists():
        return True
    return path.is_dir() and (any((path / name).exists() for name in (*MARKS, CLAIMED)) or not any(path.iterdir()))


def _stamp(path: Path) -> Stamp:
    """What changes whenever a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _identity(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _divided(lines: bytes) -> tuple[bytes, bytes]:
    """The line of the columns, in which a quoted name may hold the end of one, and the rows after it."""
    end = lines.find(b"\n")
    while end >= 0 and lines.count(b'"', 0, end) % 2:
        end = lines.find(b"\n", end + 1)
    return lines[: end + 1], lines[end + 1 :]
