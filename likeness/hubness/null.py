"""What the indices of hubness are where there is none, and what they are of all queries where few were searched.

Null: each query draws k different ones of the points that it may have, so that N is a binomial count. The indices are
those of its distribution, exact up to rounding; a sample of n points differs from them by its own noise and O(1 / n).

Thinned queries: a point's count over s queries, drawn from M without replacement, is hypergeometric given its count N
over all. Its factorial moments are therefore those of N times s (s - 1) ... / (M (M - 1) ...): about (s / M)^r, which
is what they would be if each query were kept with that probability. Moments of N have unbiased estimates, and only
those of order up to 3 are needed for its skewness. Other indices are of the sampled queries, beside the null of as
many.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from likeness.hubness.indices import HubnessIndices, HubRule, indices_of


def null_indices(
    n: int, m: int, k: int, *, in_sample: bool, include_self: bool = False, hubs: HubRule | None = None
) -> HubnessIndices:
    """The indices of m random lists of k among n points; the largest count is the expected one of n points.

    In-sample the queries are m of the points and have others as neighbours; with ``include_self`` (m = n) the first
    neighbour is the point itself.
    """
    draws = _binomials(n, m, k, in_sample, include_self)
    answers = indices_of(_histogram(draws), k, hubs or HubRule(), include_self)
    largest = _expected_maximum(draws)
    return replace(
        answers,
        max_occurrence=largest,
        groupie_ratio=largest / (k * m),
        asymmetry=_asymmetry(n, k, include_self) if in_sample and m == n else None,
    )


def null_histogram(n: int, m: int, k: int, *, in_sample: bool, include_self: bool = False) -> Tensor:
    """Expected number of points [C] float64 with N = 0, 1, ..., up to where nothing is left; the sum is n."""
    return _histogram(_binomials(n, m, k, in_sample, include_self))


def null_bad_occurrence(
    labels: Tensor, query_labels: Tensor, k: int, *, in_sample: bool, include_self: bool = False
) -> float:
    """Expected share of slots with another label than the query's, from the labels' numbers 0, 1, ....

    labels: [n] of the points; query_labels: [m]. In-sample a query is one of the points, and not its own neighbour
    but in the first slot of ``include_self``.
    """
    alike = torch.bincount(labels, minlength=int(query_labels.max()) + 1)[query_labels]
    bad = 1 - (int(alike.sum()) / len(alike) - in_sample) / (len(labels) - in_sample)
    return bad * (k - 1) / k if include_self else bad


def _binomials(n: int, m: int, k: int, in_sample: bool, include_self: bool) -> list[tuple[int, Tensor]]:
    """Numbers of points, and the probabilities of N = 0, 1, ... of each of them."""
    if not in_sample:
        return [(n, _binomial(m, k / n))]
    p = (k - include_self) / (n - 1)
    own = _binomial(m - 1, p)  # a point that is a query is not among its own random neighbours
    own = torch.cat([own.new_zeros(1), own]) if include_self else own
    return [(m, own)] if m == n else [(m, own), (n - m, _binomial(m, p))]


def _binomial(trials: int, p: float) -> Tensor:
    """P(N = c) for c = 0, 1, ... up to 40 standard deviations above the mean, summed up by the ratios of neighbours."""
    if p == 1:  # the odds are infinite
        return one_hot(torch.tensor(trials)).double()
    mean = trials * p
    last = min(trials, int(mean + 40 * mean**0.5 + 100))
    c = torch.arange(last, dtype=torch.float64)
    odds = torch.tensor(p / (1 - p), dtype=torch.float64)
    log_ratios = ((trials - c) / (c + 1) * odds).log()
    log_p = torch.cat([c.new_zeros(1), log_ratios.cumsum(0)])
    return log_p.softmax(0)


def _histogram(draws: list[tuple[int, Tensor]]) -> Tensor:
    size = max(len(probabilities) for _, probabilities in draws)
    histogram = torch.zeros(size, dtype=torch.float64)
    for points, probabilities in draws:
        histogram[: len(probabilities)] += points * probabilities
    return histogram


def _expected_maximum(draws: list[tuple[int, Tensor]]) -> float:
    """sum_c P(max N > c) of independent counts."""
    log_none_above = torch.zeros(max(len(probabilities) for _, probabilities in draws), dtype=torch.float64)
    for points, probabilities in draws:
        above = probabilities.flip(0).cumsum(0).flip(0)[1:].clamp(max=1)  # P(N > c)
        log_none_above[: len(above)] += points * torch.log1p(-above)
    return float(-torch.expm1(log_none_above).sum())


def _asymmetry(n: int, k: int, include_self: bool) -> float:
    drawn = k - include_self  # edges to other points, of each point
    return drawn / k * (1 - drawn / (n - 1))


_ROUNDING = 1e-12  # of the second moment, below which a variance is rounding


class ThinnedEstimate(NamedTuple):
    """Of the k-occurrence over all queries, from some of them."""

    queries: int  # all of them
    mean: float
    variance: float  # population variance over the points; unbiased, and so below 0 at times
    k_skewness: float | None  # None where the variance is estimated as 0 or less
    reason: str | None = None  # why there is no skewness


def thinned_estimate(histogram: Tensor, searched: int, queries: int) -> ThinnedEstimate:
    """Moments over all ``queries`` from the histogram of counts [C] over ``searched`` ones, a random choice of them.

    The moments are unbiased; the skewness, a ratio of them, is consistent. Raises ValueError unless
    3 <= searched <= queries.
    """
    if not 3 <= searched <= queries:
        raise ValueError(f"three moments need at least 3 of the {queries} queries, and at most all; got {searched}")
    first, second, third = _factorial_moments(histogram, searched, queries)
    square, cube = second + first, third + 3 * second + first
    variance = square - first**2
    central = cube - 3 * first * square + 2 * first**3
    if variance <= _ROUNDING * square:
        reason = f"the variance over all {queries} queries is estimated as {variance:.3g} from {searched}: search more"
        return ThinnedEstimate(queries, first, variance, None, reason)
    return ThinnedEstimate(queries, first, variance, central / variance**1.5)


def choose_queries(queries: int, fraction: float, seed: int) -> Tensor:
    """Positions of a random share of the queries, ascending: as many as the fraction rounds to.

    Raises ValueError unless the share is in (0, 1], and all queries or at least the 3 of :func:`thinned_estimate`.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"query_fraction must be above 0 and at most 1, got {fraction}")
    count = round(fraction * queries)
    if fraction < 1 and count < 3:
        raise ValueError(f"query_fraction must leave at least 3 queries, but {fraction} of {queries} are {count}")
    return torch.randperm(queries, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def _factorial_moments(histogram: Tensor, searched: int, queries: int) -> tuple[float, float, float]:
    """E N, E N (N - 1) and E N (N - 1) (N - 2) over all queries."""
    weights = histogram.cpu().double() / histogram.sum().item()
    counts = torch.arange(len(weights), dtype=torch.float64)
    falling, moments = torch.ones_like(counts), []
    scale = 1.0
    for step in range(3):
        falling = falling * (counts - step)
        scale *= (queries - step) / (searched - step)
        moments.append(float((falling * weights).sum()) * scale)
    first, second, third = moments
    return first, second, third
