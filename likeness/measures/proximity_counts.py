"""Mutual proximity by counting: of index points that are farther from both (joint), or from each of the two (rank).

A point that is no candidate has all candidates nearer to the row: with c of them, at most n - c can be farther.
"""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likeness.measures.distance_tiles import DistanceTiles, Prepared, fill_own
from likeness.measures.proximity_candidates import Candidates, Proximity, Rows

_DISTANCES_AT_ONCE = 2**22  # distances in memory


class Pairs(NamedTuple):
    """Rows and their candidates x, [r, c] each."""

    ids: Tensor
    distances: Tensor
    forward: Tensor  # how many points are as near to the row as x, x among them
    reverse: Tensor  # how many points are as near to x as the row, which is among them if it stands in the index


class CountProximity(Proximity):
    """1 - a function of how many index points are as near to a row as a candidate, and to the candidate as the row."""

    spare = 64

    def candidates(self, rows: Rows, count: int, *, nearest: bool = False) -> Candidates:
        """The nearest ones, in any case.

        Equal keys are common, as they are counts. Of all points the smaller id goes first; where only the nearest
        count, the larger, as in the published values.
        """
        found = self.nearest(rows, count)
        ids, order = found.ids.sort(dim=1, descending=nearest)
        distances = found.distances.gather(1, order)
        forward = counts_within(self.tiles, rows.points, rows.own, ids)
        reverse = reverse_counts(self.tiles, rows.own, ids, distances)
        keys, order = self._keys(rows, Pairs(ids, distances, forward, reverse)).sort(dim=1, stable=True)
        bound = torch.inf if nearest or count == self.available(rows) else self._beyond(rows, count)
        return Candidates(keys, ids.gather(1, order), torch.full_like(keys[:, 0], bound))

    @staticmethod
    def distance(keys: Tensor) -> Tensor:
        """The keys themselves."""
        return keys

    @abstractmethod
    def _keys(self, rows: Rows, pairs: Pairs) -> Tensor:
        """Reduced distances [r, c] in float64."""

    @abstractmethod
    def _beyond(self, rows: Rows, count: int) -> float:
        """What the keys of points that are not among the `count` nearest exceed."""


class RankProximity(CountProximity):
    """1 - (1 - F_q(d)) (1 - F_x(d)), F the empirical distribution of a point's distances to the others."""

    def _keys(self, rows: Rows, pairs: Pairs) -> Tensor:
        """In the points' type: what float32 takes for equal goes by id, as in the values known for such points."""
        dtype = pairs.distances.dtype
        further = (1 - pairs.forward.to(dtype) / self.available(rows)) * (1 - pairs.reverse.to(dtype) / (self.size - 1))
        return (1 - further).double()

    def _beyond(self, rows: Rows, count: int) -> float:
        return (count + 0.5) / self.available(rows)  # half a count is more than rounding


class JointProximity(CountProximity):
    """1 - #{j: d(q, j) > d(q, x) and d(x, j) > d(q, x)} / n. Schnitzer et al. 2012."""

    def _keys(self, rows: Rows, pairs: Pairs) -> Tensor:
        """Farther from both = the other points - nearer to q - nearer to x + nearer to both."""
        shared = shared_counts(self.tiles, pairs.ids, pairs.distances)
        nearer = (pairs.forward - 1) + (pairs.reverse - int(rows.own is not None)) - shared
        return 1 - (self.available(rows) - 1 - nearer).double() / self.size

    def _beyond(self, rows: Rows, count: int) -> float:
        return 1 - (self.available(rows) - 1 - count + 0.5) / self.size


def counts_within(of: DistanceTiles, points: Prepared, own: Tensor | None, ids: Tensor) -> Tensor:
    """How many index points, itself left out, are as near to each of r points as the points ids [r, c] are: [r, c]."""
    counts = torch.empty(ids.shape, dtype=torch.int64, device=ids.device)
    for rows in torch.split(
        torch.arange(len(ids), device=ids.device), max(1, _DISTANCES_AT_ONCE // len(of.index.squares))
    ):
        full = _full_rows(of, points.take(rows), None if own is None else own[rows])
        counts[rows] = torch.searchsorted(_sorted(full), full.gather(1, ids[rows]), right=True)
    return counts


def reverse_counts(of: DistanceTiles, own: Tensor | None, ids: Tensor, distances: Tensor) -> Tensor:
    """How many index points are as near to x = ids [r, c] as the row is, x itself left out: [r, c].

    One pass over the rows of the index answers all pairs of each x. A row that stands in the index counts itself.
    """
    asked, n = ids.flatten(), len(of.index.squares)
    order = asked.argsort(stable=True)
    number = torch.bincount(asked, minlength=n)
    start = number.cumsum(0) - number
    counts = torch.empty_like(asked)
    for x in torch.split(torch.arange(n, device=ids.device), max(1, _DISTANCES_AT_ONCE // n)):
        pairs = order[start[x[0]] : start[x[-1]] + number[x[-1]]]
        full = _full_rows(of, of.index.take(x), x)
        place = asked[pairs] - x[0], torch.arange(len(pairs), device=pairs.device) + start[x[0]] - start[asked[pairs]]
        radii = full.new_zeros(len(x), int(number[x].max()))
        # The distance as the row of x holds it, where it does: rounding must not part the row from itself.
        radii[place] = distances.flatten()[pairs] if own is None else full[place[0], own[pairs // ids.shape[1]]]
        counts[pairs] = torch.searchsorted(_sorted(full), radii, right=True)[place]
    return counts.view_as(ids)


def shared_counts(of: DistanceTiles, ids: Tensor, distances: Tensor) -> Tensor:
    """How many other candidates are as near as x = ids [r, c] to the row, and as near to x as the row is: [r, c]."""
    counts = torch.empty_like(ids)
    for rows in torch.split(torch.arange(len(ids), device=ids.device), max(1, _DISTANCES_AT_ONCE // ids.shape[1] ** 2)):
        radius = distances[rows][:, :, None]
        both = (of.between(ids[rows]) <= radius) & (distances[rows][:, None] <= radius)
        both.diagonal(dim1=1, dim2=2).fill_(False)
        counts[rows] = both.sum(2)
    return counts


def _full_rows(of: DistanceTiles, points: Prepared, own: Tensor | None) -> Tensor:
    """Distances [r, n] of a few points, +inf to themselves."""
    everything = slice(0, len(of.index.squares))
    full = of.tile(points, everything)
    return full if own is None else fill_own(full, own, everything, torch.inf)


def _sorted(rows: Tensor) -> Tensor:
    """Each row ascending. NumPy's sort is vectorised on the CPU: 20 times as fast as torch's."""
    return rows.sort(dim=1).values if rows.is_cuda else torch.from_numpy(np.sort(rows.numpy(), axis=1))
