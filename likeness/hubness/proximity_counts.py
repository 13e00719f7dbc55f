"""Mutual proximity by counting: of index points that are farther from both (joint), or from each of the two (rank).

A point that is no candidate has all candidates at least as near to the row: with c of them, at most n - c are farther.
Counts ask whether distances are equal, so those that rounding alone tells apart are taken for equal.
"""

from abc import abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likeness.neighbours.distances import PointDistances
from likeness.neighbours.exact import Ranking, search
from likeness.neighbours.moments import fill_own

_DISTANCES_AT_ONCE = 2**22  # distances in memory


class Pairs(NamedTuple):
    """Rows and index points x, [r, c] each."""

    rows: Tensor  # [r]
    ids: Tensor
    radii: Tensor  # distances up to which others are as near
    forward: Tensor  # how many points are as near to the row as x, x among them
    reverse: Tensor  # how many points are as near to x as the row, which is among them if it stands in the index


class CountProximity(Ranking):
    """1 - a function of how many index points are as near to a row as a candidate, and to the candidate as the row.

    `of_index` are the distances among the index points, which the rows are where `in_sample`.
    """

    spare = 64
    twice = True

    def __init__(self, distances: PointDistances, of_index: PointDistances, in_sample: bool) -> None:
        super().__init__(distances)
        self.of_index, self.in_sample = of_index, in_sample
        self.size, self.available = distances.n, distances.n - in_sample

    def keys(self, rows: Tensor, ids: Tensor, distances: Tensor) -> Tensor:
        """Reduced distances [r, c]."""
        radii = distances + self.distances.tolerance(rows, distances)
        forward = counts_within(self.distances, rows, radii, self.in_sample)
        reverse = reverse_counts(self.of_index, ids, radii)
        return self._keys(Pairs(rows, ids, radii, forward, reverse))

    def beyond(self, rows: Tensor, scores: Tensor, distances: Tensor) -> Tensor:
        """By the number of candidates that are nearer than all other points; the row itself may be among them."""
        nearer = (distances <= super().beyond(rows, scores, distances)[:, None]).sum(1)
        return self._beyond(nearer - int(self.in_sample))

    @staticmethod
    def distance(keys: Tensor) -> Tensor:
        """The keys themselves."""
        return keys

    @abstractmethod
    def _keys(self, pairs: Pairs) -> Tensor:
        """Reduced distances [r, c] in float64."""

    @abstractmethod
    def _beyond(self, count: Tensor) -> Tensor:
        """What the keys of points with `count` [r] others that are as near to the row do not go below."""


class RankProximity(CountProximity):
    """1 - (1 - F_q(d)) (1 - F_x(d)), F the empirical distribution of a point's distances to the others."""

    def _keys(self, pairs: Pairs) -> Tensor:
        """From whole numbers, so that equal products are equal."""
        farther = (self.available - pairs.forward) * (self.size - 1 - pairs.reverse)
        return 1 - farther.double() / (self.available * (self.size - 1))

    def _beyond(self, count: Tensor) -> Tensor:
        return (count.double() + 0.5) / self.available  # half a count is more than rounding


class JointProximity(CountProximity):
    """1 - #{j: d(q, j) > d(q, x) and d(x, j) > d(q, x)} / n. Schnitzer et al. 2012."""

    def _keys(self, pairs: Pairs) -> Tensor:
        """Farther from both = the other points - nearer to q - nearer to x + nearer to both."""
        nearer = (pairs.forward - 1) + (pairs.reverse - int(self.in_sample)) - self._shared(pairs)
        return 1 - (self.available - 1 - nearer).double() / self.size

    def _beyond(self, count: Tensor) -> Tensor:
        return 1 - (self.available - 1 - count.double() + 0.5) / self.size

    def _shared(self, pairs: Pairs) -> Tensor:
        """How many other points are as near as x to the row, and as near to x as the row is, [r, c]."""
        shared = torch.empty_like(pairs.ids)
        # All points as near to a row as its last candidate: where distances tie, more than are candidates.
        widths = pairs.forward.amax(1).clamp(min=1)
        order = widths.argsort(descending=True)
        while len(order):
            width = int(widths[order[0]])
            size = max(1, _DISTANCES_AT_ONCE // (width * pairs.ids.shape[1]))
            some, order = order[:size], order[size:]
            shared[some] = self._shared_within(Pairs(*(part[some] for part in pairs)), width)
        return shared

    def _shared_within(self, pairs: Pairs, width: int) -> Tensor:
        nearest = search(Ranking(self.distances), pairs.rows, width, self.in_sample)
        radii, x, j = pairs.radii[:, :, None], pairs.ids[:, :, None], nearest.ids[:, None]
        both = (self.of_index.between(pairs.ids, nearest.ids) <= radii) & (nearest.distances[:, None] <= radii)
        shared = (both & (x != j)).sum(2)
        # The row itself counts as a copy of itself would, so that copies have equal keys.
        return torch.where(pairs.ids == pairs.rows[:, None], pairs.forward - 1, shared) if self.in_sample else shared


def counts_within(distances: PointDistances, rows: Tensor, radii: Tensor, in_sample: bool) -> Tensor:
    """How many index points, the row itself left out, lie within the radii [r, c] of each row, [r, c]."""
    counts = torch.empty(radii.shape, dtype=torch.int64, device=radii.device)
    numbers = torch.arange(len(rows), device=rows.device)
    for part in torch.split(numbers, max(1, _DISTANCES_AT_ONCE // distances.n)):
        full = _full_rows(distances, rows[part], in_sample)
        counts[part] = torch.searchsorted(_sorted(full), radii[part], right=True)
    return counts


def reverse_counts(of_index: PointDistances, ids: Tensor, radii: Tensor) -> Tensor:
    """How many other index points lie within radii [r, c] of x = ids [r, c], [r, c].

    One pass over the rows of the index answers all pairs of each x.
    """
    asked, n = ids.flatten(), of_index.n
    order = asked.argsort(stable=True)
    number = torch.bincount(asked, minlength=n)
    start = number.cumsum(0) - number
    counts = torch.empty_like(asked)
    for x in torch.split(torch.arange(n, device=ids.device), max(1, _DISTANCES_AT_ONCE // n)):
        # The pairs of these x stand together in `order`; their radii fill the rows of a matrix, one row an x.
        pairs = order[start[x[0]] : start[x[-1]] + number[x[-1]]]
        if not len(pairs):
            continue
        place = asked[pairs] - x[0], torch.arange(len(pairs), device=pairs.device) + start[x[0]] - start[asked[pairs]]
        by_x = radii.new_zeros(len(x), int(number[x].max()))
        by_x[place] = radii.flatten()[pairs]
        counts[pairs] = torch.searchsorted(_sorted(_full_rows(of_index, x, True)), by_x, right=True)[place]
    return counts.view_as(ids)


def _full_rows(distances: PointDistances, rows: Tensor, in_sample: bool) -> Tensor:
    """Distances [r, n] of a few points, +inf to themselves."""
    everything = slice(0, distances.n)
    full = distances.tile(rows, everything)
    return fill_own(full, rows, everything, torch.inf) if in_sample else full


def _sorted(rows: Tensor) -> Tensor:
    """Each row ascending. NumPy's sort is vectorised on the CPU: 20 times as fast as torch's."""
    return rows.sort(dim=1).values if rows.is_cuda else torch.from_numpy(np.sort(rows.numpy(), axis=1))
