"""Distances scaled by those to the nearest neighbours: local scaling and NICDM.

Squared distances less what each point adds to all of its own: local and global dissimilarity (DisSim).
"""

from abc import abstractmethod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import AugmentedVectors, InnerProductReduction
from likeness.neighbours.distances import unit_rows
from likeness.neighbours.exact import nearest_neighbours

LocalMetric = Literal["euclidean", "sqeuclidean", "cosine"]

_FLOOR = 1e-6  # of the mean scale: k duplicates have scale 0, by which nothing can be divided
_UNIT = 1e-6  # lengths that differ from 1 by no more are those of unit vectors in float32


class _LocallyScaled(InnerProductReduction):
    """A function of the ratio d(q, x) / sqrt(s_q s_x), where s is a point's scale.

    The power of d that is linear in <q, x> (1, or 2 for Euclidean distances), times the same power of 1/sqrt(s_x),
    is the inner product; s_q scales it afterwards.
    """

    def __init__(self, k: int = 10, metric: LocalMetric = "euclidean") -> None:
        require_positive(self.name, k=k)
        require_one_of(metric, get_args(LocalMetric), f"metric of {self.name}")
        self.k, self.metric = k, metric
        self._power = 2 if metric == "euclidean" else 1

    def augment(self) -> AugmentedVectors:
        """One dimension more for cosines and for unit vectors, two for Euclidean distances of other vectors.

        Where the index holds unit vectors so must the queries: their map raises ValueError otherwise.
        """
        if self.metric == "cosine" or not _are_unit(self.index):
            return super().augment()
        weight = self._weight().to(self.index.dtype)
        return AugmentedVectors(torch.cat([2 * weight * self.index, -2 * weight], 1), self._unit_queries)

    def _fit(self) -> None:
        scales = self._scales(None)
        self._smallest = _FLOOR * scales.mean().clamp(min=torch.finfo(scales.dtype).tiny ** 0.25)
        self._own_scales = scales.clamp(min=self._smallest)
        self._centre = self.index.double().mean(0)
        x, weight = self._in_metric(self.index, "index"), self._weight()
        parts = (
            [x, -torch.ones_like(weight)]
            if self.metric == "cosine"
            else [2 * x, -torch.ones_like(weight), -_squares(x)]
        )
        self._vectors = torch.cat(parts, 1).mul_(weight)

    def _weight(self) -> Tensor:
        return self._own_scales.pow(-self._power / 2)[:, None]

    def _in_metric(self, points: Tensor, what: str) -> Tensor:
        """Points in float64: of length 1 for cosines, otherwise about the index's mean, where less cancels."""
        return unit_rows(points.double(), what) if self.metric == "cosine" else points.double() - self._centre

    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        q = self._in_metric(self.index if queries is None else queries, "queries")
        one = q.new_ones(len(q), 1)
        return torch.cat([q, one] if self.metric == "cosine" else [q, _squares(q), one], 1)

    def _unit_queries(self, queries: Any) -> Tensor:
        q = self.index if queries is None else self._like_index(queries, "queries")
        if not _are_unit(q):
            raise ValueError(
                f"{self.name} was fitted on vectors of length 1, so its augmented queries must have it, too"
            )
        return torch.cat([q, q.new_ones(len(q), 1)], 1)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._own_scales if queries is None else self._scales(queries).clamp(min=self._smallest)

    def _reduced(self, scores: Tensor, statistic: Tensor) -> Tensor:
        return self._of_ratio((-scores).clamp(min=0).pow(1 / self._power) / statistic.sqrt())

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


def _squares(points: Tensor) -> Tensor:
    return points.square().sum(1, keepdim=True)


def _are_unit(points: Tensor) -> bool:
    return bool((torch.linalg.vector_norm(points, dim=1) - 1).abs().max() <= _UNIT)


DissimilarityMetric = Literal["euclidean", "cosine"]


class _Dissimilarity(InnerProductReduction):
    """||q - x||^2 - ||q - c_q||^2 - ||x - c_x||^2, of the vectors as they are or ("cosine") of unit vectors."""

    def __init__(self, metric: DissimilarityMetric = "euclidean") -> None:
        require_one_of(metric, get_args(DissimilarityMetric), f"metric of {self.name}")
        self.metric = metric

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

    def _fit(self) -> None:
        self._points = self._in_metric(self.index, "index")
        self._own_spread = self._spread(None)
        squares = self._points.square().sum(1)
        self._vectors = torch.cat([self._points, (self._own_spread - squares)[:, None]], 1)

    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        q = self._queries(queries)
        return torch.cat([2 * q, q.new_ones(len(q), 1)], 1)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        spread = self._own_spread if queries is None else self._spread(self._queries(queries))
        return self._queries(queries).square().sum(1) - spread

    def _reduced(self, scores: Tensor, statistic: Tensor) -> Tensor:
        return statistic - scores

    def _queries(self, queries: Tensor | None) -> Tensor:
        return self._points if queries is None else self._in_metric(queries, "queries")

    def _spread(self, queries: Tensor | None) -> Tensor:
        """||q - c_q||^2 of queries [m, d] in the metric, or of the index points without themselves."""
        ids = nearest_neighbours(self._points, self.k, queries=queries).ids
        q = self._points if queries is None else queries
        return (q - _mean_of(self._points, ids)).square().sum(1)


class DisSimGlobal(_Dissimilarity):
    """The dissimilarity with c the mean of the index for every point: -2 <q - c, x - c>, centring with dot products.

    Hara et al. 2015. It needs no dimension more.
    """

    name = "dissim_global"

    def _fit(self) -> None:
        points = self._in_metric(self.index, "index")
        self._mean = points.mean(0)
        self._vectors = points - self._mean

    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        return self._vectors if queries is None else self._in_metric(queries, "queries") - self._mean

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._mean.new_zeros(len(self.index if queries is None else queries))

    def _reduced(self, scores: Tensor, statistic: Tensor) -> Tensor:
        return statistic - 2 * scores


def _mean_of(points: Tensor, ids: Tensor) -> Tensor:
    """Means [m, d] of the rows [m, k] of `points`, summed one neighbour at a time to need no [m, k, d]."""
    total = torch.zeros(len(ids), points.shape[1], dtype=points.dtype, device=points.device)
    for column in ids.T:
        total += points[column]
    return total / ids.shape[1]
