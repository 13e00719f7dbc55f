"""Tiles of the distances between queries and an index, from matrix products.

Mean and variance of each point's distances to an index, from sums that add over shards of the index.

For the cosine, the dot product and squared Euclidean distances they are closed forms in sum(x) and X'X: O(n d^2) and no
pass over pairs. Plain Euclidean distances take one such pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import reduce
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.neighbours.distances import unit_rows
from likeness.neighbours.exact import DistanceName
from likeness.numerics import as_float64

_TILE = (1024, 8192)


class Prepared(NamedTuple):
    """Points whose inner products give the distances: shifted for Euclidean ones, of length 1 for cosines."""

    vectors: Tensor  # [n, d]
    squares: Tensor  # [n], squared lengths

    def take(self, rows: slice | Tensor) -> "Prepared":
        """Some of the points."""
        return Prepared(self.vectors[rows], self.squares[rows])


class DistanceTiles:
    """Distances to an index [n, d]. Euclidean ones are taken about the index's mean, where less of them cancels."""

    def __init__(self, index: Tensor, metric: DistanceName) -> None:
        self.metric = metric
        euclidean = metric in ("euclidean", "sqeuclidean")
        self._origin = as_float64(index).mean(0).to(index.dtype) if euclidean else None
        self.index = self.prepare(index, "index")

    def prepare(self, points: Tensor, what: str) -> Prepared:
        """The form in which `tile` takes points [m, d]; ValueError for zero rows where the metric is the cosine."""
        if self._origin is not None:
            points = points - self._origin
        elif self.metric == "cosine":
            points = unit_rows(points, what)
        return Prepared(points, points.square().sum(1))

    def tile(self, queries: Prepared, columns: slice) -> Tensor:
        """Distances [m, columns] of prepared queries."""
        x = self.index.vectors[columns]
        if self.metric == "dot":
            return (queries.vectors @ x.T).neg_()
        if self.metric == "cosine":
            return (queries.vectors @ x.T).neg_().add_(1)
        tile = torch.addmm(self.index.squares[columns], queries.vectors, x.T, alpha=-2)
        tile.add_(queries.squares[:, None]).clamp_(min=0)
        return tile.sqrt_() if self.metric == "euclidean" else tile

    def between(self, ids: Tensor) -> Tensor:
        """Distances [r, c, c] between the index points ids [r, c] of each row."""
        x, squares = self.index.vectors[ids], self.index.squares[ids]
        product = x @ x.transpose(1, 2)
        if self.metric in ("cosine", "dot"):
            return float(self.metric == "cosine") - product
        squared = (squares[:, :, None] + squares[:, None] - 2 * product).clamp_(min=0)
        return squared.sqrt_() if self.metric == "euclidean" else squared


def tiles(m: int, n: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles of an [m, n] matrix, one row of tiles after the other."""
    for top in range(0, m, _TILE[0]):
        for left in range(0, n, _TILE[1]):
            yield slice(top, min(top + _TILE[0], m)), slice(left, min(left + _TILE[1], n))


def fill_own(tile: Tensor, own: Tensor, columns: slice, value: float) -> Tensor:
    """`tile` [r, columns] with `value` in each row's own column, where row i is index point own[i]; in place."""
    rows = ((own >= columns.start) & (own < columns.stop)).nonzero().flatten()
    tile[rows, own[rows] - columns.start] = value
    return tile


_CHUNK = 4096  # rows of float64 at a time


class DistanceMoments(NamedTuple):
    """Of each of m points' distances to n others, in float64."""

    mean: Tensor  # [m]
    variance: Tensor  # [m], population

    @classmethod
    def of(cls, distances: Tensor) -> Self:
        """Moments of given distances [m, n], of a point's nearest neighbours for one."""
        variance, mean = torch.var_mean(distances.double(), dim=1, correction=0)
        return cls(mean, variance)


@dataclass(frozen=True)
class IndexSums:
    """What the closed forms need of an index; the sums of two shards, added, are those of both.

    Of unit vectors for the cosine. Squared Euclidean distances lose fewer digits with vectors about a common origin.
    """

    count: Tensor  # []
    vectors: Tensor  # [d], sum x
    products: Tensor  # [d, d], X'X
    squares: Tensor  # [], sum |x|^2
    fourths: Tensor  # [], sum |x|^4
    weighted: Tensor  # [d], sum |x|^2 x

    @classmethod
    def of(cls, index: Tensor) -> Self:
        """Sums over an index, or a shard of it, [n, d], in float64."""
        return reduce(cls.__add__, (cls._of_rows(x.double()) for x in torch.split(index, _CHUNK)))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def _of_rows(cls, x: Tensor) -> Self:
        a = x.square().sum(1)
        count = torch.tensor(float(len(x)), dtype=x.dtype, device=x.device)
        return cls(count, x.sum(0), x.T @ x, a.sum(), a.square().sum(), a @ x)

    def dot_moments(self, queries: Tensor, *, in_index: bool, offset: float = 0.0) -> DistanceMoments:
        """Moments of offset - <q, x>, of queries [m, d]; without the query itself where it stands in the index.

        Offset 1 and unit vectors give those of the cosine distance, offset 0 those of the dot product.
        """
        return _by_rows(queries, lambda q: self._dot_rows(q, int(in_index), offset))

    def squared_moments(self, queries: Tensor, *, in_index: bool) -> DistanceMoments:
        """Moments of |q - x|^2, of queries [m, d]; without the query itself where it stands in the index."""
        return _by_rows(queries, lambda q: self._squared_rows(q, int(in_index)))

    def _dot_rows(self, q: Tensor, in_index: int, offset: float) -> DistanceMoments:
        own = q.square().sum(1) * in_index
        first = q @ self.vectors - own
        second = ((q @ self.products) * q).sum(1) - own.square()
        mean = first / (self.count - in_index)
        return DistanceMoments(offset - mean, (second / (self.count - in_index) - mean.square()).clamp(min=0))

    def _squared_rows(self, q: Tensor, in_index: int) -> DistanceMoments:
        a, n = q.square().sum(1), self.count
        linear, quadratic = q @ self.vectors, ((q @ self.products) * q).sum(1)
        first = n * a + self.squares - 2 * linear
        second = n * a.square() + self.fourths + 4 * quadratic + 2 * a * self.squares
        second = second - 4 * a * linear - 4 * (q @ self.weighted)
        mean = first / (n - in_index)  # the distance to itself is 0 and adds nothing
        return DistanceMoments(mean, (second / (n - in_index) - mean.square()).clamp(min=0))


def euclidean_sums(of: DistanceTiles, queries: Prepared, pivot: Tensor, own: Tensor | None) -> Tensor:
    """Count, sum and sum of squares of d(q, x) - pivot(q) over the index, [3, m] in float64; they add over its shards.

    `pivot` [m] is any value near the distances, about which no digits cancel; `own` [m] are the ids of queries that
    stand in the index and are left out of their own sums.
    """
    m, n = len(pivot), len(of.index.squares)
    sums = pivot.new_zeros(3, m, dtype=torch.float64)
    for rows, columns in tiles(m, n):
        tile = of.tile(queries.take(rows), columns)
        offset = tile.sub_(pivot[rows, None].to(tile.dtype))
        if own is not None:
            fill_own(offset, own[rows], columns, 0.0)
        sums[1, rows] += offset.sum(1).double()
        sums[2, rows] += torch.linalg.vector_norm(offset, dim=1).double().square()
    sums[0] = n - (own is not None)
    return sums


def euclidean_moments(sums: Tensor, pivot: Tensor) -> DistanceMoments:
    """Moments from :func:`euclidean_sums` [3, m], of one shard or added over all."""
    mean = sums[1] / sums[0]
    return DistanceMoments(pivot + mean, (sums[2] / sums[0] - mean.square()).clamp(min=0))


def distance_moments(of: DistanceTiles, sums: IndexSums, queries: Prepared, own: Tensor | None) -> DistanceMoments:
    """Moments of the distances of prepared queries [m, d] to an index with these sums.

    `own` [m] are the ids of queries that stand in the index; their distance to themselves does not count.
    """
    in_index = own is not None
    if of.metric in ("cosine", "dot"):
        return sums.dot_moments(queries.vectors, in_index=in_index, offset=float(of.metric == "cosine"))
    squared = sums.squared_moments(queries.vectors, in_index=in_index)
    if of.metric == "sqeuclidean":
        return squared
    pivot = squared.mean.clamp(min=0).sqrt()
    return euclidean_moments(euclidean_sums(of, queries, pivot, own), pivot)


def _by_rows(queries: Tensor, moments: Callable[[Tensor], DistanceMoments]) -> DistanceMoments:
    parts = [moments(q.double()) for q in torch.split(queries, _CHUNK)]
    return DistanceMoments(torch.cat([p.mean for p in parts]), torch.cat([p.variance for p in parts]))
