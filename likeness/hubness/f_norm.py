"""f-norm: every dimension with the values of a normal sample, in the order of its own; rows of length 1."""

from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from likeness.checks import require_one_of
from likeness.hubness.feature_transforms import FeatureTransform
from likeness.hubness.reduction_base import AugmentedVectors
from likeness.neighbours.distances import DistanceName
from likeness.numerics import DEAD, FeatureMoments

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

    def __init__(self, values: Tensor, scores: Tensor, live: Tensor) -> None:
        self._values, self._scores = values, scores  # [d, n], ascending
        self.live = live  # [d], which dimensions vary

    @classmethod
    def of(cls, index: Tensor, order: Order = "deterministic", seed: int = 0, eps: float = DEAD) -> Self:
        """Fitted to the index [n, d]."""
        require_one_of(order, get_args(Order), "order")
        columns, live = index.T, FeatureMoments.of(index).live(eps)
        statistics = _sorted_draws(index, seed) if order == "random" else _middles(index)
        values = torch.cat([columns[rows].sort(dim=1).values for rows in _blocks(index)])
        scores = [_shared_by_ties(values[rows], statistics[rows]) * live[rows, None] for rows in _blocks(index)]
        return cls(values, torch.cat(scores), live)

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


class FNorm(FeatureTransform):
    """The values of each dimension replaced by :class:`NormalScores`, then rows divided by their length.

    Nielsen & Hansen 2024 (arXiv 2311.18364). Their code has ``order="random"`` and, as with ``eps=0``, spreads out
    dimensions that hold nothing but rounding errors. Here those become 0 unless ``eps`` is 0.

    ``joint=True`` is their transductive form: index and queries are ranked as one set, so the vectors of either
    depend on all queries, and `transform` and `augment` do not exist.
    """

    name = "f_norm"

    def __init__(
        self,
        order: Order = "deterministic",
        seed: int = 0,
        metric: DistanceName = "cosine",
        joint: bool = False,
        eps: float = DEAD,
    ) -> None:
        super().__init__(metric)
        require_one_of(order, get_args(Order), f"order of {self.name}")
        self.order, self.seed, self.joint, self.eps = order, seed, joint, eps

    def transform(self, queries: Any) -> Tensor:
        """Queries [m, d] by the index's quantiles, of length 1. Raises NotImplementedError if ``joint``."""
        self._require_separate("transform")
        return super().transform(queries)

    def augment(self) -> AugmentedVectors:
        """See :class:`FeatureTransform`. Raises NotImplementedError if ``joint``."""
        self._require_separate("augment")
        return super().augment()

    def transform_jointly(self, queries: Any) -> tuple[Tensor, Tensor]:
        """Index [n, d] and queries [m, d], ranked as one set. Fits nothing, and needs no ``joint``."""
        points = torch.cat([self.index, self._like_index(queries, "queries")])
        vectors = _of_length_1(self._scores_of(points)(points))
        return vectors[: len(self.index)], vectors[len(self.index) :]

    def _fit_transform(self, index: Tensor) -> None:
        self._scores = self._scores_of(index)

    def _transform(self, points: Tensor) -> Tensor:
        return _of_length_1(self._scores(points))

    @property
    def dead_dimensions(self) -> Tensor:
        """Those that became 0."""
        return (~self._scores.live).nonzero().flatten()

    def _mapped(self, queries: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.transform_jointly(queries) if self.joint and queries is not None else super()._mapped(queries)

    def _scores_of(self, points: Tensor) -> NormalScores:
        return NormalScores.of(points, self.order, self.seed, self.eps)

    def _require_separate(self, method: str) -> None:
        if self.joint:
            raise NotImplementedError(
                f"{self.name} with joint=True has no {method}(): its index depends on the queries. "
                "Use rerank(queries), or transform_jointly(queries)"
            )


def _of_length_1(rows: Tensor) -> Tensor:
    """Rows [n, d] divided by their length; rows of zeros stay."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, 1)
