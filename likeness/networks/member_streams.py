"""One random stream for each sibling, so that each draws what it would draw if it were trained alone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class MemberStreams:
    """Stands in for torch's global generator, once for each member.

    A model trained alone seeds the global generator at the start of a step and its dropout draws from there.
    Siblings share one process: inside ``with streams.member(i, device)`` the global generator of ``device`` is
    member i's, and what is drawn there is what member i alone would draw. Until ``reseed`` is called the global
    generator is left alone.
    """

    def __init__(self) -> None:
        self._seeds: list[int] | None = None
        self._states: dict[tuple[int, torch.device], Tensor] = {}

    def reseed(self, seeds: Sequence[int]) -> None:
        """Start stream i from ``seeds[i]``, as ``torch.manual_seed`` does."""
        self._seeds = list(seeds)
        self._states.clear()

    @contextmanager
    def member(self, index: int, device: torch.device) -> Iterator[None]:
        """Draw from member ``index``'s stream on ``device`` inside the block."""
        if self._seeds is None:
            yield
            return
        generator = _global_generator(device)
        outer = generator.get_state()
        if (index, device) in self._states:
            generator.set_state(self._states[index, device])
        else:
            generator.manual_seed(self._seeds[index])
        try:
            yield
        finally:
            self._states[index, device] = generator.get_state()
            generator.set_state(outer)


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator
