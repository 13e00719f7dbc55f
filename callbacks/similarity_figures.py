"""Everything that is drawn of one comparison: a heat map for each measure, and the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from callbacks.embedding_scatter import MAX_PANELS, embedding_scatter
from callbacks.figures import similarity_heatmap
from callbacks.similarity_metrics import PairwiseSimilarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 2000


class EmbeddingSample:
    """The first embeddings of a split with their labels, kept for a scatter plot."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._embeddings: list[Sequence[Tensor]] = []
        self._room = MAX_POINTS

    def add(self, labels: Tensor, embeddings: Sequence[Tensor]) -> None:
        """Keep labels [N] and f_i [N, M_i] of the models that have a panel, while there is room."""
        if self._room > 0:
            self._labels.append(labels[: self._room])
            self._embeddings.append([f[: self._room] for f in embeddings[:MAX_PANELS]])
            self._room -= len(self._labels[-1])

    def figure(self, metric: PairwiseSimilarity) -> Figure | None:
        """The scatter plot of the models with M >= 2, a head's bias not counted; None if there are none."""
        if not self._labels:
            return None
        joint = metric.joint_moments()
        dims = [dim - joint.has_bias(model) for model, dim in enumerate(joint.dims)]
        models = [model for model, dim in enumerate(dims) if dim >= 2]
        drawn = [model for model in models if model < MAX_PANELS]
        if not drawn:
            return None
        return embedding_scatter(
            [torch.cat([part[i][:, : dims[i]] for part in self._embeddings]).float().cpu().numpy() for i in drawn],
            torch.cat(self._labels).cpu().numpy(),
            [metric.unembeddings[i][:, : dims[i]].float().cpu().numpy() for i in drawn],
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
