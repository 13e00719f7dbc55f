"""When more than one thread pays."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SMALL = 2**22  # elements of the largest tensor


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread of torch for the block where the largest tensor is small, as many as before otherwise.

    Hundreds of small operations gain little from a second thread. On a busy machine each of them waits until both
    have run: ten times as long in all, and by chance.
    """
    before = torch.get_num_threads()
    if elements <= _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
