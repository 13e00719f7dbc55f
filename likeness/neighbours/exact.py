"""Exact k nearest neighbours by blocked matrix products: memory is set by the block, not by the number of points.

Equally near points go by their ids. Points that are copies of each other are searched as one where many of them lie at
one distance. Every ranking that grows with the distance is searched in the same way, see :class:`Ranking`.
"""

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of
from likeness.neighbours.distances import DistanceName, PointDistances
from likeness.numerics import first_copies, full_precision

__all__ = ["Block", "DistanceName", "Neighbours", "Ranking", "nearest_neighbours", "search", "top_k"]

Block = Callable[[slice, slice], Tensor]
"""The tile [rows, columns] of a matrix of distances, smaller nearer."""

_TILE, _TILE_ON_DEVICE = 2**21, 2**26  # elements of a tile: what a cache holds, what fills a GPU
_COLUMNS = 2**14  # of a tile at most: wider ones are searched faster, and multiplied slower
_MORE = 8  # times as many candidates, for queries that the first leave in doubt
_CANDIDATES = 2**23  # in memory
_LISTED = 2**20  # entries of lists at a time, where copies are told apart
_SMALLEST_GROUP = 8  # below which the whole row is searched as fast


class Neighbours(NamedTuple):
    """The k nearest index points of m queries, nearest first and equally near ones in the order of their ids."""

    distances: Tensor  # [m, k], ascending
    ids: Tensor  # [m, k], int64


@torch.no_grad()
def nearest_neighbours(
    index: Tensor,
    k: int = 10,
    *,
    metric: DistanceName = "euclidean",
    queries: Tensor | None = None,
    include_self: bool = False,
) -> Neighbours:
    """The k points of index [n, d] nearest to each of the queries [m, d], or to each index point but itself.

    Exact, whatever lies near: float32 products propose candidates and float64 differences order them by (distance,
    id); a query whose list their error could have changed is searched again among more of them. Distances are
    float64: "euclidean", "sqeuclidean", "cosine" (1 - cos) and "dot" (-<x, y>). Points of any floating type are taken
    as they are. Without queries a point is left out of its own list by its position, so that its duplicates stay,
    unless `include_self`, which has no meaning for queries. Time 2 m n d flops; memory O((m + n) d), m k and a tile.

    Raises ValueError for k outside 1..n (n - 1 where points are left out), for what is no matrix or is empty, for
    dimensions that differ, and for rows that are not finite or, with cosines, zero: it names them and the tensor.

    Example:
        >>> import torch
        >>> index = torch.tensor([[0.0], [1.0], [3.0]])
        >>> nearest_neighbours(index, k=1).ids.flatten().tolist()
        [1, 0, 1]
        >>> nearest_neighbours(index, k=2, queries=torch.tensor([[2.5]])).distances.tolist()
        [[0.5, 1.5]]
    """
    require_one_of(metric, get_args(DistanceName), "metric")
    distances = PointDistances(index, queries, metric)
    exclude_self = queries is None and not include_self
    require_enough(k, distances.n, exclude_self)
    rows = torch.arange(distances.m, device=distances.device)
    return search(Ranking(distances), rows, k, exclude_self)


class Ranking:
    """An order of index points for each query by keys that grow with the distance; here the distances themselves.

    `scores` are cheap, and of all pairs; `keys` are exact, and of few. Points whose score is no smaller than a query's
    c-th smallest have keys of at least `beyond`, which is how a search knows that it may stop.
    """

    spare = 3  # candidates beyond k that settle nearly all lists
    twice = False  # whether twice as many as k are needed, because scores order candidates only roughly

    def __init__(self, distances: PointDistances) -> None:
        self.distances = distances

    def scores(self, rows: Tensor, columns: slice | Tensor) -> Tensor:
        """[r, c] of the queries `rows` and some of the index points, of any floating type."""
        return self.distances.keys(rows, columns)

    def keys(self, rows: Tensor, ids: Tensor, distances: Tensor) -> Tensor:
        """[r, c] float64 of the index points `ids` [r, c], whose distances [r, c] are known."""
        return distances

    def beyond(self, rows: Tensor, scores: Tensor, distances: Tensor) -> Tensor:
        """Lower bounds [r] of the keys of points that are no candidates, from the last candidates' scores [r].

        The distances [r, c] are those of the candidates.
        """
        return self.distances.bound(rows, scores)


def search(ranking: Ranking, rows: Tensor, k: int, exclude_self: bool) -> Neighbours:
    """Lists of the queries `rows` [r] by (key, id); with `exclude_self` the queries are the index points.

    What a few candidates beyond k leave in doubt is mostly which of many copies of a point are listed. These queries
    are searched again among distinct points. Copies have equal keys.
    """
    listed = k + exclude_self
    count = listed * (1 + ranking.twice) + ranking.spare
    found, doubtful = _proposed(ranking, rows, listed, count, None)
    if len(doubtful):
        places = DistinctPoints(ranking.distances.index)
        every = places.first if len(places.first) < ranking.distances.n else None
        nearest = _settled(ranking, rows[doubtful], min(listed, len(places.first)), _MORE * count, every)
        found.distances[doubtful], found.ids[doubtful] = places.expand(*nearest, listed)
    return without_own(found, rows, k) if exclude_self else found


def _settled(ranking: Ranking, rows: Tensor, k: int, count: int, among: Tensor | None) -> Neighbours:
    """Lists of k from `count` candidates and, where these leave doubt, from more and in the end from all.

    Candidates are the index points `among`, or all; the ids of the lists are numbers among them.
    """
    found, doubtful = _proposed(ranking, rows, k, count, among)
    if len(doubtful):
        again = _settled(ranking, rows[doubtful], k, _MORE * count, among)
        found.distances[doubtful], found.ids[doubtful] = again
    return found


def _proposed(ranking: Ranking, rows: Tensor, k: int, count: int, among: Tensor | None) -> tuple[Neighbours, Tensor]:
    """Lists of k from `count` candidates by their scores, and which lists could be others."""
    n = ranking.distances.n if among is None else len(among)
    count = min(n, count)
    parts = [_of_part(ranking, part, k, count, n, among) for part in torch.split(rows, max(1, _CANDIDATES // count))]
    found = Neighbours(*(torch.cat(of_parts) for of_parts in zip(*(part[0] for part in parts), strict=True)))
    return found, torch.cat([doubtful for _, doubtful in parts]).nonzero()[:, 0]


def _of_part(
    ranking: Ranking, rows: Tensor, k: int, count: int, n: int, among: Tensor | None
) -> tuple[Neighbours, Tensor]:
    """As `_proposed`, of few enough rows, and whether each list [r] is in doubt."""

    def block(part: slice, columns: slice) -> Tensor:
        return ranking.scores(rows[part], columns if among is None else among[columns])

    candidates = top_k(block, len(rows), n, count)
    ids = candidates.ids if among is None else among[candidates.ids]
    distances = ranking.distances.exact(rows, ids)
    found = ranked(ranking.keys(rows, ids, distances), candidates.ids, k)
    if count == n:
        return found, torch.zeros_like(rows, dtype=torch.bool)
    return found, found.distances[:, -1] >= ranking.beyond(rows, candidates.distances[:, -1], distances)


@torch.no_grad()
def top_k(block: Block, m: int, n: int, k: int, *, exclude_self: bool = False) -> Neighbours:
    """The k smallest entries of each row of an [m, n] matrix given tile by tile, by (value, id).

    `block(rows, columns)` answers with the tile [rows, columns], of any floating type on any device; it is not
    changed, and infinite entries are entries. `exclude_self` (m = n) leaves out the diagonal, which still must not be
    NaN. Values are of the tiles' type. Memory m k and one tile. Raises ValueError for k outside 1..n (n - 1 without
    the diagonal) and for NaN, naming the row.
    """
    require_enough(k, n, exclude_self)
    device = block(slice(0, 1), slice(0, 1)).device
    height = max(1, (_TILE if device.type == "cpu" else _TILE_ON_DEVICE) // min(n, _COLUMNS))
    with full_precision(device):
        bands = [_of_rows(block, slice(top, min(top + height, m)), n, k + exclude_self) for top in range(0, m, height)]
    found = Neighbours(*(torch.cat(parts) for parts in zip(*bands, strict=True)))
    return without_own(found, torch.arange(m, device=device), k) if exclude_self else found


def _of_rows(block: Block, rows: slice, n: int, k: int) -> Neighbours:
    """The k smallest of some rows: the best so far merged with those of tile after tile."""
    best: Neighbours | None = None
    for left in range(0, n, _COLUMNS):
        tile = block(rows, slice(left, min(left + _COLUMNS, n)))
        _require_numbers(tile, rows.start)
        values, columns = smallest(tile, min(k, tile.shape[1]))
        found = Neighbours(values, columns + left)
        best = found if best is None else _merge(best, found, k)
    assert best is not None
    return best


def _merge(first: Neighbours, second: Neighbours, k: int) -> Neighbours:
    """The k nearest of both; all ids of the second are above those of the first, so a stable sort keeps the order."""
    values, order = torch.cat([first.distances, second.distances], dim=1).sort(dim=1, stable=True)
    return Neighbours(values[:, :k], torch.cat([first.ids, second.ids], dim=1).gather(1, order[:, :k]))


def without_own(found: Neighbours, own: Tensor, k: int) -> Neighbours:
    """Lists of k from lists of k + 1: the query's own id [m] left out, or else the last."""
    order = (found.ids == own[:, None]).byte().sort(dim=1, stable=True).indices[:, :k]
    return Neighbours(found.distances.gather(1, order), found.ids.gather(1, order))


def ranked(distances: Tensor, ids: Tensor, k: int) -> Neighbours:
    """The k first of candidates [r, c] by (distance, id)."""
    ids, order = ids.sort(dim=1)
    values, order = distances.gather(1, order).sort(dim=1, stable=True)
    return Neighbours(values[:, :k].contiguous(), ids.gather(1, order[:, :k]))


def require_enough(k: int, n: int, exclude_self: bool) -> None:
    """Raise ValueError unless n points, or n - 1 others, have k nearest."""
    if not 1 <= k <= n - exclude_self:
        others = f"{n} points" + (", of which each has the others" if exclude_self else "")
        raise ValueError(f"k must be from 1 to {n - exclude_self}, but it is {k}: the index has {others}")


def _require_numbers(tile: Tensor, top: int) -> None:
    bad = tile.amin(1).isnan()
    if bool(bad.any()):
        raise ValueError(f"the distances of query {top + int(bad.nonzero()[0])} hold NaN")


def smallest(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns [r, k] of the k <= c smallest entries of each row of a tile [r, c], without NaN.

    Sorted by (value, column), and chosen by it as well where the k-th value occurs more often than it fits.
    """
    columns = tile.shape[1]
    values, chosen = _unordered(tile, min(k + 1, columns))
    if k < columns:
        tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
        values, chosen = values[:, :k], chosen[:, :k]
        if len(tied):
            chosen[tied] = _with_first_ties(tile[tied], values[tied], chosen[tied])
    chosen, order = chosen.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, stable=True)
    return values, chosen.gather(1, order)


def _with_first_ties(tile: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Columns [r, k] in which those of the largest of the ascending values are the first that hold it."""
    k, last = values.shape[1], values[:, -1:]
    below = (values < last).sum(1, keepdim=True)
    numbers = torch.arange(tile.shape[1], dtype=torch.int32, device=tile.device)
    first = _unordered(torch.where(tile == last, numbers, tile.shape[1]), k)[0].long()
    slots = torch.arange(k, device=tile.device) - below
    return torch.where(slots < 0, chosen, first.gather(1, slots.clamp(min=0)))


def _unordered(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries [r, k] of each row and their columns, ascending; any of those that tie with the last.

    The k smallest lie in the k groups of columns with the smallest minima. One vectorised pass finds these minima,
    so that the search itself reads a small part of the row.
    """
    rows, columns = tile.shape
    size = int((columns / k) ** 0.5)  # of a group: as many minima to search as members of the best groups
    if size < _SMALLEST_GROUP:
        values, order = tile.topk(k, dim=1, largest=False)
        return values, order
    groups = columns // size
    minima = tile[:, : groups * size].view(rows, size, groups).amin(1)
    best = minima.topk(k, dim=1, largest=False, sorted=False).indices
    members = torch.arange(0, groups * size, groups, device=tile.device)
    rest = torch.arange(groups * size, columns, device=tile.device)
    candidates = torch.cat([(best[:, None] + members[:, None]).flatten(1), rest.expand(rows, -1)], dim=1)
    values, order = tile.gather(1, candidates).topk(k, dim=1, largest=False)
    return values, candidates.gather(1, order)


class DistinctPoints:
    """The places of index points [n, d]: copies of a point share one, and a place is named by its first point.

    The k first points by (distance, id) stand at the k first places by (distance, first id).
    """

    def __init__(self, points: Tensor) -> None:
        self.first_copies = first_copies(points)  # [n], of each point's place
        self.first, place = torch.unique(self.first_copies, return_inverse=True)  # [places], ids of points
        self._copies = torch.bincount(place)
        self._start = self._copies.cumsum(0) - self._copies
        self._members = place.argsort(stable=True)

    def expand(self, distances: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances and ids [r, k] of points by (distance, id), from those of the min(k, all) first places."""
        size = max(1, _LISTED // (places.shape[1] * min(k, int(self._copies.max()))))
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
