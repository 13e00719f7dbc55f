"""What every hubness reduction is: fitted on an index once, asked for neighbours of it or of new queries.

A tie rule for identical index points: they take turns, so that none of them becomes a hub by its number.

Reductions whose ranking is that of an inner product of vectors with one or two dimensions more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from likeness.neighbours.distances import as_points
from likeness.neighbours.exact import Neighbours, nearest_neighbours, without_own
from likeness.numerics import full_precision


class DuplicatePoints:
    """Groups of identical index points [n, d].

    All of a group are equally far from anything. Ordered by number, the same few of them would stand in every list:
    in its own group of 276 points, each of the first ten would have 275 occurrences.
    """

    def __init__(self, index: Tensor) -> None:
        self._group: Tensor = torch.unique(index, dim=0, return_inverse=True)[1]
        self._size = torch.bincount(self._group)
        self._first = self._size.cumsum(0) - self._size
        self._members = self._group.argsort(stable=True)
        self._place = torch.empty_like(self._members)
        self._place[self._members] = (
            torch.arange(len(index), device=index.device) - self._first[self._group[self._members]]
        )

    def take_turns(self, found: Neighbours, *, in_sample: bool) -> Neighbours:
        """The same lists with other members of each group: after the point itself in its own group, in a circle.

        In other groups, row i begins k i members after the first.
        """
        rows = (self._size[self._group[found.ids]] > 1).any(1).nonzero().flatten()
        if not len(rows):
            return found
        group = self._group[found.ids[rows]]
        offset = (rows * group.shape[1])[:, None].expand(group.shape)
        if in_sample:
            offset = torch.where(group == self._group[rows, None], self._place[rows, None] + 1, offset)
        place = (offset + _earlier_equals(group)) % self._size[group]
        ids = found.ids.clone()
        ids[rows] = self._members[self._first[group] + place]
        return Neighbours(found.distances, ids)


def _earlier_equals(values: Tensor) -> Tensor:
    """How many entries before it in its row equal each entry, [r, k]."""
    ascending, order = values.sort(dim=1, stable=True)
    turn = torch.arange(values.shape[1], device=values.device) - torch.searchsorted(ascending, ascending)
    return torch.empty_like(turn).scatter_(1, order, turn)


class NotFittedError(RuntimeError):
    """A reduction was asked before it was fitted."""


@dataclass(frozen=True)
class AugmentedVectors:
    """Vectors whose inner product, larger nearer, ranks as the reduction does, for any inner-product engine."""

    index: Tensor  # [n, d + e], where e is 0, 1 or 2
    queries: Callable[[Any], Tensor]  # [m, d] -> [m, d + e]; None: the index's own, each to be left out of its list


class HubnessReduction(ABC):
    """A reduction of hubness: `fit` reads the index [n, d] once; nothing is refitted on queries.

    A method implements `_fit`, `_rerank` and `_distances`, and `augment` where its ranking is that of an inner
    product. They receive checked points: finite, float32 or float64, of the index's dimension and device.
    """

    name: str  # in the registry and in errors
    takes_bank: bool = False  # fit(index, bank) reads queries that stand for those to come
    turns_of_duplicates: bool = False  # whether identical points take turns in lists, see DuplicatePoints

    _index: Tensor | None = None
    _bank: Tensor | None = None
    _duplicates: DuplicatePoints | None = None

    def fit(self, index: Any, bank: Any = None) -> Self:
        """Read the index [n, d] and, where the method takes one, a bank of queries [b, d] (None: the index itself).

        Tensors or arrays of any floating type. Raises ValueError for what is not a matrix, for fewer than two points,
        for rows that are not finite, and for a bank given to a method that has no use for it.
        """
        points = as_points(index, "index")
        if len(points) < 2:
            raise ValueError(f"{self.name} needs at least two index points, but the index is {list(points.shape)}")
        if bank is not None and not self.takes_bank:
            raise ValueError(f"{self.name} takes no bank of queries")
        self._index = points
        try:
            self._bank = None if bank is None else self._like_index(bank, "bank")
            self._duplicates = DuplicatePoints(points) if self.turns_of_duplicates else None
            with torch.no_grad(), full_precision(points.device):
                self._fit()
        except BaseException:
            self._index = None  # half a fit is none
            raise
        return self

    def rerank(self, queries: Any = None, k: int = 10) -> Neighbours:
        """The k nearest index points by the reduced distance of queries [m, d], over all index points, in tiles.

        Without queries: of each index point, itself left out. Raises NotFittedError before `fit` and ValueError for
        queries of another dimension or k that the index cannot give.
        """
        points, available = self._checked(queries), len(self.index) - (queries is None)
        if not 1 <= k <= available:
            raise ValueError(f"k is {k}, but {self.name} has {available} points to choose from")
        with torch.no_grad(), full_precision(self.index.device):
            found = self._rerank(points, k)
        return self._duplicates.take_turns(found, in_sample=queries is None) if self._duplicates else found

    def distances(self, queries: Any = None) -> Tensor:
        """All reduced distances [m, n], smaller nearer; without queries [n, n] with +inf on the diagonal. Dense."""
        points = self._checked(queries)
        with torch.no_grad(), full_precision(self.index.device):
            reduced = self._distances(points)
        return reduced.fill_diagonal_(torch.inf) if queries is None else reduced

    def augment(self) -> AugmentedVectors:
        """Vectors for an inner-product engine that ranks as `rerank` does; raises NotImplementedError if none exist."""
        raise NotImplementedError(
            f"{self.name} has no augmented vectors: its ranking is not that of an inner product. Use rerank()"
        )

    @property
    def index(self) -> Tensor:
        """What was fitted, [n, d]."""
        if self._index is None:
            raise NotFittedError(f"{self.name} has not been fitted: call fit(index) first")
        return self._index

    @abstractmethod
    def _fit(self) -> None:
        """Compute what is stored for each index point from `self.index` and `self._bank`."""

    @abstractmethod
    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        """`rerank` of checked queries."""

    @abstractmethod
    def _distances(self, queries: Tensor | None) -> Tensor:
        """`distances` of checked queries; the diagonal of the in-sample form may hold anything."""

    def _checked(self, queries: Any) -> Tensor | None:
        self.index  # noqa: B018  raises before fit
        return None if queries is None else self._like_index(queries, "queries")

    def _like_index(self, points: Any, what: str) -> Tensor:
        checked = as_points(points, what)
        if checked.shape[1] != self.index.shape[1]:
            raise ValueError(
                f"{self.name}: {what} are {list(checked.shape)}, but the index is {list(self.index.shape)}: "
                f"{checked.shape[1]} dimensions against {self.index.shape[1]}"
            )
        return checked.to(self.index)


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
