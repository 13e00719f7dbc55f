"""Relatives of m_CCA that leave out or weigh down the directions of little variance."""

from functools import partial

import torch
from torch import Tensor

from likeness.measures.representation import orthonormal_basis
from likeness.measures.samples import centred, compact, compare_two

Basis = tuple[Tensor, Tensor]
"""An orthonormal basis [N, M] of a representation, and the representation in it, [M, M]."""


def svcca(x: Tensor, y: Tensor, variance: float = 0.99) -> Tensor:
    """Mean canonical correlation of the leading principal components, a scalar in [0, 1]; larger is more alike.

    Of x [N, M] and of y [N, M'] the fewest components are kept that hold the share ``variance`` of its total
    variance; the mean is over the smaller number kept. Raghu et al. 2017 (arXiv 1706.05806). Invariant to shifts,
    orthogonal maps and isotropic scaling of either; to every invertible map only at ``variance=1``, where it is
    m_CCA. Not where directions of small variance matter, as in a softmax they may, and not for N below about ten
    times the components kept: unrelated representations then score high (see the null). Raises ValueError for N
    that differs, a constant representation, values that are not finite, a ``variance`` outside (0, 1], and where
    as many components are kept as N samples can span, so that any y would score 1.
    """
    return compare_two(partial(principal_basis, variance=variance), mean_correlation, x, y)


def pwcca(x: Tensor, y: Tensor) -> Tensor:
    """Canonical correlations averaged with weights from x, a scalar in [0, 1]; larger is more alike.

    sum_i a_i rho_i / sum_i a_i, a_i = sum_j |<h_i, x_j>|: canonical variable h_i of x [N, M] counts by how much
    of the coordinates x_j it accounts for. Morcos et al. 2018 (arXiv 1806.05759), section 3. Not symmetric: x
    weighs. Invariant to shifts, to invertible maps of y, and to scaling, permuting and mirroring coordinates of
    x all at once, but not to rotating x. Not for N below about ten times M + M' (see the null), nor where the
    basis of x has no meaning, as in a softmax classifier. Raises as m_CCA does, for values that are not finite
    and for a constant representation.
    """
    return compare_two(weighted_basis, weighted_correlation, x, y)


def principal_basis(x: Tensor, name: str, variance: float) -> Tensor:
    """The leading left singular vectors [N, k] of centred x [N, M], k the fewest with this share of the variance."""
    if not 0 < variance <= 1:
        raise ValueError(f"the share of the variance to keep must be in (0, 1], but it is {variance}")
    vectors: Tensor
    vectors, singular, _ = torch.linalg.svd(compact(centred(x, name)), full_matrices=False)
    rank = int((singular > max(x.shape) * torch.finfo(singular.dtype).eps * singular[0]).sum())
    share = singular[:rank].square().cumsum(0) / singular[:rank].square().sum()
    kept = min(int((share < variance).sum()) + 1, rank)
    if kept >= len(x) - 1:
        raise ValueError(
            f"{kept} components hold {variance:.0%} of the variance of {name!r} {list(x.shape)}, and {kept + 1} samples"
            " span no more, so every representation would be alike; keep less or take more samples"
        )
    return vectors[:, :kept]


def mean_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Mean of the canonical correlations of the spans of orthonormal x [N, k] and y [..., N, k']."""
    correlations: Tensor = torch.linalg.svdvals(x.mT @ y)
    return correlations.clamp(max=1).mean(-1)


def weighted_basis(x: Tensor, name: str) -> Basis:
    """An orthonormal basis [N, M] of centred x [N, M], and x in it."""
    offset = centred(x, name)
    basis = orthonormal_basis(offset, name)
    return basis, basis.T @ (offset / offset.abs().max())


def weighted_correlation(x: Basis, y: Basis) -> Tensor:
    """Mean of the canonical correlations, by how much of x the canonical variables of x account for."""
    directions: Tensor
    correlations: Tensor
    directions, correlations, _ = torch.linalg.svd(x[0].mT @ y[0], full_matrices=False)
    weights = (directions.mT @ x[1]).abs().sum(-1)
    return (weights * correlations.clamp(max=1)).sum(-1) / weights.sum(-1)


def reorder_basis(basis: Basis, orders: Tensor) -> Basis:
    """A basis of samples that stand in each of B orders [B, N]."""
    return basis[0][orders], basis[1]
