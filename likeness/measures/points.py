"""Points as they come in: checked, or refused with the rows at fault."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_NAMED_ROWS = 5


def as_points(points: Any, what: str) -> Tensor:
    """`points` [n, d], a tensor or an array, as a finite float32 or float64 tensor without gradient.

    On the CPU where their device has no float64 (Apple's MPS). Raises ValueError that names `what` and the shape of
    what is no matrix or is empty, or the first rows that are not finite.
    """
    tensor = as_tensor(points).detach()
    if tensor.dim() != 2 or tensor.numel() == 0 or tensor.is_complex():
        raise ValueError(f"{what} must be [points, dimensions], but is {tensor.dtype} of shape {list(tensor.shape)}")
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float() if tensor.is_floating_point() else tensor.double()
    wrong = ~tensor.isfinite()
    rows = wrong.any(1).nonzero().flatten()
    if len(rows):
        value = float(tensor[rows[0]][wrong[rows[0]]][0])
        raise ValueError(f"{len(rows)} rows of {what} are not finite: {first_rows(rows)}; row {rows[0]} has {value}")
    return tensor


def as_tensor(values: Any) -> Tensor:
    """A tensor, or a tensor over an array's memory; torch takes no negative strides, and warns of read-only arrays."""
    return values if isinstance(values, Tensor) else torch.as_tensor(np.require(values, requirements=["C", "W"]))


def row_lengths(points: Tensor, what: str) -> Tensor:
    """Euclidean lengths [n] of the points in float64; ValueError names rows of length 0, which have no cosine."""
    lengths: Tensor = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64)
    zero = (lengths == 0).nonzero().flatten()
    if len(zero):
        raise ValueError(f"{len(zero)} rows of {what} are zero and have no cosine: {first_rows(zero)}")
    return lengths


def first_rows(rows: Tensor) -> str:
    """The numbers of the first few rows, for a message."""
    return ", ".join(map(str, rows[:_NAMED_ROWS].tolist())) + (", ..." if len(rows) > _NAMED_ROWS else "")
