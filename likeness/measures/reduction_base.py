"""What every hubness reduction is: fitted on an index once, asked for neighbours of it or of new queries."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from likeness.measures.duplicate_points import DuplicatePoints
from likeness.measures.full_precision import full_precision
from likeness.measures.neighbours import Neighbours
from likeness.measures.points import as_points, row_lengths


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


def unit_rows(points: Tensor, what: str) -> Tensor:
    """`points` [n, d] divided by their lengths; ValueError names the rows of length zero, which have no direction."""
    return (points / row_lengths(points, what)[:, None]).to(points.dtype)


def at_least_one(what: str, value: int) -> None:
    """Raise ValueError unless `value` is at least 1."""
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}")
