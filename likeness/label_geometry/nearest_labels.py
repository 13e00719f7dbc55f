"""The labels nearest to given ones in several inner products, without ever forming all K x K of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelMetric, LabelRows, Progress, row_blocks
from likeness.numerics import as_float64


class NearestLabels(NamedTuple):
    """The n nearest labels of Q queries, nearest first; where there are fewer, cosine NaN and label -1."""

    labels: Tensor  # [Q, n] int64
    cosines: Tensor  # [Q, n] float64


def nearest_labels(
    g: LabelRows,
    queries: Sequence[int],
    metrics: Mapping[str, LabelMetric],
    count: int,
    device: torch.device | str = "cpu",
    progress: Progress = iter,
) -> dict[str, NearestLabels]:
    """The ``count`` labels with the largest cosine to each query, in each metric, in one pass over g [K, M].

    A query is not its own neighbour, and a label without direction is nobody's; of equal cosines the smaller label
    comes first. g may stay on disk: at most 64 MB of it are in memory, in float64. Raises ValueError for a query
    that is not a label.

    >>> g = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.0, 0.0]])
    >>> nearest_labels(g, [0], {"raw": LabelMetric.raw()}, count=3)["raw"].labels
    tensor([[ 1,  2, -1]])
    """
    unknown = [query for query in queries if not 0 <= query < g.shape[0]]
    if unknown:
        raise ValueError(f"label {unknown[0]} is none of the labels 0 to {g.shape[0] - 1}")
    rows = torch.cat([as_float64(g[query : query + 1].to(device)) for query in queries])
    own = torch.tensor(list(queries), device=rows.device)
    wanted = {name: metric.directions(rows) for name, metric in metrics.items()}
    best = {name: _nobody(len(own), rows) for name in metrics}
    for block in progress(row_blocks(g.shape)):
        rows = as_float64(g[block].to(device))
        labels = torch.arange(block.start, block.stop, device=rows.device)
        for name, metric in metrics.items():
            cosines = (wanted[name] @ metric.directions(rows).T).clamp(-1, 1).nan_to_num(nan=-torch.inf)
            cosines[own.unsqueeze(1) == labels] = -torch.inf
            best[name] = _nearest(best[name], NearestLabels(labels.expand_as(cosines), cosines), count)
    return {name: _named(found) for name, found in best.items()}


def _nobody(queries: int, like: Tensor) -> NearestLabels:
    labels = torch.zeros(queries, 0, dtype=torch.long, device=like.device)
    return NearestLabels(labels, like.new_zeros(queries, 0))


def _nearest(first: NearestLabels, second: NearestLabels, count: int) -> NearestLabels:
    labels = torch.cat([first.labels, second.labels], dim=1)
    cosines, order = torch.cat([first.cosines, second.cosines], dim=1).sort(dim=1, descending=True, stable=True)
    return NearestLabels(labels.gather(1, order[:, :count]), cosines[:, :count])


def _named(found: NearestLabels) -> NearestLabels:
    nobody = found.cosines == -torch.inf
    return NearestLabels(found.labels.masked_fill(nobody, -1), found.cosines.masked_fill(nobody, torch.nan))
