"""What every hubness reduction is: fitted on an index once, asked for neighbours of it or of new queries.

Equally near points go by their ids, as everywhere, and copies of a point are equally near to everything. Reductions
whose keys are linear in a distance rank as an inner product of vectors with one or two dimensions more.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import torch
from torch import Tensor

from likeness.neighbours.distances import DistanceName, PointDistances, as_points, row_lengths, unit_rows
from likeness.neighbours.exact import DistinctPoints, Neighbours, Ranking, search
from likeness.numerics import full_precision

SQUARED_LENGTH: Final = "squared length"


class NotFittedError(RuntimeError):
    """A reduction was asked before it was fitted."""


@dataclass(frozen=True, eq=False)
class QueryOperation:
    """What is done to a query before it meets augmented vectors: [multiply_by * u + add, append...].

    u is the query, or the query scaled to length 1; "squared length" stands for that of what comes before it.
    """

    scale_to_length_1: bool = False
    multiply_by: float = 1.0
    add: Tensor | None = None  # [d]
    append: tuple[float | Literal["squared length"], ...] = ()

    @property
    def is_identity(self) -> bool:
        """Whether nothing is done."""
        return not self.scale_to_length_1 and self.multiply_by == 1 and self.add is None and not self.append

    def __call__(self, queries: Tensor) -> Tensor:
        """Queries [m, d] as [m, d + e], in their type; computed in float64."""
        u = queries.double()
        if self.scale_to_length_1:
            u = u / row_lengths(queries, "queries")[:, None]
        u = self.multiply_by * u
        u = u if self.add is None else u + self.add.to(u)
        further = [_column(u, what) for what in self.append]
        return torch.cat([u, *further], 1).to(queries.dtype)

    def as_json(self, offset: str) -> dict[str, Any]:
        """Plain values; ``offset`` is the file of the vector that is added."""
        return vars(self) | {"add": None if self.add is None else offset, "append": list(self.append)}


def _column(vectors: Tensor, what: float | str) -> Tensor:
    if isinstance(what, str):
        return vectors.square().sum(1, keepdim=True)
    return vectors.new_full((len(vectors), 1), what)


@dataclass(frozen=True)
class AugmentedVectors:
    """Vectors whose inner product, larger nearer, ranks as the reduction does, for any inner-product engine."""

    index: Tensor  # [n, d + e], where e is 0, 1 or 2
    queries: Callable[[Any], Tensor]  # [m, d] -> [m, d + e]; None: the index's own, each to be left out of its list
    operations: tuple[QueryOperation, ...] | None = (
        None  # `queries`, one after the other; None where it is no such thing
    )


class HubnessReduction(ABC):
    """A reduction of hubness: `fit` reads the index [n, d] once; nothing is refitted on queries.

    A method implements `_fit`, `_rerank` and `_distances`, and `augment` where its ranking is that of an inner
    product. They receive checked points: finite, float32 or float64, of the index's dimension and device.
    """

    name: str  # in the registry and in errors
    metric: DistanceName  # of the distances that it reduces, or in which it compares what it moves
    takes_bank: bool = False  # fit(index, bank) reads queries that stand for those to come

    _index: Tensor | None = None
    _bank: Tensor | None = None
    _first_copies: Tensor

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
            self._first_copies = DistinctPoints(points).first_copies
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
            return self._rerank(points, k)

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
    def notes(self) -> tuple[str, ...]:
        """What the fit left out of the points, in a line each."""
        return ()

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

    def _of_first_copies(self, values: Tensor) -> Tensor:
        """Values [n, ...] of the index points, of copies of a point those of the first: rounding must not part them."""
        return values[self._first_copies]

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


class LinearRanking(Ranking):
    """Keys factor(x) d(q, x) + bias(x) of the distances; of queries that are not `corrected`, d(q, x) alone."""

    def __init__(
        self, distances: PointDistances, factor: Tensor, bias: Tensor, corrected: Tensor | None = None
    ) -> None:
        super().__init__(distances)
        self.factor, self.bias, self.corrected = factor, bias, corrected

    def scores(self, rows: Tensor, columns: slice | Tensor) -> Tensor:
        """The keys of lower bounds of the distances."""
        return self._linear(rows, self.distances.bounds(rows, columns), self.factor[columns], self.bias[columns])

    def keys(self, rows: Tensor, ids: Tensor, distances: Tensor) -> Tensor:
        """factor(x) d(q, x) + bias(x)."""
        return self._linear(rows, distances, self.factor[ids], self.bias[ids])

    def beyond(self, rows: Tensor, scores: Tensor, distances: Tensor) -> Tensor:
        """The scores themselves."""
        return scores

    def _linear(self, rows: Tensor, distances: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
        keys = distances * factor + bias
        return keys if self.corrected is None else torch.where(self.corrected[rows, None], keys, distances)


class LinearReduction(HubnessReduction):
    """A reduction whose distance grows with factor(x) D(q, x) + bias(x), D a distance, by a map that is the query's.

    What depends on the query alone cannot change its ranking, so it stays out of the keys and returns in `_reduced`.
    A method's `_fit` sets the factor [n], positive, and the bias [n].
    """

    linear_in: DistanceName  # D: "sqeuclidean", "cosine" or "dot"
    _factor: Tensor
    _bias: Tensor

    def augment(self) -> AugmentedVectors:
        """Index vectors and the map of queries; their inner product ranks as `rerank` does, larger nearer.

        One dimension more, and a second one for Euclidean distances whose factors differ, unless the index holds unit
        vectors. Then so must the queries: their map raises ValueError otherwise.
        """
        dtype = self.index.dtype
        index, operation = self._augmented()
        of_unit = self.linear_in == "sqeuclidean" and operation.scale_to_length_1

        def queries(points: Any) -> Tensor:
            asked = self.index if points is None else self._like_index(points, "queries")
            if of_unit and not _are_unit(asked):
                raise ValueError(
                    f"{self.name} was fitted on vectors of length 1, so its augmented queries must have it, too"
                )
            return operation(asked)

        return AugmentedVectors(index.to(dtype), queries, (operation,))

    def _augmented(self) -> tuple[Tensor, QueryOperation]:
        """Index vectors [n, d + e] in float64, minus key up to what is the query's, and the operation."""
        factor, bias = self._factor[:, None], self._bias[:, None]
        alike = bool((factor == factor[0]).all())
        if self.linear_in != "sqeuclidean":
            return self._augmented_products(factor, bias, alike)
        if not alike and _are_unit(self.index):  # |q - x|^2 = 2 - 2 <q, x>
            vectors = torch.cat([2 * factor * self.index.double(), -2 * factor - bias], 1)
            return vectors, QueryOperation(scale_to_length_1=True, append=(1.0,))
        centre = self.index.double().mean(0)
        x = self.index.double() - centre
        squares = x.square().sum(1, keepdim=True)
        if alike:
            scale = float(factor[0])
            vectors = torch.cat([x, -squares - bias / scale], 1)
            return vectors, QueryOperation(multiply_by=2.0, add=-2 * centre, append=(1.0,))
        vectors = torch.cat([2 * factor * x, -factor, -factor * squares - bias], 1)
        return vectors, QueryOperation(add=-centre, append=(SQUARED_LENGTH, 1.0))

    def _augmented_products(self, factor: Tensor, bias: Tensor, alike: bool) -> tuple[Tensor, QueryOperation]:
        unit = self.linear_in == "cosine"
        x = unit_rows(self.index.double(), "index") if unit else self.index.double()
        if alike:
            vectors = torch.cat([x, -bias], 1)
            return vectors, QueryOperation(scale_to_length_1=unit, multiply_by=float(factor[0]), append=(1.0,))
        return torch.cat([factor * x, -factor * unit - bias], 1), QueryOperation(scale_to_length_1=unit, append=(1.0,))

    def _ranking(self, queries: Tensor | None) -> LinearRanking:
        return LinearRanking(PointDistances(self.index, queries, self.linear_in), self._factor, self._bias)

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        ranking = self._ranking(queries)
        found = search(ranking, torch.arange(ranking.distances.m, device=self.index.device), k, queries is None)
        return Neighbours(self._reduced(found.distances, self._query_statistic(queries)[:, None]), found.ids)

    def _distances(self, queries: Tensor | None) -> Tensor:
        ranking = self._ranking(queries)
        rows = torch.arange(ranking.distances.m, device=self.index.device)
        ids = torch.arange(len(self.index), device=self.index.device).expand(len(rows), -1)
        keys = ranking.keys(rows, ids, ranking.distances.exact(rows, ids))
        return self._reduced(keys, self._query_statistic(queries)[:, None]).to(self.index.dtype)

    @abstractmethod
    def _query_statistic(self, queries: Tensor | None) -> Tensor:
        """What the reduced distance needs of the queries besides, [m]; in-sample without the point itself."""

    def _reduced(self, keys: Tensor, statistic: Tensor) -> Tensor:
        """Reduced distances from keys [m, k] and the statistic [m, 1]; grows with the keys."""
        return keys + statistic


def _are_unit(points: Tensor) -> bool:
    """Whether lengths differ from 1 by no more than rounding."""
    lengths = torch.linalg.vector_norm(points, dim=1, dtype=torch.float64)
    return bool((lengths - 1).abs().max() <= 8 * torch.finfo(points.dtype).eps)
