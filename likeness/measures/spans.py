"""The subspaces that representations span."""

import torch
from torch import Tensor

from likeness.measures.representation import RankDeficientError


def require_span(singular_values: Tensor, shape: tuple[int, int], what: str) -> None:
    """Raise RankDeficientError unless a matrix of this shape [n, M] with these singular values [M] has rank M."""
    rank = int((singular_values > max(shape) * torch.finfo(singular_values.dtype).eps * singular_values[0]).sum())
    if rank < shape[1]:
        raise RankDeficientError(f"{what}, {list(shape)}, span {rank} of {shape[1]} dimensions")
