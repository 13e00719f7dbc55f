"""Hubness as a metric: the same numbers in any order of the samples, with padding, and on any number of ranks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from likeness.hubness.analysis import HubnessReport, analyse_hubness, dead_dimensions, hubness_of_counts
from likeness.hubness.indices import HubRule, HubRuleName, k_occurrence
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import DistanceName, nearest_neighbours

_DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]


class HubnessMetric(Metric):
    """Hubness of samples among each other (in-sample), or of a fixed index among the neighbours of samples (bipartite).

    In-sample, the states are the embeddings and ids of all samples, which ``compute`` gathers and sorts by id: N D
    floats. Bipartite, each batch is searched when it comes, and the states are the neighbours' ids of all queries.
    Of samples with one id the first counts, so a sampler may pad. Queries without ids all count; then n int64 counts
    are the state, however many queries there are, and ranks merge by their sum.

    Args:
        k: neighbours of each query.
        metric: by which they are near.
        index: [n, D], the points whose hubness is measured; by default the samples themselves, in-sample.
        include_self: have each sample in its own list, in-sample.
        hub_factor, hub_rule: which points are hubs, see :class:`HubRule`.
        knn_accuracy: answer ``knn_accuracy`` too, leave-one-out, where all samples have labels.

    Example:
        >>> import torch
        >>> metric = HubnessMetric(k=5)
        >>> for start in range(0, 200, 50):
        ...     embeddings = torch.randn(50, 30, generator=torch.manual_seed(start))
        ...     metric.update(embeddings, torch.arange(start, start + 50))
        >>> found = metric.compute()
        >>> bool(found["robin_hood"] > found["robin_hood_null"])
        True
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    index: Tensor | None
    ids: list[Tensor]  # [B] of the samples
    rows: list[Tensor]  # [B, D] embeddings in-sample, else [B, k] neighbours
    labels: list[Tensor]  # [B], in-sample
    counts: Tensor  # [n] int64, of queries without ids
    queries: Tensor  # their number

    def __init__(
        self,
        k: int = 10,
        metric: DistanceName = "euclidean",
        index: Tensor | None = None,
        include_self: bool = False,
        hub_factor: float = 2.0,
        hub_rule: HubRuleName = "multiple",
        knn_accuracy: bool = False,
    ) -> None:
        super().__init__()
        for name, wanted in (("include_self", include_self), ("knn_accuracy", knn_accuracy)):
            if wanted and index is not None:
                raise ValueError(f"{name} is for in-sample hubness, but there is an index")
        if include_self and knn_accuracy:
            raise ValueError("knn_accuracy leaves a sample out of its own vote, include_self puts it in: choose one")
        self.knn_accuracy = knn_accuracy
        self.k, self.metric, self.include_self = k, metric, include_self
        self.hubs = HubRule(hub_rule, hub_factor)
        self.register_buffer("index", index, persistent=False)
        for state in ("ids", "rows", "labels"):
            self.add_state(state, [], dist_reduce_fx="cat")
        points = 0 if index is None else len(index)
        self.add_state("counts", torch.zeros(points, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("queries", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._report: HubnessReport | None = None
        self._sample_ids = torch.empty(0, dtype=torch.int64)

    def update(self, embeddings: Tensor, ids: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Add samples [B, D] with the ids [B] by which they are told apart and, in-sample, labels [B] of integers."""
        if self.index is None:
            if ids is None:
                raise ValueError("in-sample hubness needs the samples' ids, got none")
            self._keep(embeddings.detach(), ids, labels)
            return
        if labels is not None:
            raise ValueError("labels are for in-sample hubness, but there is an index")
        neighbours = nearest_neighbours(self.index, self.k, metric=self.metric, queries=embeddings).ids
        if ids is not None:
            self._keep(neighbours, ids, None)
            return
        # not in place: states may have been made in inference mode, where Lightning validates outside of training
        self.counts = self.counts + k_occurrence(neighbours, len(self.index))
        self.queries = self.queries + len(embeddings)

    def compute(self) -> dict[str, Tensor]:
        """Each index by name, ``<index>_null`` under chance, ``excess_skewness`` and ``robin_hood_ratio``; float64.

        In-sample also ``dead_dimensions``, how many are constant, and ``mean_norm``, the length of the mean embedding.
        Raises ValueError as :func:`analyse_hubness` does.
        """
        self._report, others = (self._bipartite(), {}) if self.index is not None else self._in_sample()
        report = self._report
        values = others | report.indices() | {f"{name}_null": value for name, value in report.null.indices().items()}
        values |= {"excess_skewness": report.excess_skewness, "robin_hood_ratio": report.robin_hood_ratio}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def report(self) -> HubnessReport:
        """What ``compute`` has its numbers from; its points are the index, or in-sample the samples in order of ids."""
        self.compute()
        assert self._report is not None
        return self._report

    def top_hubs(self, count: int = 10) -> tuple[Tensor, Tensor]:
        """Ids of the samples, or positions in the index, with the largest k-occurrence, and these; [count] each."""
        positions, occurrences = self.report().top_hubs(count)
        return positions if self.index is not None else self._sample_ids[positions], occurrences

    def _in_sample(self) -> tuple[HubnessReport, dict[str, float]]:
        """The report, and what else is told of the samples."""
        ids, embeddings, labels = _joined(self.ids), _joined(self.rows), _joined(self.labels)
        if not len(ids):
            raise ValueError("there are no samples whose hubness could be measured")
        if len(labels) not in (0, len(ids)):
            raise ValueError(f"all samples need labels, or none: {len(labels)} of {len(ids)} have one")
        self._sample_ids, first = _first_of_each(ids)
        embeddings, known = embeddings[first], labels[first] if len(labels) else None
        neighbours = nearest_neighbours(embeddings, self.k, metric=self.metric, include_self=self.include_self)
        report = analyse_hubness(
            embeddings,
            self.k,
            self.metric,
            labels=known,
            include_self=self.include_self,
            neighbours=neighbours,
            hub_factor=self.hubs.factor,
            hub_rule=self.hubs.name,
        )
        others = {
            "dead_dimensions": float(len(dead_dimensions(embeddings))),
            "mean_norm": float(embeddings.mean(0, dtype=torch.float64).norm()),
        }
        if self.knn_accuracy and known is not None:
            others["knn_accuracy"] = 1 - knn_score(neighbours, known, self.k).error
        return replace(report, metric=self.metric), others

    def _bipartite(self) -> HubnessReport:
        counts, queries = self.counts, int(self.queries)
        if len(ids := _joined(self.ids)):
            _, first = _first_of_each(ids)
            counts = counts + k_occurrence(_joined(self.rows)[first], len(counts))
            queries += len(first)
        return replace(hubness_of_counts(counts, queries, self.k, hubs=self.hubs), metric=self.metric)

    def _keep(self, rows: Tensor, ids: Tensor, labels: Tensor | None) -> None:
        if ids.shape != rows.shape[:1]:
            raise ValueError(f"{len(rows)} samples need as many ids, got {list(ids.shape)}")
        self.rows.append(rows)
        self.ids.append(ids.to(rows.device, torch.int64))
        if labels is not None:
            self.labels.append(labels.to(rows.device, torch.int64))

    def _sync_dist(
        self, dist_sync_fn: Callable[..., list[Tensor]] = gather_all_tensors, process_group: Any | None = None
    ) -> None:
        """A rank without samples sends none of the others' width and type; torchmetrics would send a float vector."""
        form = [self.rows[0].shape[1], _DTYPES.index(self.rows[0].dtype)] if self.rows else [0, 0]
        forms = dist_sync_fn(torch.tensor(form, device=self.device), group=process_group or self.process_group)
        width, dtype = torch.stack(forms).amax(0).tolist()
        none = torch.empty(0, dtype=torch.int64, device=self.device)
        self.rows = self.rows or [torch.empty(0, width, dtype=_DTYPES[dtype], device=self.device)]
        self.ids, self.labels = self.ids or [none], self.labels or [none]
        super()._sync_dist(dist_sync_fn, process_group)


def _joined(state: list[Tensor]) -> Tensor:
    """All batches of a state, which torchmetrics keeps as a list or, gathered from the ranks, as a tensor."""
    return dim_zero_cat(state) if len(state) else torch.empty(0, dtype=torch.int64)


def _first_of_each(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The different ids, ascending, and the position where each of them is first."""
    ordered, order = ids.sort(stable=True)
    first = torch.cat([ordered.new_ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])
    return ordered[first], order[first]
