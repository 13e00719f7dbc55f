"""Mutual proximity: how near two points are to each other among all their distances. Schnitzer et al. 2012.

Its variants are rankings whose keys grow with the distance of a pair: functions of how many points are as near to the
one and to the other (`proximity_counts`), or of laws of their distances (`proximity_laws`).
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.proximity_counts import CountProximity, JointProximity, RankProximity
from likeness.hubness.proximity_laws import GammaProximity, LawProximity, NormalProximity
from likeness.hubness.reduction_base import HubnessReduction
from likeness.neighbours.distances import DistanceName, PointDistances
from likeness.neighbours.exact import Neighbours, nearest_neighbours, ranked, search
from likeness.neighbours.moments import DistanceMoments, distance_moments

Variant = Literal["normal", "gamma", "joint", "rank"]
MomentSet = Literal["all", "graph"]

_LAWS: dict[str, type[LawProximity]] = {"normal": NormalProximity, "gamma": GammaProximity}
_COUNTS = {"joint": JointProximity, "rank": RankProximity}
_PAIRS = 2**22  # of rows and candidates at a time


class MutualProximity(HubnessReduction):
    """1 - P(D_q > d, D_x > d): small where d is small among the distances of both q and x. Schnitzer et al. 2012.

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
        require_positive(self.name, stored=stored)
        require_positive(self.name, candidates=candidates)
        if moments == "graph" and variant in _COUNTS:
            raise ValueError(f"{self.name}: variant {variant!r} has no moments, so moments='graph' has no meaning")
        if variant == "gamma" and metric == "dot":
            raise ValueError(f"{self.name}: a gamma law has no negative values, so metric 'dot' has no meaning")
        self.variant, self.moments = variant, moments
        self.metric: DistanceName = metric
        self.stored, self.candidates = stored, candidates

    def _fit(self) -> None:
        if self.moments == "graph" and self.stored >= len(self.index):
            raise ValueError(f"{self.name}: stored is {self.stored}, but each point has {len(self.index) - 1} others")
        if self.variant in _LAWS:
            own = self._moments_of(None)
            self._own_moments = DistanceMoments(*map(self._of_first_copies, own))

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        ranking = self._ranking(queries)
        rows = torch.arange(ranking.distances.m, device=self.index.device)
        if self.candidates is None:
            found = search(ranking, rows, k, queries is None)
        else:
            if k > self.candidates:
                raise ValueError(f"k is {k}, but {self.name} re-ranks {self.candidates} candidates only")
            count = min(self.candidates, len(self.index) - (queries is None))
            nearest = nearest_neighbours(self.index, count, metric=self.metric, queries=queries)
            found = ranked(ranking.keys(rows, nearest.ids, nearest.distances), nearest.ids, k)
        return Neighbours(ranking.distance(found.distances), found.ids)

    def _distances(self, queries: Tensor | None) -> Tensor:
        ranking = self._ranking(queries)
        rows = torch.arange(ranking.distances.m, device=self.index.device)
        every = torch.arange(len(self.index), device=self.index.device)
        dense = self.index.new_empty(len(rows), len(every))
        for part in torch.split(rows, max(1, _PAIRS // len(every))):
            ids = every.expand(len(part), -1)
            dense[part] = ranking.distance(ranking.keys(part, ids, ranking.distances.exact(part, ids))).to(dense.dtype)
        return dense

    def _ranking(self, queries: Tensor | None) -> LawProximity | CountProximity:
        distances = PointDistances(self.index, queries, self.metric)
        in_sample = queries is None
        if self.variant in _COUNTS:
            return _COUNTS[self.variant](distances, PointDistances(self.index, None, self.metric), in_sample)
        of_queries = self._own_moments if queries is None else self._moments_of(queries)
        return _LAWS[self.variant](distances, self._own_moments, of_queries)

    def _moments_of(self, queries: Tensor | None) -> DistanceMoments:
        """Of queries' distances, or of index points', in the chosen set."""
        if self.moments == "all":
            return distance_moments(PointDistances(self.index, queries, self.metric), in_index=queries is None)
        found = nearest_neighbours(self.index, self.stored, metric=self.metric, queries=queries)
        return DistanceMoments.of(found.distances)
