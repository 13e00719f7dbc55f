"""Points that are copies of each other, searched as one."""

import torch
from torch import Tensor

_ELEMENTS = 2**20  # of lists at a time


class DistinctPoints:
    """The places of index points [n, d]: copies of a point share one, and a place is named by its first point.

    The k first points by (distance, id) stand at the k first places by (distance, first id).
    """

    def __init__(self, points: Tensor) -> None:
        place: Tensor = torch.unique(points, dim=0, return_inverse=True)[1]
        numbers = torch.arange(len(points), device=points.device)
        first = numbers.new_full((int(place.max()) + 1,), len(points)).scatter_reduce(0, place, numbers, "amin")
        self.first, order = first.sort()  # [places], ids of points
        place = order.argsort()[place]
        self._copies = torch.bincount(place)
        self._start = self._copies.cumsum(0) - self._copies
        self._members = place.argsort(stable=True)

    def expand(self, distances: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and ids [r, k] of points by (distance, id), from those of the min(k, all) first places."""
        size = max(1, _ELEMENTS // (places.shape[1] * min(k, int(self._copies.max()))))
        parts = zip(torch.split(distances, size), torch.split(places, size), strict=True)
        values, ids = zip(*(self._expand(values, ids, k) for values, ids in parts), strict=True)
        return torch.cat(values), torch.cat(ids)

    def _expand(self, distances: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        copies = self._copies[places].clamp(max=k)  # more of one place are in no list
        entry = torch.arange(copies.numel(), device=copies.device).repeat_interleave(copies.flatten())
        before = copies.flatten().cumsum(0) - copies.flatten()
        turn = torch.arange(len(entry), device=copies.device) - before[entry]
        ids = self._members[self._start[places.flatten()[entry]] + turn]
        values, row = distances.flatten()[entry], entry // places.shape[1]
        order = ids.argsort()
        for key in (values, row):
            order = order[key[order].argsort(stable=True)]
        chosen = order[before.view(places.shape)[:, :1] + torch.arange(k, device=copies.device)]
        return values[chosen], ids[chosen]
