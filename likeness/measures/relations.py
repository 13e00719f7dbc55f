"""Matrices [N, N] of relations between samples (similarities, distances, ranks), which measures then compare."""

import torch
from torch import Tensor


def from_pairs(values: Tensor, n: int) -> Tensor:
    """The symmetric matrix [N, N] of a value for each pair i < j, in row-major order, with a zero diagonal."""
    matrix = values.new_zeros(n, n)
    matrix[tuple(torch.triu_indices(n, n, offset=1, device=values.device))] = values
    return matrix + matrix.T


def unit_norm(matrix: Tensor, name: str, what: str) -> Tensor:
    """A matrix over its Frobenius norm. Raises ValueError, with the words ``what``, if that is 0."""
    norm: Tensor = torch.linalg.matrix_norm(matrix)
    if bool(norm == 0):
        raise ValueError(f"{what} of the {len(matrix)} samples of {name!r} are all equal, so nothing can be compared")
    return matrix / norm


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of matrices [N, N] and [..., N, N] of unit norm, [...], in [-1, 1]."""
    return (b.flatten(-2) @ a.flatten()).clamp(-1, 1)


def reorder_relations(matrix: Tensor, orders: Tensor) -> Tensor:
    """A matrix [N, N] with the samples in each of B orders [B, N]: [B, N, N]."""
    return torch.stack([matrix.index_select(1, order).index_select(0, order) for order in orders])
