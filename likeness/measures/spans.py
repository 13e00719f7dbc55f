"""The subspaces that representations span."""

from collections.abc import Sequence

import torch
from torch import Tensor

from likeness.measures.cloud import padded
from likeness.measures.representation import RankDeficientError


def require_span(singular_values: Tensor, shape: tuple[int, int], what: str) -> None:
    """Raise RankDeficientError unless a matrix of this shape [n, M] with these singular values [M] has rank M."""
    rank = int((singular_values > max(shape) * torch.finfo(singular_values.dtype).eps * singular_values[0]).sum())
    if rank < shape[1]:
        raise RankDeficientError(f"{what}, {list(shape)}, span {rank} of {shape[1]} dimensions")


def mean_canonical_correlations(bases: Sequence[Tensor]) -> Tensor:
    """m_CCA of all pairs of P representations, [P, P], from orthonormal bases [n, M_i] of what they span, centred."""
    dims = torch.tensor([basis.shape[1] for basis in bases], device=bases[0].device)
    joint = torch.cat(list(padded(bases)), dim=1)
    products = (joint.T @ joint).view(len(bases), -1, len(bases), joint.shape[1] // len(bases)).transpose(1, 2)
    correlations: Tensor = torch.linalg.svdvals(products).clamp(max=1)  # the padding adds zeros
    return correlations.sum(-1) / torch.minimum(dims[:, None], dims)
