"""Hubness from a sample of the queries, where searching all of them costs too much.

A point's count over s queries, drawn from M without replacement, is hypergeometric given its count N over all. Its
factorial moments are therefore those of N times s (s - 1) ... / (M (M - 1) ...): about (s / M)^r, which is what they
would be if each query were kept with that probability. Moments of N have unbiased estimates, and only those of order
up to 3 are needed for its skewness. Other indices are of the sampled queries, and belong beside the null of as many.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class ThinnedEstimate(NamedTuple):
    """Of the k-occurrence over all queries, from some of them."""

    queries: int  # all of them
    mean: float
    variance: float  # population variance over the points; unbiased, and so below 0 at times
    k_skewness: float  # 0 where the variance is estimated as 0 or less


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
    return ThinnedEstimate(queries, first, variance, central / variance**1.5 if variance > 0 else 0.0)


def choose_queries(queries: int, fraction: float, seed: int) -> Tensor:
    """Positions of a random share of the queries, ascending: as many as the fraction rounds to, at least one."""
    if not 0 < fraction <= 1:
        raise ValueError(f"query_fraction must be above 0 and at most 1, got {fraction}")
    order = torch.randperm(queries, generator=torch.Generator().manual_seed(seed))
    return order[: max(1, round(fraction * queries))].sort().values


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
