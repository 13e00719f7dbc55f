"""What the indices of hubness are where there is none: every query's k neighbours are drawn at random.

Each query draws k different ones of the points that it may have, so that N is a binomial count. The indices are those
of its distribution, exact up to rounding; a sample of n points differs from them by its own noise and O(1 / n).
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from likeness.measures.hubness_indices import HubnessIndices, HubRule, indices_of


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
