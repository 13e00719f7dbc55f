"""How alike the representations of two models are up to invertible linear maps.

Relatives of m_CCA that leave out or weigh down the directions of little variance.

The subspaces that representations span.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from likeness.numerics import as_float64
from likeness.similarity.cloud import padded
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.samples import centred, compact, compare_two

_ROUNDING = 1e-14  # standard deviation over mean of a constant coordinate, after centring
_SINGLE_PRECISION = 1e-6  # relative singular value of a dependent coordinate of what a network computes


class RankDeficientError(ValueError):
    """A representation does not span its own dimensions, so its canonical correlations are undefined."""


def m_cca(x: Tensor, y: Tensor) -> Tensor:
    """Mean canonical correlation of x [N, M] and y [N, M'], a scalar in [0, 1]; exact, in float64.

    The mean is over the min(M, M') correlations. It is invariant to independent invertible linear maps and
    shifts of x and of y; with N - 1 < M + M' some correlations are 1 whatever the data. Raises ValueError if
    N is at most M or M' or differs, RankDeficientError if x or y does not span its dimensions.
    Bjorck & Golub 1973; Nielsen et al. 2025 (arXiv 2506.03784) for the mean.
    """
    if len(x) != len(y):
        raise ValueError(f"m_CCA compares the same samples, but x is {tuple(x.shape)} and y is {tuple(y.shape)}")
    return m_cca_of_samples([x, y], ("x", "y"))[0, 1]


def m_cca_of_samples(samples: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Mean canonical correlations of all pairs, [P, P], of P sets of the same samples [N, M_i]; exact (QR).

    ``names`` appear in the errors, which are those of :func:`m_cca`.
    """
    bases = [orthonormal_basis(as_float64(x), name) for x, name in zip(samples, names, strict=True)]
    return mean_canonical_correlations(bases)


def m_cca_f(joint: JointMoments, unembeddings: Sequence[Tensor]) -> Tensor:
    """m_CCA of the embeddings for all pairs of P models, [P, P], from their joint moments.

    The constant coordinate of a biased head is left out. Raises as :func:`m_cca` does, also where only the rounding
    of float32 makes the embeddings span their dimensions.
    """
    n, mean, factor = joint.moments
    bases = []
    for model, name in enumerate(joint.names):
        block = joint.embedding(model)
        _require_samples(int(n), block.stop - block.start, name)
        bases.append(_basis(factor[:, block], n.sqrt() * mean[block].abs(), _SINGLE_PRECISION, name))
    return mean_canonical_correlations(bases)


def m_cca_g(joint: JointMoments, unembeddings: Sequence[Tensor]) -> Tensor:
    """m_CCA of the unembeddings g_i [K, M_i] over the K labels for all pairs of P models, [P, P].

    A head's biases are left out, as their constant coordinate of f is. Raises as :func:`m_cca` does.
    """
    vectors = [g[:, : g.shape[1] - joint.has_bias(model)] for model, g in enumerate(unembeddings)]
    return m_cca_of_samples(vectors, [f"{name} (unembeddings)" for name in joint.names])


def orthonormal_basis(x: Tensor, name: str) -> Tensor:
    """Q [N, M] of the thin QR of centred, standardised x [N, M]."""
    _require_samples(x.shape[0], x.shape[1], name)
    return _basis(x - x.mean(0), x.norm(dim=0), max(x.shape) * torch.finfo(x.dtype).eps, name)


def mean_canonical_correlations(bases: Sequence[Tensor]) -> Tensor:
    """m_CCA of all pairs of P representations, [P, P], from orthonormal bases [n, M_i] of what they span, centred."""
    dims = torch.tensor([basis.shape[1] for basis in bases], device=bases[0].device)
    joint = torch.cat(list(padded(bases)), dim=1)
    products = (joint.T @ joint).view(len(bases), -1, len(bases), joint.shape[1] // len(bases)).transpose(1, 2)
    correlations: Tensor = torch.linalg.svdvals(products).clamp(max=1)  # the padding adds zeros
    return correlations.sum(-1) / torch.minimum(dims[:, None], dims)


def _basis(centred: Tensor, size: Tensor, tolerance: float, name: str) -> Tensor:
    """Q [R, M] of the QR of centred columns [R, M]; ``size`` [M] are their lengths before."""
    scale = centred.norm(dim=0)
    constant = scale <= _ROUNDING * size
    basis: Tensor
    basis, triangle = torch.linalg.qr(centred / scale.where(~constant, torch.inf))
    singular = torch.linalg.svdvals(triangle)
    rank, dim = int((singular > tolerance * singular[0]).sum()), centred.shape[1]
    if rank < dim:
        raise RankDeficientError(
            f"m_CCA of model {name!r} needs a representation that spans its {dim} dimensions, but its rank is {rank}"
        )
    return basis


def _require_samples(count: int, dim: int, name: str) -> None:
    if count <= dim:
        raise ValueError(
            f"m_CCA of model {name!r} needs more samples than dimensions, but its representation is [{count}, {dim}]"
        )


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


def require_span(singular_values: Tensor, shape: tuple[int, int], what: str) -> None:
    """Raise RankDeficientError unless a matrix of this shape [n, M] with these singular values [M] has rank M."""
    rank = int((singular_values > max(shape) * torch.finfo(singular_values.dtype).eps * singular_values[0]).sum())
    if rank < shape[1]:
        raise RankDeficientError(f"{what}, {list(shape)}, span {rank} of {shape[1]} dimensions")
