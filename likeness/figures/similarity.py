"""Everything that is drawn of one comparison: a heat map for each measure, and embeddings side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likeness.figures.embeddings import MAX_PANELS, MAX_POINTS, Planes, in_planes, planes_figure
from likeness.figures.style import PAGE, TINY, blank, cell_text, in_style, ink_on, without_frame
from likeness.similarity.catalogue import Measure
from likeness.similarity.metric import PairwiseSimilarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_ANNOTATED = 12  # columns of a heat map whose cells show their values
UPRIGHT = 3  # letters of a column's name that are not turned
LOG_SCALE_FROM = 30  # ratio of the largest to the smallest divergence


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

    def planes(self, metric: PairwiseSimilarity) -> Planes | None:
        """The models with M >= 2 as a scatter plot shows them, a head's bias not counted; None if there are none."""
        if not self._labels:
            return None
        joint = metric.joint_moments()
        dims = [dim - joint.has_bias(model) for model, dim in enumerate(joint.dims)]
        models = [model for model, dim in enumerate(dims) if dim >= 2]
        drawn = [model for model in models if model < MAX_PANELS]
        if not drawn:
            return None
        return in_planes(
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
        others = _without_diagonal(matrix).numpy()
        yield f"similarity_{name}", similarity_heatmap(others, metric.names, metric.names, metric.measures[name])
    planes = sample.planes(metric)
    if planes is not None:
        yield "embeddings", planes_figure(planes)


@in_style()
def similarity_panels(values: Mapping[str, Tensor], metric: PairwiseSimilarity) -> Figure:
    """A heat map for each measure, side by side; bright is alike. A row of a panel is the first model of a pair.

    What is undefined for all pairs is named underneath.
    """
    undefined = [name for name, matrix in values.items() if bool(_without_diagonal(matrix).isnan().all())]
    values = {name: matrix for name, matrix in values.items() if name not in undefined} or values
    names = metric.names
    side = 1.2 + 0.28 * len(names)
    columns = min(len(values), max(int(PAGE / side), 1))
    rows = math.ceil(len(values) / columns)
    caption = "How alike the models of each pair are by each measure, on its own scale: bright is alike."
    figure = blank(side * columns, (side - 0.2) * rows, caption)
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, matrix) in zip(all_axes, values.items(), strict=False):
        _draw_cells(axes, _without_diagonal(matrix).numpy(), names, names, metric.measures[name])
        axes.set_title(name)
    for axes in all_axes[len(values) :]:
        axes.set_visible(False)
    if undefined:
        figure.supxlabel(f"undefined for all pairs: {', '.join(undefined)}")
    return figure


def _without_diagonal(matrix: Tensor) -> Tensor:
    """A copy [P, P] on the CPU with NaN where a model would be compared with itself."""
    return matrix.cpu().clone().fill_diagonal_(torch.nan)


@in_style()
def similarity_heatmap(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], measure: Measure) -> Figure:
    """Heat map of one measure between models; bright is alike.

    values: [R, C], NaN where there is nothing to compare (a model with itself). ``rows`` and ``columns`` are
    the models' names. Values are written into the cells up to 12 columns.
    """
    direction = "larger is more alike" if measure.larger_is_more_alike else "smaller is more alike"
    caption = (
        f"{measure.label} of each pair of models, {direction}: bright is alike. Grey is not compared or undefined."
    )
    figure, axes, colour_axes = _heatmap_axes(rows, columns, caption)
    image = _draw_cells(axes, values, rows, columns, measure)
    axes.set_title(f"{measure.label}\n({direction})")
    figure.colorbar(image, cax=colour_axes)
    return figure


def _draw_cells(
    axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], measure: Measure
) -> AxesImage:
    """Coloured cells with the names of rows and columns, and, of few, with their values."""
    colours = "viridis" if measure.larger_is_more_alike else "viridis_r"
    image = axes.imshow(values, cmap=colours, norm=colour_scale(values, measure), aspect="auto")
    without_frame(axes)
    axes.set_xticks(range(len(columns)), columns, rotation=90 if _longest(columns) > UPRIGHT else 0)
    axes.set_yticks(range(len(rows)), rows)
    if len(columns) <= MAX_ANNOTATED:
        _write_values(axes, values, image)
    return image


def _heatmap_axes(rows: Sequence[str], columns: Sequence[str], caption: str) -> tuple[Figure, Axes, Axes]:
    """A figure with square cells, room for the names, and a colour bar; laid out here, for speed, in inches."""
    cell = max(0.42 if len(columns) <= MAX_ANNOTATED else 0.2, 2.0 / len(columns))
    inner_width, inner_height = cell * len(columns), cell * len(rows)
    letter = 0.065
    left = 0.15 + letter * _longest(rows)
    bottom = 0.15 + letter * (_longest(columns) if _longest(columns) > UPRIGHT else 2)
    width, height = left + inner_width + 0.8, bottom + inner_height + 0.45
    figure = blank(width, height, caption, layout=None)
    axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
    bar_left = left + inner_width + 0.15
    bar = figure.add_axes((bar_left / width, bottom / height, 0.15 / width, inner_height / height))
    return figure, axes, bar


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names))


def colour_scale(values: np.ndarray, measure: Measure) -> Normalize:
    """Similarities over their whole range; divergences from 0, or by logarithm where they span decades."""
    from matplotlib.colors import LogNorm, Normalize

    known = values[np.isfinite(values)]
    if measure.larger_is_more_alike or not known.size or known.max() <= 0:
        return Normalize(0, measure.limit or 1)
    if known.min() > 0 and known.max() > LOG_SCALE_FROM * known.min():
        return LogNorm(known.min(), known.max())
    return Normalize(0, known.max())


def _write_values(axes: Axes, values: np.ndarray, image: AxesImage) -> None:
    ink = ink_on(image, values)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(column, row, cell_text(value), ha="center", va="center", fontsize=TINY, color=ink[row, column])
