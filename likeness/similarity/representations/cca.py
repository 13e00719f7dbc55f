"""How alike the representations of two models are up to invertible linear maps.

m_CCA is the mean canonical correlation, the cosines of the angles between the spans of two representations. Its
relatives leave out (SVCCA) or weigh down (PWCCA) the directions of little variance.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from likeness.numerics import as_float64
from likeness.seeding import generator
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.pairwise import PairValues, correlations_of_spans
from likeness.similarity.representations.samples import centred, compact, compare_two
from likeness.similarity.softmax_models import mean_canonical_correlations
from likeness.similarity.undefined import UndefinedError, why_undefined_f
from likeness.spans import span_of_rows

Basis = tuple[Tensor, Tensor]
"""An orthonormal basis [N, M] of a representation, and the representation in it, [M, M]."""


def m_cca(x: Tensor, y: Tensor) -> Tensor:
    """Mean canonical correlation of x [N, M] and y [N, M'], a scalar in [0, 1]; exact, in float64.

    The mean is over the min(M, M') correlations. It is invariant to independent invertible linear maps and
    shifts of x and of y; with N - 1 < M + M' some correlations are 1 whatever the data. Raises ValueError if
    N differs, UndefinedError if N is at most M or M', and its subclass RankDeficientError if x or y does not span its
    dimensions. Bjorck & Golub 1973; Nielsen et al. 2025 (arXiv 2506.03784) for the mean.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{m_cca(x, x @ torch.tensor([[2.0, 1, 0], [0, 1, 0], [3, 0, 1]]).double() + 4):.4f}")
        1.0000
    """
    if len(x) != len(y):
        raise ValueError(f"m_CCA compares the same samples, but x is {tuple(x.shape)} and y is {tuple(y.shape)}")
    return m_cca_of_samples([x, y], ("x", "y"))[0, 1]


def m_cca_of_samples(samples: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """Mean canonical correlations of all pairs, [P, P], of P sets of the same samples [N, M_i]; exact (QR).

    ``names`` appear in the errors, which are those of :func:`m_cca`.
    """
    return mean_canonical_correlations([orthonormal_basis(x, name) for x, name in zip(samples, names, strict=True)])


def m_cca_f(joint: JointMoments) -> PairValues:
    """m_CCA of the embeddings for all pairs of P models, from their joint moments.

    The constant coordinate of a biased head is left out. Undefined for a model with N <= M or whose embeddings do
    not span their dimensions, also where only the rounding of the type they came in makes them do so.
    """
    spans = [joint.span(model) for model in range(len(joint.names))]
    known = ((joint.names[model], int(joint.moments.n), joint.bare_dim(model)) for model in range(len(spans)))
    reasons = {
        model: reason
        for model, (fact, span) in enumerate(zip(known, spans, strict=True))
        if (reason := why_undefined_f(*fact, span.rank)) is not None
    }
    return correlations_of_spans(spans, reasons)


def m_cca_of_noise(samples: int, dim: int, other_dim: int, seed: int = 0) -> float:
    """m_CCA of unrelated Gaussian x [N, M] and y [N, M'] after centring, of one draw; 1 for M + M' >= N.

    Its spread is of the order of 1 / M. The squared correlations are the eigenvalues of A (A + B)^-1, A and B of
    Wishart laws: no [N, M] is drawn. Muirhead 1982, section 11.3.
    """
    small, large = sorted((dim, other_dim))
    left = samples - 1 - large
    if left < small:
        return 1.0
    random = generator(seed, samples, small, large)
    a, b = (_wishart_root(degrees, small, random) for degrees in (large, left))
    correlations = torch.linalg.svdvals(torch.linalg.qr(torch.cat([a, b]))[0][: len(a)])
    return float(correlations.clamp(max=1).mean())


def _wishart_root(degrees: int, dim: int, random: torch.Generator) -> Tensor:
    """R [M, M] whose R^T R is the scatter of so many Gaussian vectors [M]; at least M of them. Bartlett 1933."""
    root = torch.randn(dim, dim, generator=random, dtype=torch.float64).triu(1)
    freedom = degrees - torch.arange(dim, dtype=torch.float64)
    return root + torch.diag((2 * torch._standard_gamma(freedom / 2, generator=random)).sqrt())


def orthonormal_basis(x: Tensor, name: str) -> Tensor:
    """Q [N, M] of the thin QR of centred, standardised x [N, M]."""
    shape = list(x.shape)
    if shape[0] <= shape[1]:
        raise UndefinedError(
            f"m_CCA of model {name!r} needs more samples than dimensions, but its representation is {shape}"
        )
    span = span_of_rows(as_float64(x), x.dtype)
    return span.require_full(f"m_CCA is undefined: the coordinates of {name!r}", shape)


def svcca(x: Tensor, y: Tensor, variance: float = 0.99) -> Tensor:
    """Mean canonical correlation of the leading principal components, a scalar in [0, 1]; larger is more alike.

    Of x [N, M] and of y [N, M'] the fewest components are kept that hold the share ``variance`` of its total
    variance; the mean is over the smaller number kept. Raghu et al. 2017 (arXiv 1706.05806). Invariant to shifts,
    orthogonal maps and isotropic scaling of either; to every invertible map only at ``variance=1``, where it is
    m_CCA. Not where directions of small variance matter, as in a softmax they may, and not for N below about ten
    times the components kept: unrelated representations then score high (see the null). Raises ValueError for N
    that differs, a constant representation, values that are not finite, a ``variance`` outside (0, 1], and where
    as many components are kept as N samples can span, so that any y would score 1.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{svcca(x, -2 * x + 1):.4f}")
        1.0000
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

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> print(f"{pwcca(x, x[:, [2, 0, 1]] - 1):.4f}")
        1.0000
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
        raise UndefinedError(
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
    return basis, basis.T @ offset


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
