"""How alike two models' representations are up to the maps that leave their likelihoods alone.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), section 4. Embeddings are read through M label
differences, u = L^T f with L = [g(y1) - g(y0) .. g(yM) - g(y0)], which are equal in equivalent models. Then

    m_SVD(u, u') = |R|_* / M,   R[a, b] = Corr_x(u_a, u'_b),   d_SVD = 1 - m_SVD,

the mean covariance of the pairs of scores of a PLS-SVD of the standardised u and u'. On the input side N^T g takes
the place of L^T f, with M input differences and correlations over labels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.bounds import label_correlation_losses, unit
from likeness.measures.cloud import Cloud, Pairs
from likeness.measures.label_side import LabelChoice
from likeness.measures.label_subsets import LabelSubsets
from likeness.measures.moments import as_float64

_ELEMENTS = 2**22  # of a temporary


class Interval(NamedTuple):
    """Bounds of a number that is known exactly where they are equal."""

    lower: Tensor
    upper: Tensor


def m_svd(u: Tensor, v: Tensor) -> Tensor:
    """m_SVD of u [N, M] and v [N, M], a scalar in [0, 1]; 1 where they agree up to scales and a rotation.

    Raises ValueError where the shapes differ, or naming a coordinate that is constant.
    """
    if u.shape != v.shape or u.dim() != 2:
        raise ValueError(f"m_SVD compares [N, M] with [N, M], but received {tuple(u.shape)} and {tuple(v.shape)}")
    return 1 - d_svd(u, v)


def d_svd(u: Tensor, v: Tensor) -> Tensor:
    """1 - m_SVD of u [N, M] and v [N, M]; see :func:`m_svd`."""
    return _distance(_standardised(u, "first"), _standardised(v, "second"))


def max_d_svd_f(cloud: Cloud, pairs: Pairs, pivot: Tensor, left_out: Tensor, subsets: LabelSubsets) -> Interval:
    """The largest d_SVD(L_J^T f, L'_J^T f') over subsets J of the labels but pivot and left-out one, [B].

    For B pairs of the models whose label cloud [P, K, R] is given, with choices [B]; ``subsets`` are those of
    :func:`likeness.measures.label_subsets.subsets_beside_choice`. Where ``subsets`` are not all, the
    lower bound is the largest of these and of the M labels that correlate least, and the upper bound is
    :func:`likeness.measures.bounds.correlation_certificate`.
    """
    labels = _skip(subsets.members, pivot, left_out)
    if subsets.complete:
        exact = _largest(cloud, pairs, pivot, labels)
        return Interval(exact, exact)
    worst = label_correlation_losses(cloud, pairs, pivot, left_out).topk(labels.shape[-1])
    labels = torch.cat([worst.indices[:, None], labels], dim=1)
    return Interval(_largest(cloud, pairs, pivot, labels), worst.values.mean(-1).clamp(max=1))


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
    points = [cloud.take(index, inputs) for index in pairs]
    return _distance(*(unit(x[:, 1:] - x[:, :1]) for x in points))


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
    """d_SVD [...] of unit vectors [..., M, R]; rounding can leave it a few 1e-16 below zero."""
    return (1 - nuclear_norm(u @ v.mT) / u.shape[-2]).clamp(min=0)


def _largest(cloud: Cloud, pairs: Pairs, pivot: Tensor, labels: Tensor) -> Tensor:
    """The largest d_SVD over label subsets [B, S, M], [B]."""
    count, _, dim = labels.shape
    step = max(1, _ELEMENTS // (count * dim * max(dim, cloud.width)))
    parts = []
    for part in torch.split(labels, step, dim=1):
        differences = [cloud.take(index, part.flatten(1)) - cloud.take(index, pivot[:, None]) for index in pairs]
        parts.append(_distance(*(unit(x).view(*part.shape, -1) for x in differences)).amax(1))
    return torch.stack(parts).amax(0)


def _skip(positions: Tensor, pivot: Tensor, left_out: Tensor) -> Tensor:
    """Labels [B, S, M] of positions [S, M] among those that are neither pivot [B] nor left out [B]."""
    labels = positions.to(pivot.device).expand(len(pivot), -1, -1)
    for skipped in (torch.minimum(pivot, left_out), torch.maximum(pivot, left_out)):
        labels = labels + (labels >= skipped[:, None, None])
    return labels


def _standardised(x: Tensor, name: str) -> Tensor:
    """Unit vectors [M, N] of the centred coordinates of x [N, M]."""
    centred = as_float64(x) - as_float64(x).mean(0)
    constant = (centred.norm(dim=0) <= 1e-12 * as_float64(x).norm(dim=0)).nonzero()
    if len(constant):
        raise ValueError(f"coordinate {int(constant[0])} of the {name} of {tuple(x.shape)} is constant: no correlation")
    return unit(centred.T)
