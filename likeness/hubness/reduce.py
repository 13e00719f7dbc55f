"""Hubness before a reduction and after it, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike
from torch import Tensor

from likeness.hubness.analysis import HubnessReport, analyse_hubness
from likeness.hubness.reductions import Step, reduction
from likeness.neighbours.exact import Neighbours


@dataclass(frozen=True)
class ReducedHubness:
    """What a reduction does to the neighbours of some points, with the points as they are under the same metric."""

    neighbours: Neighbours  # after the reduction, [m, k]
    before: HubnessReport
    after: HubnessReport
    method: str
    notes: tuple[str, ...] = ()  # what was left out of the points


def reduce_hubness(
    points: Tensor | ArrayLike,
    method: Step | Sequence[Step] = "csls",
    *,
    queries: Tensor | ArrayLike | None = None,
    k: int = 10,
    labels: Tensor | ArrayLike | None = None,
    query_labels: Tensor | ArrayLike | None = None,
    **options: Any,
) -> ReducedHubness:
    """The k nearest points of [n, d] after a reduction of hubness, and its indices before and after.

    Before and after go by the metric of the method, so that what another metric changes does not count as a reduction.
    ``method`` and ``options`` are those of :func:`likeness.hubness.reductions.reduction`; ``queries`` [m, d] are by
    default the points themselves. Raises ValueError as ``reduction`` and ``analyse_hubness`` do.

    Example:
        >>> import torch
        >>> points = 1 + torch.randn(300, 60, generator=torch.Generator().manual_seed(0))
        >>> found = reduce_hubness(points, "local_scaling", k=5)
        >>> found.after.robin_hood < found.before.robin_hood, found.neighbours.ids.shape
        (True, torch.Size([300, 5]))
    """
    fitted = reduction(method, **options).fit(points)
    neighbours = fitted.rerank(queries, k)
    shared: dict[str, Any] = {"queries": queries, "labels": labels, "query_labels": query_labels}
    before = analyse_hubness(points, k, fitted.metric, **shared)
    after = replace(analyse_hubness(points, k, neighbours=neighbours, **shared), metric=fitted.metric)
    return ReducedHubness(neighbours, before, after, fitted.name, fitted.notes)
