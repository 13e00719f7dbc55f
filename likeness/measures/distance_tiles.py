"""Tiles of the distances between queries and an index, from matrix products."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.moments import as_float64
from likeness.measures.neighbours import DistanceName
from likeness.measures.reduction_base import unit_rows

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
