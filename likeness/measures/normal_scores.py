"""Every dimension with the values of a normal sample, in the order of its own."""

from collections.abc import Iterator
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from likeness.measures.feature_moments import DEAD, FeatureMoments
from likeness.measures.samples import require_one_of

Order = Literal["deterministic", "random"]

_BLOCK = 2**22  # values that are ranked at a time


class NormalScores:
    """An increasing function for each of d dimensions that takes the index's values to order statistics of N(0, 1).

    ``order``: "deterministic" takes Phi^-1((r - 1/2) / n) for the r-th smallest of n values; "random" sorts n normal
    draws for each dimension, of NumPy's default generator under ``seed``. Equal values share the mean of the order
    statistics that are theirs, so the order of the rows says nothing. A dimension whose standard deviation is at most
    ``eps`` times the index's root mean square is dead: its scores are 0. Values that the index does not have are
    interpolated linearly; those beyond its range get the outermost scores.
    """

    def __init__(self, values: Tensor, scores: Tensor) -> None:
        self._values, self._scores = values, scores  # [d, n], ascending

    @classmethod
    def of(cls, index: Tensor, order: Order = "deterministic", seed: int = 0, eps: float = DEAD) -> Self:
        """Fitted to the index [n, d]."""
        require_one_of(order, get_args(Order), "order")
        columns, live = index.T, FeatureMoments.of(index).live(eps)
        statistics = _sorted_draws(index, seed) if order == "random" else _middles(index)
        values = torch.cat([columns[rows].sort(dim=1).values for rows in _blocks(index)])
        scores = [_shared_by_ties(values[rows], statistics[rows]) * live[rows, None] for rows in _blocks(index)]
        return cls(values, torch.cat(scores))

    def __call__(self, points: Tensor) -> Tensor:
        """Scores [m, d] of points [m, d]."""
        columns = points.T.contiguous()
        scores = [_interpolated(self._values[rows], self._scores[rows], columns[rows]) for rows in _blocks(points)]
        return torch.cat(scores).T.contiguous()


def _middles(index: Tensor) -> Tensor:
    """[d, n]: the quantiles of N(0, 1) in the middles of n equally likely intervals."""
    n, dim = index.shape
    quantiles: Tensor = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    return quantiles.to(index).repeat(dim, 1)


def _sorted_draws(index: Tensor, seed: int) -> Tensor:
    """[d, n] ascending, drawn as [n, d]."""
    draws = torch.from_numpy(np.random.default_rng(seed).standard_normal(index.shape))
    return draws.T.to(index).sort(dim=1).values


def _blocks(points: Tensor) -> Iterator[slice]:
    """Slices of the dimensions of points [n, d]."""
    size = max(1, _BLOCK // len(points))
    return (slice(start, start + size) for start in range(0, points.shape[1], size))


def _shared_by_ties(values: Tensor, scores: Tensor) -> Tensor:
    """Scores [d, n] of ascending values [d, n], with equal values' replaced by their mean."""
    later = values[:, 1:] != values[:, :-1]
    if bool(later.all()):
        return scores
    group = torch.nn.functional.pad(later.long().cumsum(1), (1, 0))
    zeros = torch.zeros_like(scores, dtype=torch.float64)
    sums = zeros.scatter_add(1, group, scores.double())
    sizes = zeros.scatter_add(1, group, torch.ones_like(zeros))
    return (sums / sizes.clamp(min=1)).gather(1, group).to(scores.dtype)


def _interpolated(values: Tensor, scores: Tensor, x: Tensor) -> Tensor:
    """Piecewise linear functions through ascending (values, scores) [d, n], at x [d, m]; constant beyond them."""
    right = torch.searchsorted(values, x).clamp(max=values.shape[1] - 1)
    left = (right - 1).clamp(min=0)
    low, high = values.gather(1, left), values.gather(1, right)
    weight = torch.where(high > low, (x - low) / (high - low), 1).clamp(0, 1)
    return torch.lerp(scores.gather(1, left), scores.gather(1, right), weight)
