"""The hubness of points, as the command measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.hubness.analysis import HubnessReport, analyse_hubness
from likeness.hubness.indices import HubRuleName, bad_k_occurrence
from likeness.neighbours.approximate import approximate_neighbours
from likeness.neighbours.distances import row_lengths
from likeness.neighbours.exact import DistanceName, nearest_neighbours, without_own
from likeness.progress import tracked
from scripts.hubness.points import Points

QUERIES = 4096  # searched between two steps of the progress bar


@dataclass(frozen=True)
class Search:
    """How neighbours are found, and which of them are hubs."""

    k: int = 10
    metric: DistanceName = "euclidean"
    methods_metric: DistanceName | None = None  # what methods are told; None leaves each its own
    include_self: bool = False
    approximate: bool = False
    query_fraction: float = 1.0
    seed: int = 0
    hub_rule: HubRuleName = "multiple"
    hub_factor: float = 2.0

    def __post_init__(self) -> None:
        if self.query_fraction != 1 and self.approximate:
            raise ValueError("--query_fraction searches few queries exactly: leave --approximate out")


class Found(NamedTuple):
    """Neighbours [m, k] of all queries, nearest first, and the share of the true ones that they are."""

    ids: Tensor
    recall: float


@dataclass(frozen=True)
class Analysis:
    """The report on an index and what is known of its points."""

    points: Points
    queries: Points | None
    report: HubnessReport
    bad: Tensor | None  # [n] int64, how often each point is a neighbour of a query with another label

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the texts, then of the embeddings."""
        return self.points.warnings + (self.queries.warnings if self.queries else ()) + self.report.warnings


def analyse(points: Points, queries: Points | None, search: Search) -> Analysis:
    """Hubness of the points among their own neighbours or, where there are queries, among those of the queries.

    Raises ValueError for what cannot be measured, naming file and rows.
    """
    require_comparable(points, queries, search)
    if search.query_fraction != 1:
        return Analysis(points, queries, report_on(points, queries, search, None), None)
    found = find_neighbours(points, queries, search)
    report = replace(report_on(points, queries, search, found.ids, found.recall), metric=search.metric)
    return Analysis(points, queries, report, bad_counts(points, queries, found.ids))


def require_comparable(points: Points, queries: Points | None, search: Search) -> None:
    """Raise ValueError, naming files, for widths that differ, too few points, and zeros under the cosine."""
    if queries is not None and queries.vectors.shape[1] != points.vectors.shape[1]:
        widths = f"{queries.vectors.shape[1]} dimensions, but those of {points.source} {points.vectors.shape[1]}"
        raise ValueError(f"embeddings of {queries.source} have {widths}")
    if not 1 <= search.k < len(points):
        raise ValueError(
            f"--k must be at least 1 and below the {len(points)} points of {points.source}, got {search.k}"
        )
    if search.metric == "cosine":
        for part in (points, queries):
            if part is not None:
                row_lengths(part.vectors, part.source)


def find_neighbours(points: Points, queries: Points | None, search: Search) -> Found:
    """The k nearest index points of every query: exact, or by FAISS with the recall that was measured."""
    asked = None if queries is None else queries.vectors
    if search.approximate:
        found, recall = approximate_neighbours(
            points.vectors,
            search.k,
            metric=search.metric,
            queries=asked,
            include_self=search.include_self,
            seed=search.seed,
        )
        return Found(found.ids, recall)
    every = torch.arange(len(points if queries is None else queries), device=points.vectors.device)
    blocks = [_block(points.vectors, asked, rows, search) for rows in tracked(every.split(QUERIES), "searching")]
    return Found(torch.cat(blocks), 1.0)


def _block(index: Tensor, queries: Tensor | None, rows: Tensor, search: Search) -> Tensor:
    """Neighbours [r, k] of some of the queries, or of index points without themselves."""
    own = queries is None and not search.include_self
    asked = index if queries is None else queries
    found = nearest_neighbours(index, search.k + own, metric=search.metric, queries=asked[rows])
    return without_own(found, rows, search.k).ids if own else found.ids


def report_on(
    points: Points, queries: Points | None, search: Search, ids: Tensor | None, recall: float = 1.0
) -> HubnessReport:
    """The report on given neighbours [m, k] or wider, or on those that the search finds."""
    labels, query_labels = known_labels(points, queries)
    return analyse_hubness(
        points.vectors,
        search.k,
        metric=search.metric,
        queries=None if queries is None else queries.vectors,
        labels=labels,
        query_labels=query_labels,
        include_self=search.include_self,
        neighbours=ids,
        hub_rule=search.hub_rule,
        hub_factor=search.hub_factor,
        query_fraction=search.query_fraction,
        seed=search.seed,
        recall=recall,
    )


def known_labels(points: Points, queries: Points | None) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Labels of the points and, where there are other queries, of these; of both or of none."""
    if queries is None:
        return points.labels, None
    known = points.labels is not None and queries.labels is not None
    return (points.labels, queries.labels) if known else (None, None)


def bad_counts(points: Points, queries: Points | None, ids: Tensor) -> Tensor | None:
    """How often each point [n] is a neighbour of queries with another label than its own; None without labels."""
    labels, query_labels = known_labels(points, queries)
    if labels is None:
        return None
    number = {name: position for position, name in enumerate(sorted({*labels, *(query_labels or ())}))}
    own, asked = ([number[name] for name in part] for part in (labels, query_labels or labels))
    return bad_k_occurrence(ids, torch.tensor(own, device=ids.device), torch.tensor(asked, device=ids.device))
