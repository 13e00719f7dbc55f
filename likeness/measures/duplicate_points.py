"""A tie rule for identical index points: they take turns, so that none of them becomes a hub by its number."""

import torch
from torch import Tensor

from likeness.measures.neighbours import Neighbours


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
