"""Randomness as a pure function of integers, so that nothing random ever has to be saved and restored."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*integers: int) -> int:
    """A well-spread seed in [0, 2**63) from any number of integers; order matters (SplitMix64 finaliser)."""
    state = 0x9E3779B97F4A7C15
    for value in integers:
        state = (state ^ (value & _MASK)) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ (state >> 30)) * 0x94D049BB133111EB & _MASK
        state = (state ^ (state >> 31)) + 0x9E3779B97F4A7C15 & _MASK
    return state >> 1


def generator(*integers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device`` whose stream is a function of the integers alone."""
    return torch.Generator(device).manual_seed(mix(*integers))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Weights made inside are a function of ``seed`` alone; the global generator is left as it was.

    They are drawn on the CPU whatever the default device is, so that every machine draws the same.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def hashed(ids: Tensor) -> Tensor:
    """SplitMix64's finaliser in wrapping arithmetic; non-negative."""
    value = ids * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    value = (value ^ _shift(value, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    value = (value ^ _shift(value, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(value ^ _shift(value, 31), 1)


def _shift(value: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of signed integers."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
