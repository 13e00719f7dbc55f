"""Hubness: how unequally points are the nearest neighbours of others, beside what chance alone would give.

Radovanovic, Nanopoulos & Ivanovic 2010 (JMLR 11); Nielsen & Hansen 2024 (arXiv 2311.18364). A point is no neighbour of
itself. scikit-hubness, and with it the paper, counts it as its own first neighbour: ``include_self`` is for comparison
with their numbers, which are N_{k-1} + 1.
"""

from dataclasses import dataclass, replace

from numpy.typing import ArrayLike
from torch import Tensor

from likeness.measures.hubness_indices import HubnessIndices, HubRule, HubRuleName, indices_of
from likeness.measures.hubness_inputs import HubnessInputs, nearest_ids
from likeness.measures.hubness_null import null_bad_occurrence, null_histogram, null_indices
from likeness.measures.k_occurrence import asymmetry, bad_k_occurrence, count_histogram, k_occurrence
from likeness.measures.neighbours import DistanceName, Neighbours
from likeness.measures.thinned_queries import ThinnedEstimate, choose_queries, thinned_estimate

PRECOMPUTED = "precomputed"  # the metric in reports on neighbours that the caller found


@dataclass(frozen=True, kw_only=True, eq=False)
class HubnessReport(HubnessIndices):
    """The indices of a graph of neighbours, the counts that they come from, and their values under chance."""

    n: int  # index points
    m: int  # queries that were searched
    k: int
    metric: str
    in_sample: bool  # whether the queries are index points
    include_self: bool
    k_occurrence: Tensor  # [n] int64
    null: HubnessIndices  # for the same n, m and k
    thinned: ThinnedEstimate | None = None  # of all queries, where only a share of them was searched
    recall: float = 1.0  # share of the true neighbours that the search finds: 1 if exact, else measured
    warnings: tuple[str, ...] = ()

    @property
    def excess_skewness(self) -> float:
        """k-skewness above that of the null."""
        return self.k_skewness - self.null.k_skewness

    @property
    def robin_hood_ratio(self) -> float:
        """The Robin Hood index as a multiple of that of the null; 1 where both are 0."""
        return self.robin_hood / self.null.robin_hood if self.null.robin_hood else 1.0

    def top_hubs(self, count: int = 10) -> tuple[Tensor, Tensor]:
        """Positions [count] of the index points with the largest N, and N [count]; equal ones by position."""
        occurrences, ids = self.k_occurrence.sort(descending=True, stable=True)
        return ids[:count], occurrences[:count]

    def null_histogram(self) -> Tensor:
        """Expected number of points [C] with N = 0, 1, ... under the null, for figures."""
        return null_histogram(self.n, self.m, self.k, in_sample=self.in_sample, include_self=self.include_self)


def analyse_hubness(
    embeddings: Tensor | ArrayLike,
    k: int = 10,
    metric: DistanceName = "euclidean",
    queries: Tensor | ArrayLike | None = None,
    labels: Tensor | ArrayLike | None = None,
    include_self: bool = False,
    query_labels: Tensor | ArrayLike | None = None,
    neighbours: Neighbours | Tensor | ArrayLike | None = None,
    hub_factor: float = 2.0,
    hub_rule: HubRuleName = "multiple",
    query_fraction: float = 1.0,
    seed: int = 0,
    recall: float = 1.0,
) -> HubnessReport:
    """Hubness of index points among the k nearest neighbours of queries.

    All indices depend on n, m and k: compare them at equal ones, or by their distance from the null.

    Args:
        embeddings: [n, d] of the index, float16 to float64, NumPy's or torch's on any device.
        k: neighbours of each query.
        metric: by which they are near.
        queries: [m, d]; by default the index points, none of them its own neighbour.
        labels: [n] of any kind, for bad occurrence; with ``queries``, ``query_labels`` [m] belong to them.
        include_self: have each point in its own list, as scikit-hubness does.
        neighbours: lists that were found before, nearest first, [m, k] or wider. Nothing is searched then.
        hub_factor, hub_rule: see :class:`HubRule`; by default, hubs have N >= 2 k.
        query_fraction: search only this share of the queries, chosen by ``seed``. The indices are of these queries, as
            is the null; ``thinned`` estimates the skewness over all.
        recall: of the given neighbours.

    Raises ValueError, naming rows, for values that are not finite, rows of zeros under the cosine, n <= k, widths d
    or numbers of labels that do not fit, and given neighbours that are not k different index points, or hold the point
    itself without ``include_self``.
    """
    inputs = HubnessInputs.of(embeddings, queries, labels, query_labels)
    n, total = len(inputs.index), inputs.num_queries
    _require_neighbours(n, k)
    _require_compatible(include_self, queries is not None, neighbours is not None, query_fraction)
    source: str = metric if neighbours is None else PRECOMPUTED
    warnings = inputs.warnings(source)
    chosen = choose_queries(total, query_fraction, seed).to(inputs.index.device)
    if neighbours is None:
        ids = inputs.search(chosen, k, metric, include_self)
    else:
        ids = nearest_ids(neighbours, total, k).to(inputs.index.device)
    report = hubness_of_neighbours(
        ids,
        n,
        query_ids=chosen if inputs.queries is None else None,
        labels=inputs.labels,
        query_labels=None if inputs.query_labels is None else inputs.query_labels[chosen],
        include_self=include_self,
        hubs=HubRule(hub_rule, hub_factor),
    )
    thinned = None
    if query_fraction != 1:
        thinned = thinned_estimate(count_histogram(report.k_occurrence), len(chosen), total)
    return replace(report, metric=source, recall=recall, warnings=warnings, thinned=thinned)


def hubness_of_neighbours(
    ids: Tensor,
    n: int,
    *,
    query_ids: Tensor | None = None,
    labels: Tensor | None = None,
    query_labels: Tensor | None = None,
    include_self: bool = False,
    hubs: HubRule | None = None,
) -> HubnessReport:
    """Hubness of n index points in given lists of neighbours ids [m, k], without any embeddings.

    Args:
        query_ids: [m] ascending, the index points that the queries are; None where they are others.
        labels, query_labels: [n] and [m], numbers 0, 1, ..., for bad occurrence.
        include_self: whether lists hold the point itself. Raises ValueError if one does and this is false.
        hubs: which points are hubs.
    """
    own = query_ids is not None
    if query_ids is not None and not include_self:
        _require_others(ids, query_ids)
    counts, (m, k) = k_occurrence(ids, n), ids.shape
    report = hubness_of_counts(counts, m, k, in_sample=own, include_self=include_self, hubs=hubs)
    if own and m == n:
        report = replace(report, asymmetry=asymmetry(ids))
    if labels is None or query_labels is None:
        return report
    bad = int(bad_k_occurrence(ids, labels, query_labels).sum()) / ids.numel()
    null = null_bad_occurrence(labels, query_labels, k, in_sample=own, include_self=include_self)
    return replace(report, bad_occurrence=bad, null=replace(report.null, bad_occurrence=null))


def hubness_of_counts(
    counts: Tensor,
    m: int,
    k: int,
    *,
    in_sample: bool = False,
    include_self: bool = False,
    hubs: HubRule | None = None,
) -> HubnessReport:
    """Hubness from the k-occurrence [n] alone, such as the sum of the counts of many shards of m queries.

    Raises ValueError unless the counts add up to k m.
    """
    n, rule = len(counts), hubs or HubRule()
    _require_neighbours(n, k)
    if m < 1 or int(counts.sum()) != k * m:
        raise ValueError(f"counts of {m} queries with {k} neighbours each must sum to {k * m}, not {int(counts.sum())}")
    indices = indices_of(count_histogram(counts), k, rule, include_self)
    return HubnessReport(
        **vars(indices),
        n=n,
        m=m,
        k=k,
        metric=PRECOMPUTED,
        in_sample=in_sample,
        include_self=include_self,
        k_occurrence=counts,
        null=null_indices(n, m, k, in_sample=in_sample, include_self=include_self, hubs=rule),
    )


def _require_neighbours(n: int, k: int) -> None:
    if not 1 <= k < n:
        raise ValueError(f"k must be at least 1 and below the number of index points, but k is {k} and there are {n}")


def _require_compatible(include_self: bool, has_queries: bool, has_neighbours: bool, query_fraction: float) -> None:
    if include_self and has_queries:
        raise ValueError("include_self is for in-sample hubness, but there are queries")
    if query_fraction != 1 and (has_neighbours or include_self):
        raise ValueError("query_fraction is for a search without include_self, not for given neighbours")


def _require_others(ids: Tensor, query_ids: Tensor) -> None:
    """Raise ValueError if a point is in its own list."""
    own = (ids == query_ids[:, None]).any(1)
    if bool(own.any()):
        point = int(query_ids[own][0])
        raise ValueError(f"point {point} is among its own neighbours, as are {int(own.sum())}: set include_self")
