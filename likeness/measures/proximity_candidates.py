"""What the variants of mutual proximity share: who asks, whom they may get, and how many candidates suffice."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.measures.distance_moments import DistanceMoments
from likeness.measures.distance_tiles import DistanceTiles, Prepared, fill_own
from likeness.measures.neighbours import Neighbours, top_k
from likeness.measures.point_distances import PointDistances

_CANDIDATES_AT_ONCE = 2**22  # candidates in memory


class Rows(NamedTuple):
    """Points that ask for neighbours."""

    exact: PointDistances  # in float64, of all who ask
    numbers: Tensor  # [r], which of them these are
    points: Prepared
    own: Tensor | None  # [r], their ids where they stand in the index
    moments: DistanceMoments | None  # of their distances, for the variants that are laws

    def take(self, rows: Tensor) -> Self:
        """Some of them."""
        moments = None if self.moments is None else DistanceMoments(*(moment[rows] for moment in self.moments))
        own = None if self.own is None else self.own[rows]
        return type(self)(self.exact, self.numbers[rows], self.points.take(rows), own, moments)


class Candidates(NamedTuple):
    """Index points for each of r rows by rising key; keys rank as reduced distances do."""

    keys: Tensor  # [r, c], float64
    ids: Tensor  # [r, c]
    beyond: Tensor  # [r], what the keys of all other points reach at least


class Proximity(ABC):
    """A variant of mutual proximity, fitted on the index behind `tiles`."""

    spare: int  # this many candidates, besides twice k, are enough for nearly all rows

    def __init__(self, tiles: DistanceTiles) -> None:
        self.tiles = tiles
        self.size = len(tiles.index.squares)

    @abstractmethod
    def candidates(self, rows: Rows, count: int, *, nearest: bool = False) -> Candidates:
        """`count` candidates of each row; with `nearest` those of the smallest plain distance, and no others count."""

    @staticmethod
    @abstractmethod
    def distance(keys: Tensor) -> Tensor:
        """1 - mutual proximity from keys."""

    def available(self, rows: Rows) -> int:
        """How many index points a row may get."""
        return self.size - (rows.own is not None)

    def nearest(self, rows: Rows, count: int) -> Neighbours:
        """The index points of the smallest plain distance, without the rows themselves."""

        def block(r: slice, columns: slice) -> Tensor:
            return self.without_self(self.tiles.tile(rows.points.take(r), columns), rows, r, columns)

        return top_k(block, len(rows.points.squares), self.size, count)

    @staticmethod
    def without_self(tile: Tensor, rows: Rows, r: slice, columns: slice) -> Tensor:
        """`tile` with +inf where a row meets itself."""
        return tile if rows.own is None else fill_own(tile, rows.own[r], columns, torch.inf)


def search(proximity: Proximity, rows: Rows, k: int, candidates: int | None = None) -> tuple[Tensor, Tensor]:
    """Keys and ids, [m, k] each, of the first k over all index points, or over so many nearest `candidates`.

    Over all: rows whose k-th key lies beyond what any point outside the candidates can have are done; the others ask
    for four times as many, in the end for all points.
    """
    m, available = len(rows.numbers), proximity.available(rows)
    keys = torch.empty(m, k, dtype=torch.float64, device=rows.numbers.device)
    ids = torch.empty(m, k, dtype=torch.int64, device=rows.numbers.device)
    count, unsettled = candidates or 2 * k + proximity.spare, torch.arange(m, device=rows.numbers.device)
    while len(unsettled):
        count, left = min(count, available), []
        for part in torch.split(unsettled, max(1, _CANDIDATES_AT_ONCE // count)):
            found = proximity.candidates(rows.take(part), count, nearest=candidates is not None)
            keys[part], ids[part] = found.keys[:, :k], found.ids[:, :k]
            left.append(part[found.keys[:, k - 1] > found.beyond])
        count, unsettled = 4 * count, torch.cat(left)
    return keys, ids
