"""Distances between two softmax models in centred logits, and between their embeddings through their heads.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438). u(x) = W f(x), with W the unembeddings less
their mean over labels, are the logits centred over labels; E is the mean over the inputs.

    d_logit^2 = E |u(x) - u'(x)|^2,    d_rep^2 = E |f(x) - A f'(x)|^2,

with A = pinv(W) W' by default, or averaged over A_J = L_J^-T L'_J^T for the label differences L_J of pivots and
M-subsets J. d_logit is a metric between conditional distributions; it grows with the models' confidence.

What d_logit says about representations, and what a KL divergence says about d_logit.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438); the constants are derived anew, and exact.
For one subset of labels the bound stands in :class:`likeness.similarity.logit_distance.SubsetDistances`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.similarity.cca import RankDeficientError
from likeness.similarity.cloud import one_pair, padded
from likeness.similarity.d_llv import conditioning
from likeness.similarity.d_svd import Bound, pivots_with_subsets
from likeness.similarity.options import MIN_CONDITIONING
from likeness.similarity.softmax_models import Head, LabelVectors

_ELEMENTS = 2**22  # of a temporary


class SubsetDistances(NamedTuple):
    """d_rep^2 over choices of a pivot and M labels, among those with a well conditioned L_J."""

    mean: Tensor  # heavy-tailed: one ill-conditioned L_J outweighs all others
    median: Tensor
    kept: Tensor  # fraction of the choices
    bound: Tensor  # of the mean: that of E sum_{j in J} (delta_j - delta_0)^2 / smallest singular value(L_J)^2


def d_logit_squared(scores: Tensor, other_scores: Tensor) -> Tensor:
    """d_logit^2 of two models' logits or log-probabilities [N, K], a scalar; differentiable, hence a loss too.

    Unlike the mean squared difference of raw logits it ignores what softmax ignores: a shift of all logits.
    """
    difference = scores - other_scores
    return (difference - difference.mean(-1, keepdim=True)).square().sum(-1).mean()


def pairwise_d_logit_squared(vectors: LabelVectors) -> Tensor:
    """d_logit^2 of all pairs of P models, [P, P]."""
    cloud = vectors.cloud
    rows = cloud.blocks(cloud.num_models * cloud.width)
    varying = torch.stack([_squared_distances(cloud.centred(part).flatten(1)) for part in rows]).sum(0)
    return varying * _population(vectors) + _squared_distances(vectors.mean)


def logit_power(vectors: LabelVectors) -> Tensor:
    """E |u(x)|^2 of P models, [P]: what d_logit^2 of the first model of a pair is normalised by."""
    varying = torch.linalg.vector_norm(vectors.cloud.own, dim=(1, 2)).square()
    power: Tensor = varying * _population(vectors) + vectors.mean.square().sum(1)
    return power


def pairwise_d_rep_squared(vectors: LabelVectors, factors: Sequence[Head]) -> Tensor:
    """d_rep^2 with A = pinv(W_i) W_j for all ordered pairs, [P, P]: how far the f of j is from that of i.

    f - A f' = pinv(W) (u - u'), which is also what is meant where heads have biases. M may differ.
    """
    all_heads, all_roots = padded(vectors.heads), padded(vectors.roots)
    rows = []
    for i, factor in enumerate(factors):
        maps = _solve(factor, all_heads.transpose(0, 1).flatten(1)).view(-1, *all_heads.shape[::2])
        varying = vectors.roots[i] - all_roots @ maps.permute(1, 2, 0)
        means = _solve(factor, (vectors.mean[i] - vectors.mean).T)
        rows.append(varying.square().sum((1, 2)) * _population(vectors) + means.square().sum(0))
    return torch.stack(rows).fill_diagonal_(0)


def d_rep_of_subsets(
    vectors: LabelVectors,
    first: int = 0,
    second: int = 1,
    *,
    max_choices: int = 20_000,
    seed: int = 0,
    min_conditioning: float = MIN_CONDITIONING,
) -> SubsetDistances:
    """d_rep^2 over choices of a pivot and M labels: all, or ``max_choices`` random ones where there are more.

    Choices whose L_J has a relative smallest singular value under ``min_conditioning`` are left out. Raises
    ValueError where M differs, RankDeficientError where no choice is left.
    """
    if vectors.dims[first] != vectors.dims[second]:
        raise ValueError(f"A_J = L_J^-T L'_J^T needs one M, but the models have M = {vectors.dims}")
    head = vectors.heads[first]
    choices = pivots_with_subsets(*head.shape, max_choices=max_choices, seed=seed).members.to(head.device)
    regular = conditioning(head, choices) >= min_conditioning
    if not bool(regular.any()):
        raise RankDeficientError(
            f"no L_J of the unembeddings {tuple(head.shape)} of model {vectors.names[first]!r} has a relative smallest "
            f"singular value of {min_conditioning:g}"
        )
    size = max(1, _ELEMENTS // (head.shape[1] * vectors.cloud.width))
    parts = [
        _through(head, part, _deviations(vectors, first, second, part)) for part in torch.split(choices[regular], size)
    ]
    distances, limits = (torch.cat(values) for values in zip(*parts, strict=True))
    return SubsetDistances(distances.mean(), distances.median(), regular.double().mean(), limits.mean())


def _through(head: Tensor, choices: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor]:
    """E |L_J^-T (delta_J - delta_0)|^2 = E |f - A_J f'|^2 and what bounds it, [S], for choices [S, M + 1].

    ``deviations`` [S, M + 1, R + 1] are delta = u - u' of each label, as vectors whose squared length is E delta_y^2.
    """
    labels, deviations = (x[:, 1:] - x[:, :1] for x in (head[choices], deviations))
    distances = torch.linalg.solve(labels, deviations).square().sum((1, 2))
    return distances, deviations.square().sum((1, 2)) / torch.linalg.svdvals(labels)[:, -1].square()


def _deviations(vectors: LabelVectors, first: int, second: int, choices: Tensor) -> Tensor:
    labels, models = choices.flatten(), one_pair(first, second, choices.device)
    u, v = (vectors.cloud.take(model, labels[None])[0] for model in models)
    mean = vectors.mean[first, labels] - vectors.mean[second, labels]
    deviations = torch.cat([(u - v) * _population(vectors) ** 0.5, mean[:, None]], dim=1)
    return deviations.view(*choices.shape, -1)


def _squared_distances(rows: Tensor) -> Tensor:
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()


def _solve(factor: Head, right: Tensor) -> Tensor:
    """pinv(W) times a matrix [K, ...]."""
    solution: Tensor = torch.linalg.solve_triangular(factor.triangle, factor.basis.T @ right, upper=True)
    return solution


def _population(vectors: LabelVectors) -> float:
    """Turns variances with N - 1 in the denominator into means over the N inputs."""
    return (vectors.samples - 1) / vectors.samples


def d_rep_bound(d_logit_squared: Tensor, head: Head, power: Tensor) -> Bound:
    """d_rep^2 <= d_logit^2 / smallest singular value(W)^2, for A = pinv(W) W'.

    Informative where it is less than ``power`` = E |f|^2, which a constant 0 would do.
    """
    value = d_logit_squared / head.smallest.square()
    return Bound(value, value < power)


def correlation_deficit(vectors: LabelVectors, factor: Head, first: int = 0, second: int = 1) -> Tensor:
    """sum_i (1 - rho_i^2) lambda_i, which is at most d_logit^2 (Theorem F.1).

    lambda are the eigenvalues of the covariance over inputs of the first model's u, rho the canonical correlations
    of the two embeddings; both descend, and a missing rho is 0.
    """
    bases = [torch.linalg.qr(vectors.roots[model])[0] for model in (first, second)]
    rho = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1)
    rho = torch.cat([rho, rho.new_zeros(bases[0].shape[1] - len(rho))])
    return ((1 - rho.square()) * _logit_variances(vectors, factor, first)).sum()


def m_cca_bound(d_logit_squared: Tensor, vectors: LabelVectors, factor: Head, first: int = 0, second: int = 1) -> Bound:
    """m_CCA(f, f') >= 1 - d_logit^2 / (M lambda_M), with lambda_M the smallest of :func:`correlation_deficit`.

    M is the smaller of the two dimensions. Informative above 0.
    """
    smallest = _logit_variances(vectors, factor, first)[-1]
    value = 1 - d_logit_squared / (min(vectors.dims[first], vectors.dims[second]) * smallest)
    return Bound(value, value > 0)


def d_logit_bound(kl: Tensor, log_tau: float, num_labels: int) -> Bound:
    """d_logit^2 <= KL / (tau c) where p and p' are at least tau = exp(``log_tau``) on all inputs and labels.

    R = -log tau and c = (tau - 1 + R) / R^2. For trained classifiers tau is next to 0 and the bound useless:
    informative where it is less than K R^2, which always holds.
    """
    rate = -log_tau
    constant = kl.new_tensor(math.exp(log_tau) * (math.expm1(log_tau) + rate) / rate**2)
    value = (kl / constant).where(kl > 0, 0.0)
    return Bound(value, value < num_labels * rate**2)


def _logit_variances(vectors: LabelVectors, factor: Head, model: int) -> Tensor:
    """The M nonzero eigenvalues of the covariance of u(x) over the N inputs (N in the denominator), descending."""
    root = torch.linalg.qr(vectors.roots[model], mode="r")[1]
    singular: Tensor = torch.linalg.svdvals(factor.triangle @ root.T)
    return singular.square() * (vectors.samples - 1) / vectors.samples
