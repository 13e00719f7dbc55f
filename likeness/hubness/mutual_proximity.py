"""Mutual proximity: how near two points are to each other among all their distances.

What the variants of mutual proximity share: who asks, whom they may get, and how many candidates suffice.

Mutual proximity by counting: of index points that are farther from both (joint), or from each of the two (rank).

A point that is no candidate has all candidates nearer to the row: with c of them, at most n - c can be farther.

Mutual proximity from a law of each point's distances, normal or gamma, in logarithms of survival functions.

The key is -log p_q - log p_x. It is at least the larger of its terms, and ranking by the larger one needs no special
function: it is ranking by the smaller of two z-scores. So tiles yield candidates by z-scores, the special functions
are evaluated in float64 for the candidates alone, and the last candidate's z-score bounds the keys of all others.
"""

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import HubnessReduction
from likeness.neighbours.distances import PointDistances
from likeness.neighbours.exact import DistanceName, Neighbours, nearest_neighbours, top_k
from likeness.neighbours.tiles import DistanceMoments, DistanceTiles, IndexSums, Prepared, distance_moments, fill_own

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


_FLOOR = 1e-6  # of the distances' root mean square: a standard deviation of 0 becomes a step that is so narrow


class LawProximity(Proximity):
    """1 - p_q(d) p_x(d), where p is the survival function of a law with the moments of each point's distances."""

    spare = 4

    def __init__(self, tiles: DistanceTiles, moments: DistanceMoments) -> None:
        super().__init__(tiles)
        size = (moments.mean.square() + moments.variance).mean().sqrt()
        self._narrowest = _FLOOR * size.clamp(min=torch.finfo(tiles.index.squares.dtype).tiny ** 0.25)
        self.moments = self.guarded(moments)

    def guarded(self, moments: DistanceMoments) -> DistanceMoments:
        """Moments with a positive variance: where all distances are equal, p steps from 1 to 0 at them."""
        return DistanceMoments(moments.mean, moments.variance.clamp(min=self._narrowest.square()))

    def candidates(self, rows: Rows, count: int, *, nearest: bool = False) -> Candidates:
        """As the base class says; by z-scores unless the nearest are wanted."""
        assert rows.moments is not None
        own = self.guarded(rows.moments)
        found = self.nearest(rows, count) if nearest else self._by_z_score(rows, own, count)
        distances = rows.exact.exact(rows.numbers, found.ids)
        keys = self.minus_log_survival(distances, _columns(own))
        keys += self.minus_log_survival(distances, DistanceMoments(*(moment[found.ids] for moment in self.moments)))
        keys, order = keys.sort(dim=1, stable=True)  # where keys underflow to a tie, the z-scores' order stays
        if nearest or count == self.available(rows):
            beyond = torch.full_like(keys[:, 0], torch.inf)
        else:
            beyond = self.at_least(-found.distances[:, -1].double(), own)
        return Candidates(keys, found.ids.gather(1, order), beyond)

    @staticmethod
    def distance(keys: Tensor) -> Tensor:
        """1 - p_q p_x."""
        return -torch.expm1(-keys)

    def _by_z_score(self, rows: Rows, own: DistanceMoments, count: int) -> Neighbours:
        """Ids by the larger of minus the two z-scores, which stands for the distance."""
        of_x, of_q = self._scaling(self.moments), self._scaling(own)

        def block(r: slice, columns: slice) -> Tensor:
            bent = self.bend(self.tiles.tile(rows.points.take(r), columns))
            z = (bent - of_x[0][columns]).mul_(of_x[1][columns])
            bent.sub_(of_q[0][r, None]).mul_(of_q[1][r, None])
            return self.without_self(torch.maximum(bent, z, out=bent), rows, r, columns)

        return top_k(block, len(own.mean), self.size, count)

    def _scaling(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        location, spread = self.z_score(moments)
        dtype = self.tiles.index.squares.dtype
        return location.to(dtype), spread.reciprocal().to(dtype)

    @abstractmethod
    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Location and spread: (location - bend(d)) / spread falls with d and nearly has p = Phi of it."""

    @staticmethod
    @abstractmethod
    def bend(distances: Tensor) -> Tensor:
        """An increasing function of distances under which the law is nearly normal, in place."""

    @staticmethod
    @abstractmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log p(d) in nats."""

    @abstractmethod
    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """A lower bound [r] of the keys of pairs whose smaller z-score is at most z [r]."""


class NormalProximity(LawProximity):
    """p = 1 - Phi((d - mean) / standard deviation). Schnitzer et al. 2012."""

    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        return moments.mean, moments.variance.sqrt()

    @staticmethod
    def bend(distances: Tensor) -> Tensor:
        """As it is."""
        return distances

    @staticmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log Phi((mean - d) / standard deviation)."""
        return _minus_log_phi((moments.mean - distances) / moments.variance.sqrt())

    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """-log Phi(z), of one of the two terms."""
        return _minus_log_phi(z)


class GammaProximity(LawProximity):
    """p = Q(mean^2 / variance, d mean / variance), the regularised upper incomplete gamma function.

    The cube root of a gamma variable is nearly normal (Wilson & Hilferty 1931), hence the z-scores.
    """

    def guarded(self, moments: DistanceMoments) -> DistanceMoments:
        """Positive means as well."""
        return DistanceMoments(moments.mean.clamp(min=self._narrowest), super().guarded(moments).variance)

    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Those of the cube root, (d / scale)^(1/3)."""
        ninth = moments.variance / (9 * moments.mean.square())
        root = moments.mean.pow(1 / 3)
        return root * (1 - ninth), root * ninth.sqrt()

    @staticmethod
    def bend(distances: Tensor) -> Tensor:
        """The cube root."""
        return distances.clamp_(min=0).pow_(1 / 3)

    @staticmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log Q, from the lower function where that is the smaller one."""
        shape = moments.mean.square() / moments.variance
        x = distances.clamp(min=0) * moments.mean / moments.variance
        shape = shape.expand_as(x)
        lower = torch.special.gammainc(shape, x)
        return torch.where(lower < 0.5, -torch.log1p(-lower), -torch.special.gammaincc(shape, x).log())

    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """-log Q where the z-score is z, of the row's shape and the index's: among these it is least at an extreme."""
        smallest, largest = (self.moments.variance / self.moments.mean.square()).aminmax()
        ratio = torch.stack([smallest.expand_as(z), largest.expand_as(z), own.variance / own.mean.square()])
        x = (1 - ratio / 9 - z * ratio.sqrt() / 3).clamp(min=0).pow(3)  # d / mean
        return self.minus_log_survival(x, DistanceMoments(torch.ones_like(x), ratio)).amin(0)


def _minus_log_phi(z: Tensor) -> Tensor:
    survival: Tensor = torch.special.log_ndtr(z)
    return survival.neg_()


def _columns(moments: DistanceMoments) -> DistanceMoments:
    return DistanceMoments(moments.mean[:, None], moments.variance[:, None])


Variant = Literal["normal", "gamma", "joint", "rank"]
MomentSet = Literal["all", "graph"]

_LAWS: dict[str, type[LawProximity]] = {"normal": NormalProximity, "gamma": GammaProximity}
_COUNTS = {"joint": JointProximity, "rank": RankProximity}


class MutualProximity(HubnessReduction):
    """1 - P(D_q > d, D_x > d): small where d is small among the distances of both q and x. Schnitzer et al. 2012.

    `variant`: "normal" and "gamma" take D_q and D_x for independent, of that law with the moments of the point's
    distances; "rank" takes them for independent, of their empirical distributions; "joint" counts points. The laws'
    `moments` are over all distances, or over those to the `stored` nearest neighbours ("graph"), which is closer to
    local scaling. `candidates`: re-rank only so many nearest points; None re-ranks all, exactly and in bounded memory.
    "rank" and "joint" pass over all pairs of the index for every call, "joint" with work c^2 d for c candidates.
    """

    name = "mutual_proximity"
    turns_of_duplicates = True

    def __init__(
        self,
        variant: Variant = "normal",
        metric: DistanceName = "euclidean",
        moments: MomentSet = "all",
        stored: int = 100,
        candidates: int | None = None,
    ) -> None:
        require_one_of(variant, get_args(Variant), f"variant of {self.name}")
        require_one_of(metric, get_args(DistanceName), f"metric of {self.name}")
        require_one_of(moments, get_args(MomentSet), f"moments of {self.name}")
        require_positive(self.name, stored=stored)
        require_positive(self.name, candidates=candidates)
        if moments == "graph" and variant in _COUNTS:
            raise ValueError(f"{self.name}: variant {variant!r} has no moments, so moments='graph' has no meaning")
        if variant == "gamma" and metric == "dot":
            raise ValueError(f"{self.name}: a gamma law has no negative values, so metric 'dot' has no meaning")
        self.variant, self.metric, self.moments = variant, metric, moments
        self.stored, self.candidates = stored, candidates

    def _fit(self) -> None:
        self._tiles = DistanceTiles(self.index, self.metric)
        self._proximity: Proximity
        if self.variant in _COUNTS:
            self._proximity = _COUNTS[self.variant](self._tiles)
            return
        if self.moments == "graph" and self.stored >= len(self.index):
            raise ValueError(f"{self.name}: stored is {self.stored}, but each point has {len(self.index) - 1} others")
        self._sums = IndexSums.of(self._tiles.index.vectors) if self.moments == "all" else None
        own = torch.arange(len(self.index), device=self.index.device)
        self._own_moments = self._moments(None, self._tiles.index, own)
        self._proximity = _LAWS[self.variant](self._tiles, self._own_moments)

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        if self.candidates is not None and k > self.candidates:
            raise ValueError(f"k is {k}, but {self.name} re-ranks {self.candidates} candidates only")
        keys, ids = search(self._proximity, self._rows(queries), k, self.candidates)
        return Neighbours(self._proximity.distance(keys), ids)

    def _distances(self, queries: Tensor | None) -> Tensor:
        rows = self._rows(queries)
        found = self._proximity.candidates(rows, self._proximity.available(rows), nearest=True)
        dense = self.index.new_full((len(found.ids), len(self.index)), torch.inf)
        return dense.scatter_(1, found.ids, self._proximity.distance(found.keys).to(dense.dtype))

    def _rows(self, queries: Tensor | None) -> Rows:
        exact = PointDistances(self.index, queries, self.metric)
        numbers = torch.arange(exact.m, device=exact.device)
        if queries is None:
            moments = None if self.variant in _COUNTS else self._own_moments
            return Rows(exact, numbers, self._tiles.index, numbers, moments)
        points = self._tiles.prepare(queries, "queries")
        moments = None if self.variant in _COUNTS else self._moments(queries, points, None)
        return Rows(exact, numbers, points, None, moments)

    def _moments(self, queries: Tensor | None, points: Prepared, own: Tensor | None) -> DistanceMoments:
        if self._sums is not None:
            return distance_moments(self._tiles, self._sums, points, own)
        found = nearest_neighbours(self.index, self.stored, metric=self.metric, queries=queries)
        return DistanceMoments.of(found.distances)
