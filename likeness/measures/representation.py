"""How alike the representations of two models are up to invertible linear maps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from likeness.measures.cloud import padded
from likeness.measures.joint_moments import JointMoments
from likeness.measures.moments import as_float64

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
