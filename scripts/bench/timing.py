"""How benches measure time and memory, and what they report."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Contestant:
    """One way of doing the work."""

    name: str
    seconds: list[float]  # for the same piece of work, one entry a repeat

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def per(self, pieces: int) -> "Contestant":
        """The time of one of ``pieces`` equal pieces."""
        return Contestant(self.name, [seconds / pieces for seconds in self.seconds])


@dataclass(frozen=True)
class Peak:
    """What one piece of work took."""

    resident: int  # bytes at most, libraries included
    seconds: float

    @property
    def gigabytes(self) -> float:
        """In units of 1e9 bytes."""
        return self.resident / 1e9


class Report(Protocol):
    """What a bench found, to be printed and written."""

    @property
    def title(self) -> str:
        """Of the table."""
        ...

    def table(self) -> "Table":
        """The figures, as they are printed."""
        ...

    def verdicts(self) -> list[str]:
        """What is asked for, and whether it was reached, a line each."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, seconds unrounded."""
        ...


@dataclass
class Ratios:
    """Contestants of each comparison, the slow one first, and what the second has to reach."""

    title: str
    comparisons: Mapping[str, tuple[Contestant, Contestant]]
    required: Mapping[str, float] = field(default_factory=dict)  # times faster
    allowed: Mapping[str, float] = field(default_factory=dict)  # seconds
    at_most: Mapping[str, float] = field(default_factory=dict)  # times the first's seconds

    def ratio(self, comparison: str) -> float:
        """How many times faster the second is than the first, in medians."""
        slow, fast = self.comparisons[comparison]
        return slow.median / fast.median

    def table(self) -> "Table":
        """A row for each contestant, the ratio beside the second."""
        from rich.table import Table

        table = Table("", "", "median [ms]", "fastest [ms]", "times faster", title=self.title, title_justify="left")
        for name, contestants in self.comparisons.items():
            for contestant, ratio in zip(contestants, ("", f"{self.ratio(name):.1f}"), strict=True):
                times = (f"{1e3 * contestant.median:.2f}", f"{1e3 * min(contestant.seconds):.2f}")
                table.add_row(name, contestant.name, *times, ratio)
        return table

    def verdicts(self) -> list[str]:
        """A line for each ratio and each time that is asked for."""
        ratios = [
            f"{name}: at least {wanted:g} times faster is asked for: {_yes(self.ratio(name) >= wanted)} "
            f"({self.ratio(name):.1f})"
            for name, wanted in self.required.items()
        ]
        times_first = [
            f"{name}: at most {limit:g} times the time of {self.comparisons[name][0].name} is asked for: "
            f"{_yes(1 / self.ratio(name) <= limit)} ({1 / self.ratio(name):.2f})"
            for name, limit in self.at_most.items()
        ]
        medians = {name: self.comparisons[name][1].median for name in self.allowed}
        times = [
            f"{name}: under {self.allowed[name]:g} s is asked for: {_yes(median < self.allowed[name])} ({median:.3f})"
            for name, median in medians.items()
        ]
        return ratios + times_first + times

    def as_dict(self) -> dict[str, Any]:
        """Every repeat's seconds and the ratios."""
        comparisons = {
            name: {
                "seconds": {contestant.name: contestant.seconds for contestant in contestants},
                "ratio_of_medians": self.ratio(name),
                "required": self.required.get(name),
                "allowed_seconds": self.allowed.get(name),
                "at_most_times_the_first": self.at_most.get(name),
            }
            for name, contestants in self.comparisons.items()
        }
        return {"title": self.title, "comparisons": comparisons}


@dataclass
class WithRatios:
    """Times, and what else was measured."""

    ratios: Ratios

    @property
    def title(self) -> str:
        """Of the table."""
        return self.ratios.title

    def table(self) -> "Table":
        """A row for each contestant."""
        return self.ratios.table()


@dataclass
class RatiosAndMemory(WithRatios):
    """Times, and the memory that a larger piece of work takes where it was measured."""

    work: str  # the larger piece
    allowed: float  # gigabytes
    large: Peak | None

    def verdicts(self) -> list[str]:
        """A line for each ratio, time and memory that is asked for."""
        if self.large is None:
            return self.ratios.verdicts()
        reached = _yes(self.large.gigabytes < self.allowed)
        measured = f"{self.large.gigabytes:.2f} GB, {self.large.seconds:.0f} s"
        return [*self.ratios.verdicts(), f"{self.work}: under {self.allowed:g} GB is asked for: {reached} ({measured})"]

    def as_dict(self) -> dict[str, Any]:
        """Seconds, ratios, and bytes where they were measured."""
        return self.ratios.as_dict() | {"large": self.large and asdict(self.large)}


@dataclass
class Shares:
    """Seconds that parts of a run took, as shares of the whole, and how large their sum may be."""

    title: str
    total: float
    parts: Mapping[str, float]
    allowed: float

    @property
    def share(self) -> float:
        """The share of all parts together."""
        return sum(self.parts.values()) / self.total

    def table(self) -> "Table":
        """A row for each part."""
        from rich.table import Table

        table = Table("", "seconds", "share", title=self.title, title_justify="left")
        for name, seconds in self.parts.items():
            table.add_row(name, f"{seconds:.3f}", f"{seconds / self.total:.2%}")
        table.add_row("the whole training", f"{self.total:.3f}", "")
        return table

    def verdicts(self) -> list[str]:
        """Whether the parts together stay under what is allowed."""
        return [
            f"together at most {self.allowed:.0%} is asked for: {_yes(self.share <= self.allowed)} ({self.share:.2%})"
        ]

    def as_dict(self) -> dict[str, Any]:
        """The seconds of every part and of the whole."""
        return {"title": self.title, "total": self.total, "parts": dict(self.parts), "share": self.share}


def _yes(reached: bool) -> str:
    return "yes" if reached else "NO"


def interleaved(
    work: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", at_least: float = 0.0
) -> list[Contestant]:
    """Time every piece of ``work`` ``repeats`` times in turn, so that all meet the same state of the machine.

    One round before that is not counted. In each round a piece is done again until it took ``at_least`` so many
    seconds, and counts with its mean: alone, a short one after a long one would be a time of cold caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(repeats + 1):
        for name, run in work.items():
            start, times, elapsed = _now(device), 0, 0.0
            while times == 0 or elapsed < at_least:
                run()
                times, elapsed = times + 1, _now(device) - start
            if round_ > 0:
                seconds[name].append(elapsed / times)
    return [Contestant(name, values) for name, values in seconds.items()]


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_of(work: Callable[[], object]) -> Peak:
    """Do the work, a function of a module, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work).result()


def _measured(work: Callable[[], object]) -> Peak:
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return Peak(_most_resident(), seconds)


def _most_resident() -> int:
    """Bytes that this process ever held in memory. Linux's ru_maxrss would count those of the one that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def machine() -> dict[str, Any]:
    """What a time depends on, to be printed beside it."""
    facts: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def use_threads(count: int | None) -> None:
    """Let torch compute with ``count`` threads, or with as many as it takes by itself."""
    if count is not None:
        if count < 1:
            raise ValueError(f"threads must be at least 1, got {count}")
        torch.set_num_threads(count)
