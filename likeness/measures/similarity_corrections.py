"""Similarities less a bias of each index point: CSLS, nearest neighbour normalisation, localised centring."""

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.measures.inner_product_reduction import InnerProductReduction
from likeness.measures.neighbours import nearest_neighbours
from likeness.measures.reduction_base import at_least_one, unit_rows
from likeness.measures.samples import require_one_of

SimilarityMetric = Literal["cosine", "dot"]


class SimilarityCorrection(InnerProductReduction):
    """Rank by scale * s(q, x) - b(x), where s is the cosine or the dot product and b(x) is fitted."""

    scale: float = 1.0

    def __init__(self, metric: SimilarityMetric = "cosine") -> None:
        require_one_of(metric, get_args(SimilarityMetric), f"metric of {self.name}")
        self.metric = metric

    def _fit(self) -> None:
        self._points = self.in_metric(self.index, "index")
        self._vectors = torch.cat([self._points, self._bias()[:, None]], 1)

    @abstractmethod
    def _bias(self) -> Tensor:
        """b(x) of each index point, [n]."""

    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        q = self._points if queries is None else self.in_metric(queries, "queries")
        return torch.cat([self.scale * q, -q.new_ones(len(q), 1)], 1)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._points.new_zeros(len(self.index if queries is None else queries))

    def _reduced(self, scores: Tensor, statistic: Tensor) -> Tensor:
        return statistic - scores

    def in_metric(self, points: Tensor, what: str) -> Tensor:
        """`points` [m, d] as vectors in float64 whose inner products are the similarities."""
        wide = points.double()
        return unit_rows(wide, what) if self.metric == "cosine" else wide

    def bank(self) -> Tensor | None:
        """The bank [b, d] in the metric; None where the index stands for it, each point left out of its own."""
        return None if self._bank is None else self.in_metric(self._bank, "bank")


class _NeighbourBias(SimilarityCorrection):
    """A bias that is a function of r, the mean similarity to the k nearest."""

    def __init__(self, k: int = 10, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(metric)
        at_least_one(f"k of {self.name}", k)
        self.k = k

    def _index_similarity(self) -> Tensor:
        """r(x) over the bank, [n]."""
        bank = self.bank()
        return self._similarity(self._points) if bank is None else self._similarity(bank, self._points)

    def _similarity(self, points: Tensor, queries: Tensor | None = None) -> Tensor:
        return -nearest_neighbours(points, self.k, metric="dot", queries=queries).distances.mean(1)


class Csls(_NeighbourBias):
    """Cross-domain similarity local scaling: rank by 2 s(q, x) - r(q) - r(x); the distance is its negative.

    r(q) is over the index, r(x) over the bank: the other set of the two where there are two. Conneau et al. 2018.
    """

    name = "csls"
    takes_bank = True
    scale = 2.0

    def _bias(self) -> Tensor:
        bias = self._index_similarity()
        self._own = bias if self._bank is None else self._similarity(self._points)
        return bias

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return self._own if queries is None else self._similarity(self._points, self.in_metric(queries, "queries"))


class NearestNeighbourNormalisation(_NeighbourBias):
    """NNN: rank by s(q, x) - alpha r(x), where r is over a bank of queries; the distance is its negative.

    alpha = 1/2 with the bank = the queries ranks as CSLS does. Chowdhury et al. 2024.
    """

    name = "nnn"
    takes_bank = True

    def __init__(self, k: int = 10, alpha: float = 0.5, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(k, metric)
        self.alpha = alpha

    def _bias(self) -> Tensor:
        return self.alpha * self._index_similarity()


class LocalisedCentring(_NeighbourBias):
    """Rank by s(q, x) - r(x)^gamma, where r is over the index; the distance is its negative.

    Hara et al. 2015. A negative r has only whole powers: `fit` raises ValueError for others.
    """

    name = "localised_centring"

    def __init__(self, k: int = 10, gamma: float = 1.0, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(k, metric)
        self.gamma = gamma

    def _bias(self) -> Tensor:
        r = self._index_similarity()
        negative = (r < 0).nonzero().flatten()
        if len(negative) and self.gamma != int(self.gamma):
            raise ValueError(
                f"{self.name}: {len(negative)} points have a negative mean similarity, point {int(negative[0])} the "
                f"first, which has no power gamma = {self.gamma}"
            )
        return r.pow(self.gamma)
