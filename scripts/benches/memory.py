"""The largest memory that work takes, in a process of its own."""

import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path


@dataclass(frozen=True)
class Peak:
    """What one piece of work took."""

    resident: int  # bytes at most, libraries included
    seconds: float

    @property
    def gigabytes(self) -> float:
        """In units of 1e9 bytes."""
        return self.resident / 1e9


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
