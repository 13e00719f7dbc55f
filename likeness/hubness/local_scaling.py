"""Distances scaled by those to the nearest neighbours: local scaling and NICDM.

Squared distances less what each point adds to all of its own: local and global dissimilarity (DisSim).
"""

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import LinearRanking, LinearReduction, QueryOperation
from likeness.neighbours.distances import DistanceName, PointDistances, unit_rows
from likeness.neighbours.exact import nearest_neighbours

LocalMetric = Literal["euclidean", "sqeuclidean", "cosine"]
DissimilarityMetric = Literal["euclidean", "cosine"]

_STEP = 1e-6  # of the smallest scale: what stands for the scale 0 of k + 1 copies, by which nothing can be divided


class _LocallyScaled(LinearReduction):
    """A function of the ratio d(q, x) / sqrt(s_q s_x), where s is a point's scale.

    The key is the power of d that is linear in <q, x> (1, or 2 for Euclidean distances), over the same power of
    sqrt(s_x).
    """

    def __init__(self, k: int = 10, metric: LocalMetric = "euclidean") -> None:
        require_positive(self.name, k=k)
        require_one_of(metric, get_args(LocalMetric), f"metric of {self.name}")
        self.k = k
        self.metric: LocalMetric = metric
        self.linear_in = "cosine" if metric == "cosine" else "sqeuclidean"
        self._power = 2 if metric == "euclidean" else 1

    def _fit(self) -> None:
        scales = self._scales(None)
        positive = scales[scales > 0]
        self._smallest = _STEP * float(positive.min()) if len(positive) else 1.0
        self._own_scales = self._positive(scales)
        self._factor = self._own_scales.pow(-self._power / 2)
        self._bias = torch.zeros_like(self._factor)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._own_scales if queries is None else self._positive(self._scales(queries))

    def _reduced(self, keys: Tensor, statistic: Tensor) -> Tensor:
        return self._of_ratio(keys.pow(1 / self._power) / statistic.sqrt())

    def _positive(self, scales: Tensor) -> Tensor:
        return torch.where(scales > 0, scales, self._smallest)

    def _scales(self, queries: Tensor | None) -> Tensor:
        """s of queries, [m], or of the index points without themselves, [n]."""
        return self._scale(nearest_neighbours(self.index, self.k, metric=self.metric, queries=queries).distances)

    @staticmethod
    @abstractmethod
    def _scale(distances: Tensor) -> Tensor:
        """s [m] from the distances to the k nearest [m, k], ascending."""

    @staticmethod
    @abstractmethod
    def _of_ratio(ratio: Tensor) -> Tensor:
        """The reduced distance; increasing."""


class LocalScaling(_LocallyScaled):
    """1 - exp(-d(q, x)^2 / (s_q s_x)), where s is the distance to the k-th nearest index point.

    Zelnik-Manor & Perona 2004; as a reduction of hubness Schnitzer et al. 2012.
    """

    name = "local_scaling"

    @staticmethod
    def _scale(distances: Tensor) -> Tensor:
        return distances[:, -1]

    @staticmethod
    def _of_ratio(ratio: Tensor) -> Tensor:
        return -torch.expm1(-ratio.square())


class Nicdm(_LocallyScaled):
    """d(q, x) / sqrt(mu_q mu_x), where mu is the mean distance to the k nearest index points.

    The non-iterative contextual dissimilarity measure: Jegou et al. 2010; Schnitzer et al. 2012.
    """

    name = "nicdm"

    @staticmethod
    def _scale(distances: Tensor) -> Tensor:
        return distances.mean(1)

    @staticmethod
    def _of_ratio(ratio: Tensor) -> Tensor:
        return ratio


class _Dissimilarity(LinearReduction):
    """||q - x||^2 - ||q - c_q||^2 - ||x - c_x||^2, of the vectors as they are or ("cosine") of unit vectors."""

    def __init__(self, metric: DissimilarityMetric = "euclidean") -> None:
        require_one_of(metric, get_args(DissimilarityMetric), f"metric of {self.name}")
        self.metric: DissimilarityMetric = metric

    def _in_metric(self, points: Tensor, what: str) -> Tensor:
        wide = points.double()
        return unit_rows(wide, what) if self.metric == "cosine" else wide


class DisSimLocal(_Dissimilarity):
    """The dissimilarity with c the mean of a point's k nearest index points; it can be negative.

    Hara et al. 2016. Where c_x is close to x, as among near-duplicates, x gains: k should exceed their number.
    """

    name = "dissim_local"

    def __init__(self, k: int = 10, metric: DissimilarityMetric = "euclidean") -> None:
        super().__init__(metric)
        require_positive(self.name, k=k)
        self.k = k
        self.linear_in = "cosine" if metric == "cosine" else "sqeuclidean"

    def _fit(self) -> None:
        self._own_spread = self._of_first_copies(self._spread(None))
        self._bias = -self._own_spread
        # Of unit vectors ||q - x||^2 is twice the cosine distance.
        self._factor = torch.full_like(self._bias, 2.0 if self.metric == "cosine" else 1.0)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return -(self._own_spread if queries is None else self._spread(queries))

    def _spread(self, queries: Tensor | None) -> Tensor:
        """||q - c_q||^2 of queries [m, d] in the metric, or of the index points without themselves."""
        metric: DistanceName = "cosine" if self.metric == "cosine" else "euclidean"
        ids = nearest_neighbours(self.index, self.k, metric=metric, queries=queries).ids
        x = self._in_metric(self.index, "index")
        q = x if queries is None else self._in_metric(queries, "queries")
        return _mean_difference(q, x, ids).square().sum(1)


class DisSimGlobal(_Dissimilarity):
    """The dissimilarity with c the mean of the index for every point: -2 <q - c, x - c>, centring with dot products.

    Hara et al. 2015. It needs no dimension more.
    """

    name = "dissim_global"
    linear_in = "dot"

    def _augmented(self) -> tuple[Tensor, QueryOperation]:
        unit = self.metric == "cosine"
        return self._vectors, QueryOperation(scale_to_length_1=unit, add=-self._mean)

    def _fit(self) -> None:
        points = self._in_metric(self.index, "index")
        self._mean = points.mean(0)
        self._vectors = points - self._mean
        self._factor = points.new_full((len(points),), 2.0)
        self._bias = torch.zeros_like(self._factor)

    def _ranking(self, queries: Tensor | None) -> LinearRanking:
        moved = None if queries is None else self._in_metric(queries, "queries") - self._mean
        return LinearRanking(PointDistances(self._vectors, moved, "dot"), self._factor, self._bias)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._mean.new_zeros(len(self.index if queries is None else queries))


def _mean_difference(queries: Tensor, points: Tensor, ids: Tensor) -> Tensor:
    """q less the mean of the points ids [m, k], [m, d]: differences are summed, of which none loses its digits."""
    total = torch.zeros_like(queries)
    for column in ids.T:
        total += queries - points[column]
    return total / ids.shape[1]
