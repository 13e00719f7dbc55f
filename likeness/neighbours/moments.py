"""Mean and variance of each point's distances to an index, and the tiles in which all pairs are passed over.

For the cosine, the dot product and squared Euclidean distances they are closed forms in sums over the index, which add
over its shards: O(n d^2) and no pass over pairs. Plain Euclidean distances take one such pass. Where either would lose
its digits, as for a query far from an index whose points are all about as far, the distances themselves are taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import reduce
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.neighbours.distances import PointDistances

_TILE = (1024, 8192)
_CHUNK = 4096  # rows of float64 at a time
_ROWS = 64  # whose distances to all points are taken one by one
_LOST = 1e-6  # a variance below this share of what cancelled to give it has too few digits


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


class DistanceMoments(NamedTuple):
    """Of each of m points' distances to n others, in float64."""

    mean: Tensor  # [m]
    variance: Tensor  # [m], population

    @classmethod
    def of(cls, distances: Tensor) -> Self:
        """Moments of given distances [m, n], of a point's nearest neighbours for one."""
        variance, mean = torch.var_mean(distances.double(), dim=1, correction=0)
        return cls(mean, variance)

    def take(self, rows: Tensor) -> Self:
        """Those of some of the points, of any shape."""
        return type(self)(self.mean[rows], self.variance[rows])


@dataclass(frozen=True)
class IndexSums:
    """What the closed forms need of an index; the sums of two shards, added, are those of both.

    Fewer digits are lost with vectors about a common origin near their mean.
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

    def product_moments(self, queries: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and mean square [m] of <q, x> over the index; `own` [m] are products to be left out, one of each."""
        first = queries @ self.vectors
        second = ((queries @ self.products) * queries).sum(1)
        if own is not None:
            first, second = first - own, second - own.square()
        count = self.count - int(own is not None)
        return first / count, second / count

    def squared_moments(self, queries: Tensor, *, in_index: bool) -> tuple[Tensor, Tensor]:
        """Mean and mean square [m] of |q - x|^2; without the query itself where it stands in the index."""
        a, n = queries.square().sum(1), self.count
        linear, quadratic = queries @ self.vectors, ((queries @ self.products) * queries).sum(1)
        first = n * a + self.squares - 2 * linear
        second = n * a.square() + self.fourths + 4 * quadratic + 2 * a * self.squares
        second = second - 4 * a * linear - 4 * (queries @ self.weighted)
        return first / (n - int(in_index)), second / (n - int(in_index))  # the distance to itself is 0 and adds nothing


def distance_moments(distances: PointDistances, *, in_index: bool) -> DistanceMoments:
    """Moments of each query's distances to the index; `in_index` queries are its points, and left out of their own."""
    sums = index_sums(distances)
    if distances.metric == "euclidean":
        found, cancelled = _euclidean(distances, sums, in_index)
    else:
        blocks = [_closed_form(distances, sums, rows, in_index) for rows in _blocks(distances.m)]
        found = DistanceMoments(*(torch.cat(parts) for parts in zip(*(block[0] for block in blocks), strict=True)))
        cancelled = torch.cat([block[1] for block in blocks])
    lost = (found.variance <= _LOST * cancelled).nonzero()[:, 0]
    for start in range(0, len(lost), _ROWS):
        rows = lost[start : start + _ROWS]
        found.mean[rows], found.variance[rows] = _one_by_one(distances, rows, in_index)
    return found


def index_sums(distances: PointDistances) -> IndexSums:
    """Sums over the index about its mean, of unit vectors for the cosine."""
    parts = (IndexSums.of(distances.centred(rows, queries=False)) for rows in _blocks(distances.n))
    return reduce(IndexSums.__add__, parts)


def _closed_form(
    distances: PointDistances, sums: IndexSums, rows: slice, in_index: bool
) -> tuple[DistanceMoments, Tensor]:
    """Moments of some queries, and the square [r] of the sums that cancelled in the variance."""
    q = distances.centred(rows, queries=True)
    if distances.metric != "dot":
        scale = 0.5 if distances.metric == "cosine" else 1.0
        mean, square = sums.squared_moments(q, in_index=in_index)
        variance = (square - mean.square()).clamp(min=0)
        size = q.square().sum(1) + sums.squares / sums.count
        return DistanceMoments(scale * mean, scale**2 * variance), (scale * size).square()
    # <q, x> = <q, x - c> + <q, c>, of which the second part is the same for all x.
    plain = distances.query_vectors(rows)
    own = (plain * q).sum(1) if in_index else None
    mean, square = sums.product_moments(plain, own)
    variance = (square - mean.square()).clamp(min=0)
    cancelled = square + (0 if own is None else own.square() / sums.count)
    return DistanceMoments(-mean - plain @ distances.centre, variance), cancelled


def _euclidean(distances: PointDistances, sums: IndexSums, in_index: bool) -> tuple[DistanceMoments, Tensor]:
    """Moments by one pass over all pairs, about a pivot near the distances."""
    squares = [
        sums.squared_moments(distances.centred(rows, queries=True), in_index=in_index)[0]
        for rows in _blocks(distances.m)
    ]
    pivot = torch.cat(squares).clamp(min=0).sqrt()
    found = euclidean_moments(euclidean_sums(distances, pivot, in_index), pivot)
    return found, found.mean.square() * _LOST  # a tile has twelve digits


def euclidean_sums(distances: PointDistances, pivot: Tensor, in_index: bool) -> Tensor:
    """Count, sum and sum of squares of d(q, x) - pivot(q) over the index, [3, m] in float64; they add over its shards.

    `pivot` [m] is any value near the distances, about which no digits cancel; `in_index`: the queries are the index
    points, and left out of their own sums.
    """
    m, n = distances.m, distances.n
    numbers = torch.arange(m, device=pivot.device)
    sums = pivot.new_zeros(3, m, dtype=torch.float64)
    for rows, columns in tiles(m, n):
        offset = distances.tile(numbers[rows], columns).sub_(pivot[rows, None])
        if in_index:
            fill_own(offset, numbers[rows], columns, 0.0)
        sums[1, rows] += offset.sum(1)
        sums[2, rows] += offset.square_().sum(1)
    sums[0] = n - in_index
    return sums


def euclidean_moments(sums: Tensor, pivot: Tensor) -> DistanceMoments:
    """Moments from :func:`euclidean_sums` [3, m], of one shard or added over all."""
    mean = sums[1] / sums[0]
    return DistanceMoments(pivot + mean, (sums[2] / sums[0] - mean.square()).clamp(min=0))


def _one_by_one(distances: PointDistances, rows: Tensor, in_index: bool) -> DistanceMoments:
    """Moments of a few queries' distances to all points, each of these a difference of points."""
    full = distances.exact(rows, torch.arange(distances.n, device=rows.device).expand(len(rows), -1))
    if in_index:
        others = torch.ones_like(full, dtype=torch.bool).scatter_(1, rows[:, None], False)
        full = full[others].view(len(rows), distances.n - 1)
    return DistanceMoments.of(full)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
