"""Everything that is drawn of one comparison: a heat map for each measure, and planar embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from callbacks.figures import embedding_scatter, similarity_heatmap
from callbacks.similarity_metrics import PairwiseSimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 2000


class EmbeddingSample:
    """The first embeddings of a split with their labels, kept for a scatter plot of two-dimensional models."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._embeddings: list[Sequence[Tensor]] = []
        self._room = MAX_POINTS

    def add(self, labels: Tensor, embeddings: Sequence[Tensor]) -> None:
        """Keep labels [N] and f_i [N, M_i] while there is room, if any model could be two-dimensional."""
        if self._room > 0 and min(f.shape[1] for f in embeddings) <= 3:  # 3 with the constant of a biased head
            self._labels.append(labels[: self._room])
            self._embeddings.append([f[: self._room] for f in embeddings])
            self._room -= len(self._labels[-1])

    def figure(self, metric: PairwiseSimilarity) -> Figure | None:
        """The scatter plot of the two-dimensional models; None if there are none."""
        if not self._labels:
            return None
        joint = metric.joint_moments()
        models = [i for i, dim in enumerate(joint.dims) if dim - joint.has_bias(i) == 2]
        if not models:
            return None
        return embedding_scatter(
            [torch.cat([part[i][:, :2] for part in self._embeddings]).cpu().numpy() for i in models],
            torch.cat(self._labels).cpu().numpy(),
            [metric.unembeddings[i][:, :2].cpu().numpy() for i in models],
            [metric.names[i] for i in models],
        )


def similarity_figures(
    values: Mapping[str, Tensor], metric: PairwiseSimilarity, sample: EmbeddingSample
) -> Iterator[tuple[str, Figure]]:
    """File names (without suffix) and figures of what ``metric`` measured, ``values`` [P, P] by name."""
    for name, matrix in values.items():
        others = matrix.cpu().clone().fill_diagonal_(torch.nan).numpy()
        yield f"similarity_{name}", similarity_heatmap(others, metric.names, metric.names, metric.measures[name])
    scatter = sample.figure(metric)
    if scatter is not None:
        yield "embeddings", scatter
