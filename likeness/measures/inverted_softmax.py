"""Similarities normalised over queries: the inverted softmax and its dynamic form."""

import torch
from torch import Tensor

from likeness.measures.distance_tiles import fill_own, tiles
from likeness.measures.neighbours import nearest_neighbours
from likeness.measures.reduction_base import at_least_one
from likeness.measures.similarity_corrections import SimilarityCorrection, SimilarityMetric


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
        at_least_one(f"activation of {self.name}", activation)
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
