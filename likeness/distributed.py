"""Rows of all ranks at once, with gradients: for losses in which the samples of a batch meet each other."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(x: Tensor) -> Tensor:
    """The rows [N, ...] of every rank, [R N, ...], those of rank 0 first; x itself where there is one process.

    All ranks must enter, with as many rows each. The gradient of a row is the sum over the ranks' losses, so with
    gradients that are averaged over ranks, as DDP's and FSDP's are, the mean of the ranks' losses is descended.
    """
    if num_ranks() == 1:
        return x
    rows: Tensor = _GatheredRows.apply(x)
    return rows


class _GatheredRows(torch.autograd.Function):
    """Ours, because torch's own, in ``torch.distributed.nn``, is deprecated and its successor is private."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(num_ranks())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(num_ranks())[rank()]


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of x over all ranks, without a gradient."""
    total = x.detach().clone()
    if num_ranks() > 1:
        dist.all_reduce(total)
    return total


def num_ranks() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them."""
    return dist.get_rank() if num_ranks() > 1 else 0
