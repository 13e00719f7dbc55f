"""Distances between two softmax models in centred logits, and between their embeddings through their heads.

"Logit Distance Bounds Representational Similarity" (arXiv 2602.15438). u(x) = W f(x), with W the unembeddings less
their mean over labels, are the logits centred over labels; E is the mean over the inputs.

    d_logit^2 = E |u(x) - u'(x)|^2,    d_rep^2 = E |f(x) - A f'(x)|^2,

with A = pinv(W) W' by default, or averaged over A_J = L_J^-T L'_J^T for the label differences L_J of pivots and
M-subsets J. d_logit is a metric between conditional distributions; it grows with the models' confidence. It bounds
d_rep and m_CCA(f), and a KL divergence bounds it; the constants of the bounds are derived anew, and exact.

Lengths, not squares, are what functions answer: a square leaves float64's range long before the logits do.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import length, median, power_of_two, triangle
from likeness.similarity.cloud import Pairs, one_pair, padded
from likeness.similarity.d_svd import Bound, pivots_with_subsets
from likeness.similarity.input_sets import conditioning_of
from likeness.similarity.joint_moments import JointMoments
from likeness.similarity.options import MIN_CONDITIONING
from likeness.similarity.predictions import centred_head
from likeness.similarity.softmax_models import FactorisedHead, LabelVectors
from likeness.similarity.undefined import RankDeficientError, UndefinedError

_ELEMENTS = 2**22  # of a temporary


class SubsetDistances(NamedTuple):
    """d_rep over choices of a pivot and M labels, among those with a well conditioned L_J."""

    mean: Tensor  # in squares; heavy-tailed: one ill-conditioned L_J outweighs all others
    median: Tensor  # in squares too
    kept: Tensor  # fraction of the choices
    bound: Tensor  # of the mean: of E sum_{j in J} (delta_j - delta_0)^2 / smallest singular value(L_J)^2
    complete: bool  # whether these are all choices


def d_logit_squared(scores: Tensor, other_scores: Tensor) -> Tensor:
    """d_logit^2 of two models' logits or log-probabilities [N, K], a scalar; differentiable, hence a loss too.

    Unlike the mean squared difference of raw logits it ignores what softmax ignores: a shift of all logits.
    """
    difference = scores - other_scores
    return (difference - difference.mean(-1, keepdim=True)).square().sum(-1).mean()


def d_logit_of_pairs(vectors: LabelVectors, pairs: Pairs) -> Tensor:
    """d_logit of the pairs (i [B], j [B]) of P models, [B]."""
    cloud, (first, second) = vectors.cloud, pairs
    # The unit of each pair is that of its larger model.
    size = torch.maximum(*(torch.maximum(cloud.size, power_of_two(vectors.mean, 1).squeeze(1))[x] for x in pairs))
    summary = cloud.summary(pairs)
    a, b = (cloud.size[index] / size * summary.scale[index] for index in pairs)
    v, w, difference = (squares.sum(1) for squares in summary.centred)
    squares = a * b * difference + (a - b) * (a * v - b * w)  # of a v - b w
    means = (vectors.mean[first] - vectors.mean[second]) / size[:, None]
    return size * (squares.clamp(min=0) * _population(vectors) + means.square().sum(1)).sqrt()


def weighted_d_logit(joint: JointMoments, heads: Sequence[Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The root of E sum_y w_y (delta_y - sum_y' w_y' delta_y')^2 with delta = l - l', [B], and of l alone, [P].

    ``heads`` are those of :func:`weighted_heads`. A distance of conditional distributions over the labels whose weight
    is not 0; with weights 1 / K, d_logit over sqrt(K). Derived, not in the paper.
    """
    n, functions = float(joint.moments.n), []
    for (root, mean), head in zip(joint.functions(), heads, strict=True):
        varying = root @ head[:, : root.shape[1]].T * ((n - 1) / n) ** 0.5
        functions.append(torch.cat([varying, (head @ mean)[None]]))
    u = torch.stack(functions)
    return length(u[pairs[0]] - u[pairs[1]], (1, 2)), length(u, (1, 2))


def weighted_heads(unembeddings: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """sqrt(w_y) (g_i(y) - sum_y w_y g_i(y)) for weights w [K], [S, M_i] for the S labels whose weight is not 0.

    Or fewer rows that have the same inner products of columns, of each model and between them. Raises ValueError for
    weights that are negative or all 0.
    """
    if not (bool((weights >= 0).all()) and bool(weights.any())):
        raise ValueError("weights of labels must not be negative, nor all of them 0")
    some = weights.nonzero().flatten()
    shares = weights[some].double() / weights[some].double().sum()
    rows = torch.cat([centred_head(g[some], shares) for g in unembeddings], dim=1)
    rows = triangle(rows) if len(rows) > rows.shape[1] else rows
    return torch.split(rows, [g.shape[1] for g in unembeddings], dim=1)


def logit_lengths(vectors: LabelVectors) -> Tensor:
    """The root of E |u(x)|^2 of P models, [P]: what d_logit of the first model of a pair is normalised by."""
    varying = vectors.cloud.size * torch.linalg.vector_norm(vectors.cloud.own, dim=(1, 2)) * _population(vectors) ** 0.5
    return length(torch.stack([varying, length(vectors.mean, 1)]), 0)


def d_rep_of_pairs(vectors: LabelVectors, pairs: Pairs) -> Tensor:
    """d_rep with A = pinv(W_i) W_j of the pairs (i [B], j [B]), [B]: how far the f of j is from that of i.

    f - A f' = pinv(W) (u - u'), which is also what is meant where heads have biases. M may differ.
    """
    all_heads, all_roots = padded(vectors.triangles), padded(vectors.roots)
    size = power_of_two(all_heads, (1, 2))  # moved into f, lest pinv(W) W' leave float64 where units differ
    all_heads, all_roots = all_heads / size, all_roots * size
    all_means = torch.stack(vectors.means)
    found = vectors.mean.new_zeros(len(pairs[0]))
    for model in torch.unique(pairs[0]).tolist():
        rows = (pairs[0] == model).nonzero().squeeze(1)
        others = pairs[1][rows]
        factor = FactorisedHead.of(vectors.triangles[model])
        maps = _solve(factor, all_heads[others].transpose(0, 1).flatten(1)).view(-1, len(rows), all_heads.shape[2])
        varying = vectors.roots[model] - all_roots[others] @ maps.permute(1, 2, 0)
        means = _solve(factor, (all_means[model] - all_means[others]).T)
        parts = length(varying, (1, 2)) * _population(vectors) ** 0.5, length(means, 0)
        found[rows] = length(torch.stack(parts), 0)
    return found


def d_rep_of_subsets(
    vectors: LabelVectors,
    first: int = 0,
    second: int = 1,
    *,
    max_choices: int = 20_000,
    seed: int = 0,
    min_conditioning: float = MIN_CONDITIONING,
) -> SubsetDistances:
    """d_rep over choices of a pivot and M labels: all, or ``max_choices`` random ones where there are more.

    Choices whose L_J has a relative smallest singular value under ``min_conditioning`` are left out. Raises
    UndefinedError where M differs, RankDeficientError where no choice is left.
    """
    if vectors.dims[first] != vectors.dims[second]:
        raise UndefinedError(f"A_J = L_J^-T L'_J^T needs one M, but the models have M = {vectors.dims}")
    head = vectors.heads[first]
    subsets = pivots_with_subsets(*head.shape, max_choices=max_choices, seed=seed)
    choices = subsets.members.to(head.device)
    regular = conditioning_of(head[choices]) >= min_conditioning
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
    unit = power_of_two(distances)
    middle = unit * median((distances / unit).square()).sqrt()
    return SubsetDistances(
        _root_mean_square(distances), middle, regular.double().mean(), _root_mean_square(limits), subsets.complete
    )


def _root_mean_square(values: Tensor) -> Tensor:
    """The root of the mean of the squares of values [S]."""
    root: Tensor = length(values, 0) / len(values) ** 0.5
    return root


def _through(head: Tensor, choices: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of E |L_J^-T (delta_J - delta_0)|^2 = E |f - A_J f'|^2 and of its bound, [S], for choices [S, M + 1].

    ``deviations`` [S, M + 1, R + 1] are delta = u - u' of each label, as vectors whose squared length is E delta_y^2.
    """
    labels, deviations = (x[:, 1:] - x[:, :1] for x in (head[choices], deviations))
    distances = length(torch.linalg.solve(labels, deviations), (1, 2))
    return distances, length(deviations, (1, 2)) / torch.linalg.svdvals(labels)[:, -1]


def _deviations(vectors: LabelVectors, first: int, second: int, choices: Tensor) -> Tensor:
    labels, models = choices.flatten(), one_pair(first, second, choices.device)
    u, v = (vectors.cloud.take(model, labels[None])[0] * vectors.cloud.size[model] for model in models)
    mean = vectors.mean[first, labels] - vectors.mean[second, labels]
    deviations = torch.cat([(u - v) * _population(vectors) ** 0.5, mean[:, None]], dim=1)
    return deviations.view(*choices.shape, -1)


def _solve(factor: FactorisedHead, right: Tensor) -> Tensor:
    """pinv(W) times a matrix [K, ...]."""
    solution: Tensor = torch.linalg.solve_triangular(factor.triangle, factor.basis.T @ right, upper=True)
    return solution


def _population(vectors: LabelVectors) -> float:
    """Turns variances with N - 1 in the denominator into means over the N inputs."""
    return (vectors.samples - 1) / vectors.samples


def d_rep_bound(d_logit: Tensor, head: FactorisedHead, embedding_length: Tensor) -> Bound:
    """d_rep <= d_logit / smallest singular value(W), for A = pinv(W) W'.

    Informative where it is less than ``embedding_length``, the root of E |f|^2, which a constant 0 would do.
    """
    value = d_logit / head.smallest
    return Bound(value, value < embedding_length)


def correlation_deficit(vectors: LabelVectors, first: int = 0, second: int = 1) -> Tensor:
    """sum_i (1 - rho_i^2) lambda_i, which is at most d_logit^2 (Theorem F.1).

    lambda are the eigenvalues of the covariance over inputs of the first model's u, rho the canonical correlations
    of the two embeddings; both descend, and a missing rho is 0.
    """
    bases = [torch.linalg.qr(vectors.roots[model])[0] for model in (first, second)]
    rho = torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1)
    rho = torch.cat([rho, rho.new_zeros(bases[0].shape[1] - len(rho))])
    return ((1 - rho.square()) * _logit_deviations(vectors, first).square()).sum()


def m_cca_bound(d_logit: Tensor, vectors: LabelVectors, first: int = 0, second: int = 1) -> Bound:
    """m_CCA(f, f') >= 1 - d_logit^2 / (M lambda_M), with lambda_M the smallest of :func:`correlation_deficit`.

    M is the smaller of the two dimensions. Informative above 0.
    """
    smallest = _logit_deviations(vectors, first)[-1]
    value = 1 - (d_logit / smallest).square() / min(vectors.dims[first], vectors.dims[second])
    return Bound(value, value > 0)


def d_logit_bound(kl: Tensor, log_tau: float, num_labels: int) -> Bound:
    """d_logit^2 <= KL / (tau c) where p and p' are at least tau = exp(``log_tau``) on all inputs and labels.

    R = -log tau and c = (tau - 1 + R) / R^2. For trained classifiers tau is next to 0 and the bound useless:
    informative where it is less than K R^2, which always holds. The bound of d_logit itself is answered.
    """
    rate = -log_tau
    if rate == 0:  # one label
        return Bound(torch.zeros_like(kl), kl < 0)
    log_constant = log_tau + math.log(math.expm1(log_tau) + rate) - 2 * math.log(rate)
    value = (kl.sqrt() * torch.exp(kl.new_tensor(-log_constant / 2))).where(kl > 0, 0.0)
    return Bound(value, value < num_labels**0.5 * rate)


def _logit_deviations(vectors: LabelVectors, model: int) -> Tensor:
    """The M standard deviations of u(x) over the N inputs along its principal axes (N in the denominator), falling."""
    root = torch.linalg.qr(vectors.roots[model], mode="r")[1]
    triangle = torch.linalg.qr(vectors.heads[model], mode="r")[1]
    singular = torch.linalg.svdvals(triangle @ root.T)
    missing = vectors.dims[model] - len(singular)  # with fewer labels than dimensions
    deviations: Tensor = torch.nn.functional.pad(singular, (0, missing)) * _population(vectors) ** 0.5
    return deviations
