"""Hubness: how unequally points are the nearest neighbours of others, beside what chance alone would give.

Radovanovic, Nanopoulos & Ivanovic 2010 (JMLR 11); Nielsen & Hansen 2024 (arXiv 2311.18364). A point is no neighbour of
itself. scikit-hubness, and with it the paper, counts it as its own first neighbour: ``include_self`` is for comparison
with their numbers, which are N_{k-1} + 1. What is suspicious of embeddings is warned of, and they are measured.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likeness.hubness.indices import (
    HubnessIndices,
    HubRule,
    HubRuleName,
    asymmetry,
    bad_k_occurrence,
    count_histogram,
    indices_of,
    k_occurrence,
)
from likeness.hubness.null import (
    ThinnedEstimate,
    choose_queries,
    null_bad_occurrence,
    null_histogram,
    null_indices,
    thinned_estimate,
)
from likeness.neighbours.distances import as_points, as_tensor, first_rows, row_lengths
from likeness.neighbours.exact import DistanceName, Neighbours, nearest_neighbours
from likeness.numerics import FeatureMoments, first_copies


def row_warnings(embeddings: Tensor, name: str, metric: str) -> list[str]:
    """Rows of zeros and duplicates among finite embeddings [N, D].

    Raises ValueError for rows of zeros under the cosine, which they do not have.
    """
    if metric == "cosine":
        row_lengths(embeddings, name)
    zero, repeated = zero_rows(embeddings), repeated_rows(embeddings)
    warnings = [f"{len(zero):,} rows of {name} are zero: {first_rows(zero)}"] if len(zero) else []
    if len(repeated):
        warnings.append(f"{len(repeated):,} rows of {name} repeat an earlier one: {first_rows(repeated)}")
    return warnings


def dimension_warnings(embeddings: Tensor, name: str) -> list[str]:
    """Dimensions that are constant over the rows [N, D]."""
    dead = dead_dimensions(embeddings)
    return [f"{len(dead):,} dimensions of {name} are constant: {first_rows(dead)}"] if len(dead) else []


def zero_rows(embeddings: Tensor) -> Tensor:
    """Positions of the rows of zeros, ascending."""
    return (embeddings == 0).all(1).nonzero().flatten()


def dead_dimensions(embeddings: Tensor) -> Tensor:
    """The dimensions that do not vary over the rows [N, D], ascending (:meth:`FeatureMoments.live`)."""
    return (~FeatureMoments.of(embeddings).live()).nonzero().flatten()


def repeated_rows(embeddings: Tensor) -> Tensor:
    """Positions of the rows [N, D] that equal an earlier row, ascending."""
    positions = torch.arange(len(embeddings), device=embeddings.device)
    return positions[first_copies(embeddings) < positions]


@dataclass(frozen=True, eq=False)
class HubnessInputs:
    """Index points, and queries where these are others than the points; both finite and of one width, d."""

    index: Tensor  # [n, d]
    queries: Tensor | None  # [m, d]
    labels: Tensor | None  # [n] numbers 0, 1, ...
    query_labels: Tensor | None  # [m]

    @classmethod
    def of(
        cls,
        embeddings: Tensor | ArrayLike,
        queries: Tensor | ArrayLike | None,
        labels: Tensor | ArrayLike | None,
        query_labels: Tensor | ArrayLike | None,
    ) -> Self:
        """Tensors on the embeddings' device. Raises ValueError where rows or sizes are wrong."""
        index = as_points(embeddings, "embeddings")
        if queries is None:
            if query_labels is not None:
                raise ValueError("query_labels belong to queries, of which there are none")
            numbers = _numbered({"labels": (labels, len(index))}, index.device)
            return cls(index, None, *(numbers * 2))
        asked = as_points(queries, "queries").to(index.device)
        if asked.shape[1] != index.shape[1]:
            raise ValueError(f"queries have {asked.shape[1]} dimensions, but the embeddings {index.shape[1]}")
        dtype = torch.promote_types(index.dtype, asked.dtype)
        both = {"labels": (labels, len(index)), "query_labels": (query_labels, len(asked))}
        return cls(index.to(dtype), asked.to(dtype), *_numbered(both, index.device))

    @property
    def num_queries(self) -> int:
        """m."""
        return len(self.index if self.queries is None else self.queries)

    def warnings(self, metric: str) -> tuple[str, ...]:
        """What is suspicious of the rows; raises ValueError for rows of zeros under the cosine."""
        found = row_warnings(self.index, "embeddings", metric) + dimension_warnings(self.index, "embeddings")
        if self.queries is None:
            return tuple(found)
        if torch.equal(self.queries, self.index):
            found.append("queries equal the embeddings, so that each is its own neighbour; leave them out")
        return (*found, *row_warnings(self.queries, "queries", metric))

    def search(self, chosen: Tensor, k: int, metric: DistanceName, include_self: bool) -> Tensor:
        """Ids [s, k] of the neighbours of the queries at the positions ``chosen`` [s]."""
        if len(chosen) == self.num_queries:
            return nearest_neighbours(self.index, k, metric=metric, queries=self.queries, include_self=include_self).ids
        if self.queries is not None:
            return nearest_neighbours(self.index, k, metric=metric, queries=self.queries[chosen]).ids
        # One neighbour more, because each of these points may find itself.
        ids = nearest_neighbours(self.index, k + 1, metric=metric, queries=self.index[chosen]).ids
        last = (ids == chosen[:, None]).to(torch.uint8).sort(dim=1, stable=True).indices
        return ids.gather(1, last)[:, :k]


def nearest_ids(neighbours: Neighbours | Tensor | ArrayLike, queries: int, k: int) -> Tensor:
    """The first k ids [m, k] of given lists, sorted by distance if they come with distances that are not.

    Raises ValueError unless there is a list for each of m queries, of at least k. The caller's tensors stay as they
    are.
    """
    ids = neighbours.ids if isinstance(neighbours, Neighbours) else as_tensor(neighbours)
    if ids.ndim != 2 or len(ids) != queries or ids.shape[1] < k:
        raise ValueError(f"neighbours of {queries} queries must be [{queries}, {k}] or wider, got {list(ids.shape)}")
    if isinstance(neighbours, Neighbours) and bool((neighbours.distances.diff(dim=1) < 0).any()):
        ids = ids.gather(1, neighbours.distances.argsort(dim=1, stable=True))
    return ids[:, :k]


def _numbered(
    labels: dict[str, tuple[Tensor | ArrayLike | None, int]], device: torch.device
) -> tuple[Tensor | None, ...]:
    """Labels of any kind as numbers 0, 1, ..., the same number for the same label; all of them or none are given."""
    missing = [name for name, (values, _) in labels.items() if values is None]
    if len(missing) == len(labels):
        return (None,) * len(labels)
    if missing:
        raise ValueError(f"bad occurrence needs the labels of points and of queries; {missing[0]} are missing")
    arrays = [_label_array(name, values, size) for name, (values, size) in labels.items()]
    numbers = np.unique(np.concatenate(arrays), return_inverse=True)[1]
    return torch.split(torch.as_tensor(numbers, device=device), [len(array) for array in arrays])


def _label_array(name: str, values: Tensor | ArrayLike | None, size: int) -> np.ndarray:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (size,):
        raise ValueError(f"{name} must be [{size}], one for each row, got {list(array.shape)}")
    return array


PRECOMPUTED = "precomputed"  # the metric in reports on neighbours that the caller found


@dataclass(frozen=True, kw_only=True, eq=False)
class HubnessReport(HubnessIndices):
    """The indices of a graph of neighbours, the counts that they come from, and their values under chance.

    Example:
        >>> import torch
        >>> report = analyse_hubness(torch.arange(5.0)[:, None], k=1)
        >>> report.k_occurrence.tolist(), report.antihub_rate
        ([1, 2, 1, 1, 0], 0.2)
        >>> report.null.antihub_rate == (3 / 4) ** 4
        True
    """

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

    Example:
        >>> import torch
        >>> points = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
        >>> report = analyse_hubness(points, k=5)
        >>> f"{report.robin_hood:.2f} where chance gives {report.null.robin_hood:.2f}"
        '0.46 where chance gives 0.17'
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
