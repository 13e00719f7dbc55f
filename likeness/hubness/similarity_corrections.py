"""Similarities less a bias of each index point: CSLS, nearest neighbour normalisation, localised centring.

Similarities normalised over queries: the inverted softmax and its dynamic form.
"""

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import InnerProductReduction
from likeness.neighbours.distances import unit_rows
from likeness.neighbours.exact import nearest_neighbours
from likeness.neighbours.tiles import fill_own, tiles

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
        require_positive(self.name, k=k)
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


class InvertedSoftmax(SimilarityCorrection):
    """Rank by beta s(q, x) - log sum_b exp(beta s(b, x)), b over a bank of queries; the distance is its negative.

    In nats. Smith et al. 2017. beta = 20 is QB-Norm's; where it is too large, hubs come back.
    """

    name = "inverted_softmax"
    takes_bank = True

    def __init__(self, beta: float = 20.0, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(metric)
        if beta <= 0:
            raise ValueError(f"beta of {self.name} must be positive, got {beta}")
        self.beta = self.scale = beta

    def _bias(self) -> Tensor:
        bank, dtype = self.bank(), self.index.dtype
        return log_partition(self._points.to(dtype), None if bank is None else bank.to(dtype), self.beta)


class DynamicInvertedSoftmax(InvertedSoftmax):
    """The inverted softmax for queries whose most similar index point is in the activation set, plain s for others.

    The activation set holds the `activation` most similar index points of every query of the bank: a query that none
    of the hubs attracts keeps its ranking. Bogolin et al. 2022 (QB-Norm).
    """

    name = "dynamic_inverted_softmax"

    def __init__(self, beta: float = 20.0, activation: int = 1, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(beta, metric)
        require_positive(self.name, activation=activation)
        self.activation = activation

    def _fit(self) -> None:
        super()._fit()
        self._active = torch.zeros(len(self.index), dtype=torch.bool, device=self.index.device)
        self._active[self._most_similar(self.bank(), self.activation).flatten()] = True

    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        vectors = super()._query_vectors(queries)
        plain = None if queries is None else self.in_metric(queries, "queries")
        active = self._active[self._most_similar(plain, 1)]
        unchanged = torch.cat([vectors[:, :-1] / self.beta, vectors.new_zeros(len(vectors), 1)], 1)
        return torch.where(active, vectors, unchanged)

    def _most_similar(self, queries: Tensor | None, k: int) -> Tensor:
        return nearest_neighbours(self._points, k, metric="dot", queries=queries).ids


def log_partition(index: Tensor, bank: Tensor | None, beta: float) -> Tensor:
    """log sum_b exp(beta <b, x>) of each x of the index [n, d], [n] in float64, over the bank [b, d] or the other x."""
    queries = index if bank is None else bank
    total = index.new_full((len(index),), -torch.inf, dtype=torch.float64)
    for rows, columns in tiles(len(index), len(queries)):
        scores = beta * (index[rows] @ queries[columns].T)
        if bank is None:
            fill_own(scores, torch.arange(rows.start, rows.stop, device=scores.device), columns, -torch.inf)
        total[rows] = torch.logaddexp(total[rows], scores.logsumexp(1).double())
    return total
