"""How alike two models' representations are up to the maps that leave their likelihoods alone: d_SVD and d_{f,g}.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), section 4. Embeddings are read through M label
differences, u = L^T f with L = [g(y1) - g(y0) .. g(yM) - g(y0)], which are equal in equivalent models. Then

    m_SVD(u, u') = |R|_* / M,   R[a, b] = Corr_x(u_a, u'_b),   d_SVD = 1 - m_SVD,

the mean covariance of the pairs of scores of a PLS-SVD of the standardised u and u'. On the input side N^T g takes
the place of L^T f, with M input differences and correlations over labels.

d_{f,g} (Def 4.5) is taken where d_LLV has its minimum. It is the larger of d_SVD(L_J^T f, L'_J^T f'), over all
M-subsets J of the labels that are compared there, and d_SVD(N^T g, N'^T g') for the input set. Where the subsets are
too many, random ones bound it from below and the correlations of single log-ratios from above. d_LLV itself bounds
it too: :func:`paper_bound` and :func:`squared_bound`.
"""

from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import as_float64, power_of_two
from likeness.seeding import generator
from likeness.similarity.cloud import Cloud, Pairs, half_squares_from
from likeness.similarity.d_llv import LabelChoice
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.softmax_models import LabelVectors
from likeness.similarity.undefined import UndefinedError

_WORK = 2**32  # multiplications that factorising the sampled L may cost
_ELEMENTS = 2**22  # of a temporary
_CONSTANT = 1e-12  # deviations of a coordinate relative to its values: below, they are rounding


class Interval(NamedTuple):
    """Bounds of a number that is known exactly where they are equal."""

    lower: Tensor
    upper: Tensor


class Bound(NamedTuple):
    """A bound, and whether it says more than what holds of any two models; elementwise."""

    value: Tensor
    informative: Tensor


class LabelSvd(NamedTuple):
    """The part of d_{f,g} that concerns f, for B pairs of models."""

    largest: Interval  # [B] over label subsets, at the chosen pivot and left-out label
    supremum: Interval  # [B] also over tied choices
    certificate: Bound  # [B] on ``largest``, without enumerating subsets
    complete: bool  # whether all label subsets were tried


def m_svd(u: Tensor, v: Tensor) -> Tensor:
    """m_SVD of u [N, M] and v [N, M], a scalar in [0, 1]; 1 where they agree up to scales and a rotation.

    Raises ValueError where the shapes differ, UndefinedError naming a coordinate that is constant.
    """
    return 1 - d_svd(u, v)


def d_svd(u: Tensor, v: Tensor) -> Tensor:
    """1 - m_SVD of u [N, M] and v [N, M], a scalar in [0, 1]; raises as :func:`m_svd` does.

    Example:
        >>> import torch
        >>> u = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -2.0]])
        >>> print(f"{d_svd(u, 3 * u + 1):.4f}, {d_svd(u, u[:, [0, 0]]):.4f}")
        0.0000, 0.2929
    """
    if u.shape != v.shape or u.dim() != 2:
        raise ValueError(f"m_SVD compares [N, M] with [N, M], but received {tuple(u.shape)} and {tuple(v.shape)}")
    return _distance(_standardised(u, "first"), _standardised(v, "second"))


def label_svd(vectors: LabelVectors, pairs: Pairs, choice: LabelChoice, options: ComparisonOptions) -> LabelSvd:
    """The part of d_{f,g} that concerns f, of pairs (i [B], j [B]) of models with one M.

    Where M differs, the label subsets have as many labels as the smallest M (derived, not in the paper). Raises
    UndefinedError where K < M + 2.
    """
    dim = min(torch.tensor(vectors.dims)[torch.cat(pairs).cpu()].tolist())
    subsets = subsets_beside_choice(
        vectors.num_labels, dim, max_subsets=options.max_subsets, num_sampled=options.num_subsets, seed=options.seed
    )
    cloud = vectors.cloud
    largest, supremum = max_d_svd_f_of_ties(cloud, pairs, choice, subsets)
    certificate = correlation_certificate(cloud, pairs, choice.pivot, choice.left_out, dim)
    return LabelSvd(largest, supremum, certificate, subsets.complete)


def d_fg(largest: Interval, of_g: Tensor) -> Interval:
    """The larger of both parts, [B]."""
    return Interval(*(torch.maximum(bound, of_g) for bound in largest))


class LabelSubsets(NamedTuple):
    """Subsets of a number of labels, or of positions among them."""

    members: Tensor  # [S, m]
    complete: bool  # whether these are all


def subsets_beside_choice(
    num_labels: int, dim: int, *, max_subsets: int = 5000, num_sampled: int = 200, seed: int = 0
) -> LabelSubsets:
    """M-subsets, M = ``dim``, of the K - 2 labels that are neither pivot nor left out, by position [S, M].

    All where there are at most ``max_subsets``, else ``num_sampled`` random ones. Raises UndefinedError
    where there are not so many labels.
    """
    free = num_labels - 2
    if free < dim:
        raise UndefinedError(
            f"L^T f needs M labels besides the pivot and the left-out one, but K = {num_labels} and M = {dim}"
        )
    if comb(free, dim) <= max_subsets:
        return LabelSubsets(_all(free, dim), complete=True)
    return LabelSubsets(_random(free, dim, num_sampled, dim, seed), complete=False)


def pivots_with_subsets(num_labels: int, dim: int, *, max_choices: int = 20_000, seed: int = 0) -> LabelSubsets:
    """A pivot and M = ``dim`` further labels, [S, M + 1], the pivot first.

    All K C(K-1, M) where they are at most ``max_choices``, else so many random ones. Raises UndefinedError for
    fewer than M + 1 labels.
    """
    if num_labels < dim + 1:
        raise UndefinedError(f"L has a pivot and M labels, but K = {num_labels} and M = {dim}")
    if num_labels * comb(num_labels - 1, dim) <= max_choices:
        sets = _all(num_labels, dim + 1)
        return LabelSubsets(torch.cat([sets.roll(-pivot, dims=1) for pivot in range(dim + 1)]), complete=True)
    return LabelSubsets(_random(num_labels, dim + 1, max_choices, dim, seed), complete=False)


def _all(size: int, count: int) -> Tensor:
    members = chain.from_iterable(combinations(range(size), count))
    return torch.tensor(list(members)).view(-1, count)


def _random(size: int, count: int, number: int, dim: int, seed: int) -> Tensor:
    """Uniform ordered subsets; fewer where factorising so many matrices [M, M] would take too long."""
    number = max(1, min(number, _WORK // dim**3))
    keys = torch.rand(number, size, generator=generator(seed, size, count))
    return keys.topk(count).indices


def paper_bound(d_llv: Tensor, dim: int | Tensor) -> Bound:
    """d_{f,g} <= 2 M d_LLV, with M = ``dim``. Nielsen et al. 2025 (arXiv 2506.03784), Theorem 4.7."""
    return on_d_svd(2 * dim * d_llv)


def squared_bound(d_llv: Tensor) -> Bound:
    """d_{f,g} <= 2 d_LLV^2, whatever M. Derived, not in the paper.

    With unit-variance u and u', sd(u_y - u'_y) <= 2 term 1 means Corr(u_y, u'_y) >= 1 - 2 term_1^2, and the nuclear
    norm in m_SVD is at least the trace; the same on the input side with term 2. It is the sharper one for d_LLV < M,
    so wherever either is informative: the paper's from 1 / (2 M) down, this one from 1 / sqrt(2).
    """
    return on_d_svd(2 * d_llv.square())


def on_d_svd(value: Tensor) -> Bound:
    """A bound on d_SVD, which never exceeds 1."""
    return Bound(value, value < 1)


def correlation_certificate(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor, dim: int) -> Bound:
    """max_J d_SVD(L_J^T f, L'_J^T f') <= 1 - mean of the M smallest Corr(u_y, u'_y). Derived, not in the paper.

    u_y = lp(y|.) - lp(y0|.), over the labels y but pivot y0 and left-out one; no subset J is enumerated. For B pairs
    of the models whose label cloud [P, K, R] is given, with choices [B]; [B]. At most 2 term_1^2 at the same choice.
    """
    losses = label_correlation_losses(cloud, pairs, pivot, left_out)
    return on_d_svd(losses.topk(dim).values.mean(-1))


def label_correlation_losses(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor) -> Tensor:
    """1 - Corr(u_y, u'_y) of :func:`correlation_certificate` for each label, [B, K]; -inf for those not compared."""
    losses = half_squares_from(cloud, pairs, pivot)
    excluded = torch.stack([pivot, left_out], dim=1)
    return losses.scatter(1, excluded, -torch.inf)


def unit(vectors: Tensor) -> Tensor:
    """The vectors [..., R] at unit length; nan for zero ones."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=0.0)


def max_d_svd_f(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor, subsets: LabelSubsets) -> Interval:
    """The largest d_SVD(L_J^T f, L'_J^T f') over subsets J of the labels but pivot and left-out one, [B].

    For B pairs of the models whose label cloud [P, K, R] is given, with choices [B]; ``subsets`` are those of
    :func:`subsets_beside_choice`. Where these are not all, the lower bound is the largest of them and of the M labels
    that correlate least, and the upper bound is :func:`correlation_certificate`.
    """
    labels = _skip(subsets.members, pivot, left_out)
    if subsets.complete:
        exact = d_svd_of_subsets(cloud, pairs, pivot, labels).amax(1)
        return Interval(exact, exact)
    worst = label_correlation_losses(cloud, pairs, pivot, left_out).topk(labels.shape[-1])
    labels = torch.cat([worst.indices[:, None], labels], dim=1)
    return Interval(d_svd_of_subsets(cloud, pairs, pivot, labels).amax(1), worst.values.mean(-1).clamp(max=1))


def max_d_svd_f_of_ties(
    cloud: Cloud, pairs: Pairs, choice: LabelChoice, subsets: LabelSubsets
) -> tuple[Interval, Interval]:
    """:func:`max_d_svd_f` at the choice of B pairs of models, [B], and its supremum over the tied ones, [B]."""
    pair, pivot, left_out = choice.ties.T.contiguous()
    tied = max_d_svd_f(cloud, (pairs[0][pair], pairs[1][pair]), pivot, left_out, subsets)
    chosen = torch.searchsorted(pair, torch.arange(len(choice.pivot), device=pair.device))
    at_choice = [bound[chosen] for bound in tied]
    supremum = [start.scatter_reduce(0, pair, bound, "amax") for start, bound in zip(at_choice, tied, strict=True)]
    return Interval(*at_choice), Interval(*supremum)


def d_svd_g(cloud: Cloud, pairs: Pairs, inputs: Tensor) -> Tensor:
    """d_SVD(N^T g, N'^T g') over the K labels, [B], for input sets [B, M + 1] with the pivot first.

    For B pairs of the models whose input cloud [P, N, R] is given. nan where an input coincides with the pivot.
    """
    u, v = (unit(cloud.differences(index, inputs[:, 0], inputs[:, 1:])) for index in pairs)
    return _distance(u @ cloud.summary(pairs).across, v)


def nuclear_norm(matrices: Tensor) -> Tensor:
    """Sum of the singular values of [..., M, M]; for M = 2 sqrt(|R|_F^2 + 2 |det R|)."""
    if matrices.shape[-1] == 1:
        return matrices.abs().sum((-1, -2))
    if matrices.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
        return (matrices.square().sum((-1, -2)) + 2 * (a * d - b * c).abs()).sqrt()
    singular: Tensor = torch.linalg.svdvals(matrices)
    return singular.sum(-1)


def _distance(u: Tensor, v: Tensor) -> Tensor:
    """d_SVD [...] of unit vectors [..., M, R] in the same coordinates; rounding can leave it a few 1e-16 below zero."""
    return (1 - nuclear_norm(u @ v.mT) / u.shape[-2]).clamp(min=0)


def d_svd_of_subsets(cloud: Cloud, pairs: Pairs, pivot: Tensor, labels: Tensor) -> Tensor:
    """d_SVD(L_J^T f, L'_J^T f') of label subsets J [B, S, m] at pivots [B], [B, S]; m may be any number of labels."""
    count, _, dim = labels.shape
    step = max(1, _ELEMENTS // (count * dim * max(dim, cloud.own.shape[2])))
    parts, across = [], cloud.summary(pairs).across
    for part in torch.split(labels, step, dim=1):
        u, v = (unit(cloud.differences(index, pivot, part.flatten(1))) for index in pairs)
        parts.append(_distance((u @ across).view(*part.shape, -1), v.view(*part.shape, -1)))
    return torch.cat(parts, dim=1)


def _skip(positions: Tensor, pivot: Tensor, left_out: Tensor) -> Tensor:
    """Labels [B, S, M] of positions [S, M] among those that are neither pivot [B] nor left out [B]."""
    labels = positions.to(pivot.device).expand(len(pivot), -1, -1)
    for skipped in (torch.minimum(pivot, left_out), torch.maximum(pivot, left_out)):
        labels = labels + (labels >= skipped[:, None, None])
    return labels


def _standardised(x: Tensor, name: str) -> Tensor:
    """Unit vectors [M, N] of the centred coordinates of x [N, M]."""
    x = as_float64(x)
    x = x / power_of_two(x, 0)
    centred = x - x.mean(0)
    constant = (centred.norm(dim=0) <= _CONSTANT * x.norm(dim=0)).nonzero()
    if len(constant):
        column, shape = int(constant[0]), tuple(x.shape)
        raise UndefinedError(f"coordinate {column} of the {name} of {shape} is constant: no correlation")
    return unit(centred.T / power_of_two(centred, 0).T)
