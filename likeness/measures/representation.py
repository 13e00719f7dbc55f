"""How alike the representations of two models are up to invertible linear maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.measures.moments import JointMoments, as_float64

_SCATTER_TOLERANCE = 1e-12  # of the scatter's spectrum, whose rounding errors are about 1e-15
_ROUNDING = 1e-14  # standard deviation over mean of a constant coordinate, after centring


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
    dims = [basis.shape[1] for basis in bases]
    joint = torch.cat([pad(basis, (0, max(dims) - dim)) for basis, dim in zip(bases, dims, strict=True)], dim=1)
    return _mean_correlations(joint.T @ joint, dims)


def m_cca_f(joint: JointMoments, unembeddings: Sequence[Tensor]) -> Tensor:
    """m_CCA of the embeddings for all pairs of P models, [P, P], from their joint moments.

    The constant coordinate of a biased head is left out. Conditioning enters squared: prefer :func:`m_cca`
    where a representation's directions differ by more than 1e6 in scale. Raises as :func:`m_cca` does.
    """
    blocks = [joint.embedding(model) for model in range(len(joint.dims))]
    dims = [block.stop - block.start for block in blocks]
    n, mean, scatter = joint.moments
    whitening = scatter.new_zeros(len(scatter), len(dims), max(dims))
    for model, (block, dim) in enumerate(zip(blocks, dims, strict=True)):
        _require_samples(int(n), dim, joint.names[model])
        constant = scatter[block, block].diagonal() <= n * (_ROUNDING * mean[block]) ** 2
        whitening[block, model, :dim] = _whitening(scatter[block, block], constant, joint.names[model])
    whitening = whitening.flatten(1)
    return _mean_correlations(whitening.T @ scatter @ whitening, dims)


def m_cca_g(joint: JointMoments, unembeddings: Sequence[Tensor]) -> Tensor:
    """m_CCA of the unembeddings g_i [K, M_i] over the K labels for all pairs of P models, [P, P].

    A head's biases are left out, as their constant coordinate of f is. Raises as :func:`m_cca` does.
    """
    vectors = [g[:, : g.shape[1] - joint.has_bias(model)] for model, g in enumerate(unembeddings)]
    return m_cca_of_samples(vectors, [f"{name} (unembeddings)" for name in joint.names])


def orthonormal_basis(x: Tensor, name: str) -> Tensor:
    """Q [N, M] of the thin QR of centred, standardised x [N, M]."""
    _require_samples(x.shape[0], x.shape[1], name)
    centred = x - x.mean(0)
    scale = centred.norm(dim=0)
    constant = scale <= _ROUNDING * x.norm(dim=0)
    basis: Tensor
    basis, triangle = torch.linalg.qr(centred / scale.where(~constant, torch.inf))
    singular = torch.linalg.svdvals(triangle)
    _require_rank(singular, max(x.shape) * torch.finfo(x.dtype).eps, name)
    return basis


def _whitening(scatter: Tensor, constant: Tensor, name: str) -> Tensor:
    """W [M, M] with W^T scatter W = I; ``constant`` [M] marks coordinates that do not vary."""
    scale = scatter.diagonal().sqrt().where(~constant, torch.inf)
    eigenvalues, vectors = torch.linalg.eigh(scatter / torch.outer(scale, scale))
    _require_rank(eigenvalues, _SCATTER_TOLERANCE, name)
    whitening: Tensor = vectors / eigenvalues.sqrt() / scale[:, None]
    return whitening


def _mean_correlations(whitened: Tensor, dims: Sequence[int]) -> Tensor:
    """Means of the singular values of P x P blocks [M_i, M_j], [P, P]; each block is padded with zeros to max M."""
    blocks = whitened.reshape(len(dims), max(dims), len(dims), max(dims)).transpose(1, 2)
    correlations: Tensor = torch.linalg.svdvals(blocks).clamp(max=1)
    size = torch.tensor(dims, device=whitened.device)
    return correlations.sum(-1) / torch.minimum(size[:, None], size)


def _require_samples(count: int, dim: int, name: str) -> None:
    if count <= dim:
        raise ValueError(
            f"m_CCA of model {name!r} needs more samples than dimensions, but its representation is [{count}, {dim}]"
        )


def _require_rank(spectrum: Tensor, tolerance: float, name: str) -> None:
    rank = int((spectrum > tolerance * spectrum.max()).sum())
    if rank < len(spectrum):
        raise RankDeficientError(
            f"m_CCA of model {name!r} needs a representation that spans its {len(spectrum)} dimensions, "
            f"but its rank is {rank}"
        )
