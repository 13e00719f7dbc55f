"""Mutual proximity: how near two points are to each other among all their distances."""

from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.measures.distance_moments import DistanceMoments, IndexSums, distance_moments
from likeness.measures.distance_tiles import DistanceTiles, Prepared
from likeness.measures.neighbours import DistanceName, Neighbours, nearest_neighbours
from likeness.measures.point_distances import PointDistances
from likeness.measures.proximity_candidates import Proximity, Rows, search
from likeness.measures.proximity_counts import JointProximity, RankProximity
from likeness.measures.proximity_laws import GammaProximity, LawProximity, NormalProximity
from likeness.measures.reduction_base import HubnessReduction, at_least_one
from likeness.measures.samples import require_one_of

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
        at_least_one(f"stored of {self.name}", stored)
        if candidates is not None:
            at_least_one(f"candidates of {self.name}", candidates)
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
