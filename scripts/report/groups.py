"""Runs that differ in their seed alone put together, and what the others differ in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

from callbacks.run.seed_groups import OF_ONE_RUN
from scripts.report.runs import Run


@dataclass(frozen=True)
class Group:
    """Runs whose configurations differ in nothing but seeds, run directories and loggers, as one line of a figure."""

    label: str
    runs: Sequence[Run]
    colour: int


@dataclass(frozen=True)
class Study:
    """All runs of a report."""

    runs: Sequence[Run]

    @cached_property
    def groups(self) -> list[Group]:
        """The groups in the order of their first runs, under names of their own."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.group, []).append(run)
        labels = _told_apart([_label(runs) for runs in found.values()])
        return [Group(label, runs, n) for n, (label, runs) in enumerate(zip(labels, found.values(), strict=True))]

    @cached_property
    def keys(self) -> list[str]:
        """The metrics that any run has logged, sorted."""
        return sorted({key for run in self.runs for key in run.metrics.curves})

    @property
    def repeated(self) -> bool:
        """Whether any group has several runs."""
        return len(self.groups) < len(self.runs)


def differences(runs: Sequence[Run]) -> dict[str, list[str | None]]:
    """By dotted key what the runs' configurations say, where they do not all say the same; None where one is silent.

    The run directory and its loggers are no difference; the seed is.
    """
    options = [run.options for run in runs]
    keys = dict.fromkeys(key for own in options for key in own)
    told = {key: [own.get(key) for own in options] for key in keys if _of_interest(key)}
    return {key: values for key, values in told.items() if len(set(values)) > 1}


def _of_interest(key: str) -> bool:
    parts = set(key.split("."))
    return not parts & (OF_ONE_RUN - {"seed", "seed_everything"})


def _label(runs: Sequence[Run]) -> str:
    """The name of a run, or what the names of several begin with."""
    if len(runs) == 1:
        return runs[0].name
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*(run.name for run in runs), strict=False))
    start = "".join(column[0] for column in letters).rstrip("0123456789")
    return f"{start.removesuffix('seed').rstrip('_-./ ') or runs[0].name} ({len(runs)} runs)"


def _told_apart(labels: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    answer = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        answer.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return answer
