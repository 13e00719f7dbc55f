"""What the variants of mutual proximity share: who asks, whom they may get, and how many candidates suffice."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.measures.distance_moments import DistanceMoments
from likeness.measures.distance_tiles import DistanceTiles, Prepared, fill_own
from likeness.measures.neighbours import Neighbours, top_k

_AT_ONCE = 2**22  # candidates in memory


class Rows(NamedTuple):
    """Points that ask for neighbours."""

    points: Prepared
    own: Tensor | None  # [r], their ids where they stand in the index
    moments: DistanceMoments | None  # of their distances, for the variants that are laws

    def take(self, rows: Tensor) -> Self:
        """Some of them, by number."""
        moments = None if self.moments is None else DistanceMoments(*(moment[rows] for moment in self.moments))
        return type(self)(self.points.take(rows), None if self.own is None else self.own[rows], moments)


class Candidates(NamedTuple):
    """Index points for each of r rows by rising key; keys rank as reduced distances do."""

    keys: Tensor  # [r, c], float64
    ids: Tensor  # [r, c]
    beyond: Tensor  # [r], what the keys of all other points reach at least


class Proximity(ABC):
    """A variant of mutual proximity, fitted on the index behind `tiles`."""

    first_count = 32  # candidates that are enough for most rows, besides twice k

    def __init__(self, tiles: DistanceTiles) -> None:
        self.tiles = tiles
        self.size = len(tiles.index.squares)

    @abstractmethod
    def candidates(self, rows: Rows, count: int, *, nearest: bool = False) -> Candidates:
        """`count` candidates of each row; with `nearest` those of the smallest plain distance."""

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


def search(proximity: Proximity, rows: Rows, k: int) -> tuple[Tensor, Tensor]:
    """Keys and ids, [m, k] each, of the first k over all index points.

    Rows whose k-th key lies beyond what any point outside the candidates can have are done; the others ask for four
    times as many candidates, in the end for all points.
    """
    m, available = len(rows.points.squares), proximity.available(rows)
    device = rows.points.squares.device
    keys = torch.empty(m, k, dtype=torch.float64, device=device)
    ids = torch.empty(m, k, dtype=torch.int64, device=device)
    count, unsettled = 2 * k + proximity.first_count, torch.arange(m, device=device)
    while len(unsettled):
        count, left = min(count, available), []
        for part in unsettled.split(max(1, _AT_ONCE // count)):
            found = proximity.candidates(rows.take(part), count)
            keys[part], ids[part] = found.keys[:, :k], found.ids[:, :k]
            left.append(part[found.keys[:, k - 1] > found.beyond])
        count, unsettled = 4 * count, torch.cat(left)
    return keys, ids
