"""Randomness as a pure function of integers, so that nothing random ever has to be saved and restored."""

import torch

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
