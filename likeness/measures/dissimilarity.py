"""Squared distances less what each point adds to all of its own: local and global dissimilarity (DisSim)."""

from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.measures.inner_product_reduction import InnerProductReduction
from likeness.measures.neighbours import nearest_neighbours
from likeness.measures.reduction_base import at_least_one, unit_rows
from likeness.measures.samples import require_one_of

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
        at_least_one(f"k of {self.name}", k)
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
