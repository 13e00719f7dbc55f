"""Mutual proximity: how near two points are to each other among all their distances."""

from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.measures.distance_moments import DistanceMoments, IndexSums, distance_moments
from likeness.measures.distance_tiles import DistanceTiles, Prepared
from likeness.measures.neighbours import DistanceName, Neighbours, nearest_neighbours
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
    """1 - P(D_q > d, D_x > d): small where q and x are near to each other by the measure of both. Schnitzer et al. 2012.

    `variant`: "normal" and "gamma" take D_q and D_x for independent, of that law with the moments of the point's
    distances; "rank" takes them for independent, of their empirical distributions; "joint" counts points. The laws'
    `moments` are over all distances, or over those to the `stored` nearest neighbours ("graph"), which is closer to
    local scaling. `candidates`: re-rank only so many nearest points; None re-ranks all, exactly and in bounded memory.
    "rank" and "joint" pass over all pairs of the index for every call, "joint" with work c^2 d for c candidates.
    """

    name = "mutual_proximity"

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
        self._sums = IndexSums.of(self._tiles.index.vectors) if self.moments == "all" else None
        own = torch.arange(len(self.index), device=self.index.device)
        self._own_moments = self._moments(None, self._tiles.index, own)
        self._proximity = _LAWS[self.variant](self._tiles, self._own_moments)

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        rows = self._rows(queries)
        if self.candidates is None:
            keys, ids = search(self._proximity, rows, k)
        elif k > self.candidates:
            raise ValueError(f"k is {k}, but {self.name} re-ranks {self.candidates} candidates only")
        else:
            count = min(self.candidates, self._proximity.available(rows))
            found = self._proximity.candidates(rows, count, nearest=True)
            keys, ids = found.keys[:, :k], found.ids[:, :k]
        return Neighbours(self._proximity.distance(keys).to(self.index.dtype), ids)

    def _distances(self, queries: Tensor | None) -> Tensor:
        rows = self._rows(queries)
        found = self._proximity.candidates(rows, self._proximity.available(rows), nearest=True)
        dense = self.index.new_full((len(found.ids), len(self.index)), torch.inf)
        return dense.scatter_(1, found.ids, self._proximity.distance(found.keys).to(dense.dtype))

    def _rows(self, queries: Tensor | None) -> Rows:
        if queries is None:
            points, own = self._tiles.index, torch.arange(len(self.index), device=self.index.device)
            return Rows(points, own, None if self.variant in _COUNTS else self._own_moments)
        points = self._tiles.prepare(queries, "queries")
        return Rows(points, None, None if self.variant in _COUNTS else self._moments(queries, points, None))

    def _moments(self, queries: Tensor | None, points: Prepared, own: Tensor | None) -> DistanceMoments:
        if self._sums is not None:
            return distance_moments(self._tiles, self._sums, points, own)
        found = nearest_neighbours(self.index, self.stored, metric=self.metric, queries=queries)
        return DistanceMoments.of(found.distances)
