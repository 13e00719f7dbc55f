"""Times in [0, 1) that cover it evenly: the diffusion term is an integral over t."""

import torch
from torch import Tensor

_GOLDEN = 0.6180339887498949  # frac(n * golden) is spread more evenly over n than any other sequence of its kind


def stratified(offset: Tensor, size: int) -> Tensor:
    """[size] times, one in each interval [i / size, (i + 1) / size), all shifted by a uniform ``offset`` (a scalar).

    Kingma et al. 2021 (VDM), appendix I.1. Their variance is far below that of independent times.
    """
    places = torch.arange(size, device=offset.device, dtype=offset.dtype)
    return (offset + places / size) % 1


def spread_by_id(offset: float, ids: Tensor) -> Tensor:
    """Times [B] of samples with these ids, float64: each uniform over draws of ``offset``, evenly spread over ids.

    They do not depend on how the samples are divided into batches.
    """
    return (offset + ids.double() * _GOLDEN) % 1


def step_of(t: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """(s, t) with t at the end and s at the start of the step, of num_steps, that contains the time; both like t."""
    last = (t * num_steps).ceil().clamp(1, num_steps)
    return (last - 1) / num_steps, last / num_steps
