"""Run directories as a report sees them: text, numbers and pictures. No checkpoint is opened, nothing is unpickled."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from callbacks.run.seed_groups import class_names, seed_group
from scripts.cli.entry_point import UsageError
from scripts.cli.watch import is_alive
from scripts.report.curves import Metrics, read_metrics

MARKS = ("config.yaml", "metrics.csv", "segments.json")  # by one of which a run directory is known
GOOD = ("finished", "stopped by")  # how the ends of segments begin in which nothing went wrong
KILLED = "ended without a word: killed, or the machine went down"
MAX_VALUES = 20_000  # of a configuration
Tree = dict[str, Any]
# All values of a configuration stay the texts that they are in the file.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class Run:
    """A run directory: its configuration, metrics, segments, and what could not be read."""

    path: Path
    name: str
    config: Tree
    config_text: str
    metrics: Metrics
    segments: Sequence[Tree]
    damage: Sequence[str] = ()  # of configuration and segments

    @property
    def notes(self) -> list[str]:
        """What is missing from its files or makes no sense."""
        return [*self.damage, *(f"metrics.csv: {note}" for note in self.metrics.notes)]

    @cached_property
    def options(self) -> dict[str, str]:
        """The configuration's values by dotted keys."""
        return dict(flattened(self.config))

    @property
    def group(self) -> str:
        """A name that it shares with runs that differ in their seed alone; one of its own without a configuration."""
        return seed_group(self.config) if self.config else str(self.path)

    @property
    def classes(self) -> list[str]:
        """The names of the classes of model and data."""
        return class_names(self.config)

    @property
    def state(self) -> str:
        """How it ended, or that it has not."""
        if not self.segments:
            return "no segment: it never began, or its record is gone"
        last = self.segments[-1]
        why = str(last.get("why"))
        return _of_running(self, last) if why == "running" else why

    @property
    def fine(self) -> bool:
        """Whether it finished, runs, or was stopped in good order."""
        return self.state.startswith((*GOOD, "running"))

    @property
    def steps(self) -> int | None:
        """The steps that it has come to, as far as the files say."""
        known = [segment.get("last_step") for segment in self.segments]
        known += [None if self.metrics.last_step is None else self.metrics.last_step + 1]
        return max((step for step in known if isinstance(step, int)), default=None)

    @property
    def seconds(self) -> float | None:
        """How long it trained, over all segments; of one without an end, until ``metrics.csv`` was last written."""
        spans = [self.seconds_of(segment) for segment in self.segments]
        known = [span for span in spans if span is not None]
        return sum(known) if known else None

    def seconds_of(self, segment: Tree) -> float | None:
        """The same of one of its segments."""
        start, end = (moment(segment.get(name)) for name in ("start", "end"))
        if end is None and segment is self.segments[-1]:
            end = modified(self.path / "metrics.csv")
        return None if start is None or end is None else max(end - start, 0.0)

    def pictures(self) -> list[Path]:
        """The figures that its callbacks drew, by name."""
        return sorted((self.path / "figures").glob("*.png"))

    def checkpoints(self) -> list[Path]:
        """Its checkpoints and exported weights, by name."""
        return sorted([*(self.path / "checkpoints").glob("*.ckpt"), *self.path.glob("*.safetensors")])


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs of these directories, each once. Raises UsageError naming one that is no run directory."""
    folders = [Path(path) for path in paths]
    for folder in folders:
        if not any((folder / mark).is_file() for mark in MARKS):
            raise UsageError(f"{folder} is no run directory: it holds none of {', '.join(MARKS)}")
    resolved = list(dict.fromkeys(folder.resolve() for folder in folders))
    return [read_run(folder, name) for folder, name in zip(resolved, names_of(resolved), strict=True)]


def read_run(path: Path, name: str) -> Run:
    """A run directory; what is missing or makes no sense is noted."""
    return replace(read_record(path, name), metrics=read_metrics(path / "metrics.csv"))


def read_record(path: Path, name: str) -> Run:
    """The same without its metrics: configuration and segments."""
    damage: list[str] = []
    text, config = _config(path / "config.yaml", damage)
    segments = _segments(path / "segments.json", damage)
    return Run(path, name, config, text, Metrics(), segments, damage)


def flattened(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Nested values as pairs of dotted key and text; classes in a list are called by their names, not numbers."""
    if isinstance(value, dict) and value:
        return [
            pair for name, entry in value.items() for pair in flattened(entry, f"{key}.{name}" if key else str(name))
        ]
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        named = [(_class(entry) or str(number), entry) for number, entry in enumerate(value)]
        return [pair for name, entry in named for pair in flattened(entry, f"{key}.{name}")]
    return [(key, json.dumps(value) if isinstance(value, list | dict) else str(value))]


def modified(path: Path) -> float | None:
    """When a file was last written, in seconds; None where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _class(entry: Any) -> str | None:
    path = entry.get("class_path") if isinstance(entry, dict) else None
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _config(path: Path, notes: list[str]) -> tuple[str, Tree]:
    text = _text(path, notes)
    try:
        config = yaml.load(text, Loader=_LOADER) if text else {}
    except (yaml.YAMLError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read: {' '.join(str(error).split())}")
        return text, {}
    if _is_small(config) and isinstance(config, dict) and all(_is_part(config.get(name)) for name in ("model", "data")):
        return text, config
    notes.append(f"{path.name} is no configuration of a run")
    return text, {}


def _is_part(value: Any) -> bool:
    """Whether a value may be what a configuration says of model or data."""
    return not value or (isinstance(value, dict) and isinstance(value.get("class_path", ""), str))


def _is_small(value: Any) -> bool:
    """Whether a document that may refer to itself has an end within reach."""
    waiting, seen = [value], 0
    while waiting and seen < MAX_VALUES:
        entry = waiting.pop()
        seen += 1
        if isinstance(entry, dict | list):
            waiting += entry.values() if isinstance(entry, dict) else entry
    return not waiting


def _segments(path: Path, notes: list[str]) -> list[Tree]:
    text = _text(path, notes)
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return []
    if isinstance(found, list) and all(isinstance(segment, dict) for segment in found):
        return found
    notes.append(f"{path.name} is no list of segments")
    return []


def _text(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        notes.append(f"there is no {path.name}")
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
    return ""


def moment(text: Any) -> float | None:
    """The time that a segment tells, in seconds; None where it tells none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, ValueError):
        return None


def _of_running(run: Run, segment: Tree) -> str:
    """What becomes of a segment that says it is running."""
    host = segment.get("host")
    alive = holder_is_alive(run.path) if host == socket.gethostname() else None
    if alive is None:
        return f"running on {host}, or killed there"
    return "running" if alive else KILLED


def holder_is_alive(run_dir: Path) -> bool | None:
    """Whether the process that took the lock of a run directory last still runs; None where nothing here can tell.

    The lock says ``process 123 on host``. It is read and not tried: a training may hold it.
    """
    try:
        words = (run_dir / ".likeness" / "lock").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    known = len(words) == 4 and words[1].isdecimal() and words[3] == socket.gethostname()
    return is_alive(words[1]) if known else None


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, as texts that any file can hold."""
    for parts in range(1, 1 + max(len(folder.parts) for folder in folders)):
        names = [os.path.join(*folder.parts[-parts:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return [name.encode("utf-8", "replace").decode() for name in names]
