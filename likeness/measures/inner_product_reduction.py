"""Reductions whose ranking is that of an inner product of vectors with one or two dimensions more."""

from abc import abstractmethod

import torch
from torch import Tensor

from likeness.measures.neighbours import Neighbours, nearest_neighbours, without_own
from likeness.measures.reduction_base import AugmentedVectors, HubnessReduction


class InnerProductReduction(HubnessReduction):
    """A reduction whose distance falls with <a(q), b(x)>, by a map that belongs to the query.

    What depends on the query alone cannot change its ranking, so it stays out of the vectors and returns in
    `_reduced`. The same vectors, in float64, give the ranking, the dense distances and what other engines are served.
    """

    turns_of_duplicates = True
    _vectors: Tensor  # b(x) of the index, [n, d + e] in float64, set by _fit

    def augment(self) -> AugmentedVectors:
        """b(x) of the index and the map a of queries; their inner product ranks as `rerank` does, larger nearer."""
        index = self.index
        return AugmentedVectors(
            self._vectors.to(index.dtype), lambda queries: self._query_vectors(self._checked(queries)).to(index.dtype)
        )

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        a, in_index = self._query_vectors(queries), queries is None
        found = nearest_neighbours(self._vectors, k + in_index, metric="dot", queries=a)
        if in_index:
            found = without_own(found, torch.arange(len(a), device=a.device), k)
        return Neighbours(self._reduced(-found.distances, self._query_statistic(queries)[:, None]), found.ids)

    def _distances(self, queries: Tensor | None) -> Tensor:
        scores = self._query_vectors(queries) @ self._vectors.T
        return self._reduced(scores, self._query_statistic(queries)[:, None]).to(self.index.dtype)

    @abstractmethod
    def _query_vectors(self, queries: Tensor | None) -> Tensor:
        """a(q) of queries [m, d], or of the index, as [m, d + e] in float64."""

    @abstractmethod
    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        """What the reduced distance needs of the queries besides, [m]; in-sample without the point itself."""

    @abstractmethod
    def _reduced(self, scores: Tensor, statistic: Tensor) -> Tensor:
        """Reduced distances from inner products [m, k] and the statistic [m, 1]; falls as the product grows."""
