"""How benches measure and what they report."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


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


@dataclass
class Report:
    """What a bench found: contestants of each comparison, the slow one first, and what ratio is asked for."""

    title: str
    comparisons: Mapping[str, tuple[Contestant, Contestant]]
    required: Mapping[str, float] = field(default_factory=dict)

    def ratio(self, comparison: str) -> float:
        """How many times faster the second is than the first, in medians."""
        slow, fast = self.comparisons[comparison]
        return slow.median / fast.median


def interleaved(work: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> list[Contestant]:
    """Time every piece of ``work`` ``repeats`` times in turn, so that all meet the same state of the machine.

    One round before that is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(repeats + 1):
        for name, run in work.items():
            start = _now(device)
            run()
            if round_ > 0:
                seconds[name].append(_now(device) - start)
    return [Contestant(name, values) for name, values in seconds.items()]


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


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def use_threads(count: int | None) -> None:
    """Let torch compute with ``count`` threads, or with as many as it takes by itself."""
    if count is not None:
        if count < 1:
            raise ValueError(f"threads must be at least 1, got {count}")
        torch.set_num_threads(count)
