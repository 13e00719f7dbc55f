"""Similarities less a bias of each index point: CSLS, nearest neighbour normalisation, localised centring.

Similarities normalised over queries: the inverted softmax and its dynamic form.

A similarity s is the cosine, or the dot product. All is computed from distances, 1 - s of the cosine and -s of the dot
product: near 1 the cosine has lost the digits that tell near neighbours apart.
"""

import math
from abc import abstractmethod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import AugmentedVectors, LinearRanking, LinearReduction
from likeness.neighbours.distances import PointDistances
from likeness.neighbours.exact import nearest_neighbours
from likeness.neighbours.moments import fill_own, tiles

SimilarityMetric = Literal["cosine", "dot"]


class SimilarityCorrection(LinearReduction):
    """Rank by scale * s(q, x) - b(x), where b is fitted; the distance is scale * d(q, x) + bias(x) and a constant."""

    scale: float = 1.0

    def __init__(self, metric: SimilarityMetric = "cosine") -> None:
        require_one_of(metric, get_args(SimilarityMetric), f"metric of {self.name}")
        self.metric: SimilarityMetric = metric
        self.linear_in = metric

    @property
    def largest(self) -> float:
        """s + d: 1 for the cosine, 0 for the dot product."""
        return float(self.metric == "cosine")

    def _fit(self) -> None:
        self._bias = self._of_first_copies(self._biases())
        self._factor = torch.full_like(self._bias, self.scale)

    @abstractmethod
    def _biases(self) -> Tensor:
        """The bias of each index point, [n] in float64."""

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        """The constant that makes minus a similarity of the distance."""
        m = len(self.index if queries is None else queries)
        return self._factor.new_full((m,), -self.scale * self.largest)


class _NeighbourBias(SimilarityCorrection):
    """A bias that is a function of the mean distance to the k nearest, which is s + d less r, their mean similarity."""

    def __init__(self, k: int = 10, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(metric)
        require_positive(self.name, k=k)
        self.k = k

    def _mean_distance(self, points: Tensor | None, queries: Tensor | None) -> Tensor:
        """Of queries [m, d], or else of the points, to the nearest of the points [n, d], or else of the index; [m]."""
        points = self.index if points is None else points
        return nearest_neighbours(points, self.k, metric=self.metric, queries=queries).distances.mean(1)

    def _to_bank(self) -> Tensor:
        """Of the index points to the bank, [n]."""
        return self._mean_distance(self._bank, None if self._bank is None else self.index)


class Csls(_NeighbourBias):
    """Cross-domain similarity local scaling: rank by 2 s(q, x) - r(q) - r(x); the distance is its negative.

    r(q) is over the index, r(x) over the bank: the other set of the two where there are two. Conneau et al. 2018.
    """

    name = "csls"
    takes_bank = True
    scale = 2.0

    def _biases(self) -> Tensor:
        return -self._to_bank()

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return -self._mean_distance(None, queries)


class NearestNeighbourNormalisation(_NeighbourBias):
    """NNN: rank by s(q, x) - alpha r(x), where r is over a bank of queries; the distance is its negative.

    alpha = 1/2 with the bank = the queries ranks as CSLS does. Chowdhury et al. 2024.
    """

    name = "nnn"
    takes_bank = True

    def __init__(self, k: int = 10, alpha: float = 0.5, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(k, metric)
        self.alpha = alpha

    def _biases(self) -> Tensor:
        return -self.alpha * self._to_bank()

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return super()._query_statistic(queries) + self.alpha * self.largest


class LocalisedCentring(_NeighbourBias):
    """Rank by s(q, x) - r(x)^gamma, where r is over the index; the distance is its negative.

    Hara et al. 2015. A negative r has only whole powers: `fit` raises ValueError for others.
    """

    name = "localised_centring"

    def __init__(self, k: int = 10, gamma: float = 1.0, metric: SimilarityMetric = "cosine") -> None:
        super().__init__(k, metric)
        self.gamma = gamma

    def _biases(self) -> Tensor:
        distance = self._to_bank()
        r = self.largest - distance
        negative = (r < 0).nonzero().flatten()
        if len(negative) and self.gamma != int(self.gamma):
            raise ValueError(
                f"{self.name}: {len(negative)} points have a negative mean similarity, point {int(negative[0])} the "
                f"first, which has no power gamma = {self.gamma}"
            )
        if self.metric == "dot":
            return r.pow(self.gamma)
        near = torch.expm1(self.gamma * torch.log1p(-distance.clamp(max=0.5)))  # r^gamma - 1, for r near 1
        return torch.where(distance < 0.5, near, r.pow(self.gamma) - 1)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        return super()._query_statistic(queries) + self.largest


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

    def _biases(self) -> Tensor:
        return log_mean_exp(self.index, self._bank, self.beta, self.metric)

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        summed = len(self.index) - 1 if self._bank is None else len(self._bank)
        return super()._query_statistic(queries) + self.beta * self.largest + math.log(summed)


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

    def augment(self) -> AugmentedVectors:
        """As of the inverted softmax; a query that is not corrected is divided by beta, and gets a 0 for the bias."""
        vectors = super().augment()

        def queries(points: Any) -> Tensor:
            asked = vectors.queries(points)
            plain = torch.cat([asked[:, :-1] / self.beta, torch.zeros_like(asked[:, -1:])], 1)
            corrected = self._corrected(None if points is None else self._like_index(points, "queries"))
            return torch.where(corrected[:, None], asked, plain)

        return AugmentedVectors(vectors.index, queries)

    def _fit(self) -> None:
        super()._fit()
        self._active = torch.zeros(len(self.index), dtype=torch.bool, device=self.index.device)
        self._active[self._most_similar(self._bank, self.activation).flatten()] = True

    def _ranking(self, queries: Tensor | None) -> LinearRanking:
        ranking = super()._ranking(queries)
        ranking.corrected = self._corrected(queries)
        return ranking

    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        statistic = super()._query_statistic(queries)
        return torch.where(self._corrected(queries), statistic, -self.largest)

    def _corrected(self, queries: Tensor | None) -> Tensor:
        """Whether each query [m] is most similar to a point of the activation set."""
        return self._active[self._most_similar(queries, 1)[:, 0]]

    def _most_similar(self, queries: Tensor | None, k: int) -> Tensor:
        return nearest_neighbours(self.index, k, metric=self.metric, queries=queries).ids


def log_mean_exp(index: Tensor, bank: Tensor | None, beta: float, metric: SimilarityMetric) -> Tensor:
    """log mean_b exp(-beta d(b, x)) of each x of the index [n, d], [n] in float64, over the bank [b, d] or the other x.

    Where all distances are small it is close to 0, and is taken from the sum of what each exponential lacks to 1.
    """
    distances = PointDistances(index if bank is None else bank, index, metric)
    numbers = torch.arange(len(index), device=distances.device)
    log_sum = torch.full((len(index),), -torch.inf, dtype=torch.float64, device=distances.device)
    lacking = torch.zeros_like(log_sum)
    for rows, columns in tiles(distances.m, distances.n):
        exponents = distances.tile(numbers[rows], columns).mul_(-beta)
        if bank is None:
            lacking[rows] += fill_own(exponents, numbers[rows], columns, 0.0).expm1().sum(1)
            fill_own(exponents, numbers[rows], columns, -torch.inf)
        else:
            lacking[rows] += exponents.expm1().sum(1)
        log_sum[rows] = torch.logaddexp(log_sum[rows], exponents.logsumexp(1))
    count = distances.n - (bank is None)
    near = (lacking / count).clamp(-0.5, 0.5)
    return torch.where(near.abs() < 0.5, near.log1p(), log_sum - math.log(count))
