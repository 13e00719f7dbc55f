"""When several threads pay, and which."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_SMALL = 2**22  # elements of the largest tensor
_available: ContextVar[int | None] = ContextVar("available", default=None)  # threads, where torch is kept to one


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread of torch for the block where the largest tensor is small, as many as before otherwise.

    Hundreds of small operations gain little from a second thread. On a busy machine each of them waits until both
    have run: ten times as long in all, and by chance. :func:`in_parallel` still uses all threads.
    """
    with _one_thread() if elements <= _SMALL else nullcontext():
        yield


def in_parallel(function: Callable[[T], R], items: Iterable[T], device: torch.device) -> list[R]:
    """The function of each item, in order: on the CPU in as many threads as torch had, each with one of torch.

    Threads meet once, at the end, and not at every operation.
    """
    threads = 1
    if threads == 1 or device.type != "cpu":
        return [function(item) for item in items]
    with _one_thread(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    token = _available.set(_available.get() or before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _available.reset(token)
