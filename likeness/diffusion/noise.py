"""Times and noise of diffusion models as functions of where they are used, never of a generator's past.

Times in [0, 1) that cover it evenly: the diffusion term is an integral over t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.seeding import generator, mix

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


_TRAIN, _EVALUATE = 1, 2  # so that equal seeds for different uses give different numbers


class Noise(NamedTuple):
    """What an estimate of the ELBO draws for each of B samples."""

    t: Tensor  # [B]
    eps_0: Tensor  # [B, ...]
    eps: Tensor  # [B, ...]


def training_noise(like: Tensor, seed: int, step: int, rank: int, world_size: int) -> Noise:
    """The noise of this rank's batch, where ``like`` [B, ...] has the shape, device and dtype.

    Global batch row i W + r is row i of rank r, as the datamodules deal them out. Each rank draws for the whole
    global batch and takes its rows, so that the numbers of a sample are the same at any number of ranks W. Times
    are stratified over the global batch.
    """
    source = generator(seed, _TRAIN, step, device=like.device)
    size = len(like) * world_size
    offset = torch.rand((), generator=source, device=like.device, dtype=like.dtype)
    own = slice(rank, None, world_size)
    t = stratified(offset, size)[own]
    eps_0, eps = (
        torch.randn(size, *like.shape[1:], generator=source, device=like.device, dtype=like.dtype)[own]
        for _ in range(2)
    )
    return Noise(t, eps_0, eps)


def evaluation_noise(like: Tensor, ids: Tensor, seed: int, draw: int) -> Noise:
    """The noise of samples [B, ...] with these ids in this draw: of nothing else, not of batches, ranks or devices.

    Times cover [0, 1) evenly over any run of consecutive ids.
    """
    offset = mix(seed, _EVALUATE, draw) / 2**63
    source = torch.Generator()
    noise = torch.empty(2, *like.shape, dtype=torch.float32)  # for every dtype of ``like`` the same numbers
    for row, sample in enumerate(ids.tolist()):
        source.manual_seed(mix(seed, _EVALUATE, draw, sample))
        noise[:, row] = torch.randn(noise[:, row].shape, generator=source, dtype=noise.dtype)
    eps_0, eps = noise.to(like)
    return Noise(spread_by_id(offset, ids).to(like), eps_0, eps)
