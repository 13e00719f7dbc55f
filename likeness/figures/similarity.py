"""Everything that is drawn of one comparison: a heat map for each measure, and the models' embeddings side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from likeness.figures.style import (
    COLUMN,
    FAINT,
    MARKERS,
    PAGE,
    PALETTE,
    SMALL,
    TINY,
    blank,
    in_style,
    ink_on,
    without_frame,
)
from likeness.similarity.catalogue import Measure
from likeness.similarity.metric import PairwiseSimilarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MAX_PANELS = 8
MAX_LABELLED = 30  # classes that are named
AXIS_NAME = 0.17  # inches
MAX_POINTS = 2000  # of the scatter plot
MAX_ANNOTATED = 12  # columns of a heat map whose cells show their values
UPRIGHT = 3  # letters of a column's name that are not turned
LOG_SCALE_FROM = 30  # ratio of the largest to the smallest divergence


@in_style()
def embedding_scatter(
    embeddings: Sequence[np.ndarray], labels: np.ndarray, unembeddings: Sequence[np.ndarray], names: Sequence[str]
) -> Figure:
    """Embeddings coloured by class, with the label vectors as arrows; a panel for each model.

    embeddings: f_i [N, M_i]; labels: [N]; unembeddings: g_i [K, M_i], with M_i >= 2. At most 8 models are drawn,
    and the title says so where ``names`` has more. Where M_i > 2 both f and g are seen along the two principal axes
    of f, which bear their share of its variance. The axes bear no numbers, for f is determined up to a linear map at
    best, and the arrows start from the mean label vector, for probabilities do not change when all g(y) move together.
    """
    shown = min(len(embeddings), MAX_PANELS)
    rows = math.ceil(shown / 4)
    columns = math.ceil(shown / rows)
    num_classes = len(unembeddings[0])
    panel = COLUMN / min(columns, 2)
    in_a_row = 8 if columns <= 2 else 16
    legend_rows = math.ceil(num_classes / in_a_row) if num_classes <= MAX_LABELLED else 0
    named = AXIS_NAME if any(f.shape[1] > 2 for f in embeddings[:shown]) else 0
    above, below = 0.25, 0.3 + 0.16 * legend_rows + named  # inches, as all that follows
    width, height = panel * columns, panel * rows + above + below
    spaces = {"wspace": 0.04 + named / panel, "hspace": 0.14 + named / panel}
    caption = (
        "Each point is an input, coloured by its label, and arrows are the label vectors, centred and rescaled. Models "
        "whose panels differ by more than a linear map see the data differently."
    )
    if named:
        caption += " Of many dimensions the two principal axes of the embeddings are shown."
    figure = blank(width, height, caption, layout=None)
    figure.subplots_adjust(0.02 + named / width, below / height, 0.98, 1 - (above + 0.17) / height, **spaces)
    for index in range(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_panel(axes, embeddings[index], labels, unembeddings[index])
        axes.set_title(names[index], pad=3)
    count = "" if shown == len(names) else f", the first {shown} of {len(names)} models"
    title = f"Embeddings f(x) and label vectors g(y){count}"
    figure.text(0.5, 1 - 0.13 / height, title, ha="center", va="center")
    if legend_rows:
        _add_legend(figure, num_classes, in_a_row)
    return figure


def principal_axes(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal directions [M, 2] along which f [N, M] varies most, and their shares of its variance, [2].

    The largest coordinate of each direction is positive, so that equal embeddings are drawn alike.
    """
    deviations = f.astype(np.float64) - f.mean(0, dtype=np.float64)
    variances, directions = np.linalg.eigh(deviations.T @ deviations)
    leading = directions[:, :-3:-1]
    signs = np.sign(leading[np.abs(leading).argmax(0), [0, 1]])
    return leading * signs, variances[:-3:-1] / (variances.sum() or 1)


def _draw_panel(axes: Axes, f: np.ndarray, labels: np.ndarray, g: np.ndarray) -> None:
    if f.shape[1] > 2:
        directions, shares = principal_axes(f)
        f, g = f @ directions, g @ directions
        for axis, name, share in zip((axes.xaxis, axes.yaxis), ("1st", "2nd"), shares, strict=True):
            axis.set_label_text(f"{name} axis: {100 * share:.0f} % of variance", fontsize=TINY)
            axis.labelpad = 2
    radius = np.abs(f).max() or 1.0
    _draw_points(axes, f, labels, len(g))
    _draw_arrows(axes, g, radius)
    axes.set(xlim=(-1.1 * radius, 1.1 * radius), ylim=(-1.1 * radius, 1.1 * radius), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT)
    axes.axhline(0, color=FAINT, lw=0.5, zorder=0)
    axes.axvline(0, color=FAINT, lw=0.5, zorder=0)


def _draw_points(axes: Axes, f: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    markers = np.array([_marker(label) for label in range(num_classes)])
    colours = np.array([_colour(label) for label in range(num_classes)])
    for marker in np.unique(markers):
        own = markers[labels] == marker
        look: dict[str, Any] = {"marker": marker, "s": 4, "alpha": 0.55, "linewidths": 0, "rasterized": True}
        axes.scatter(f[own, 0], f[own, 1], c=colours[labels[own]], **look)


def _draw_arrows(axes: Axes, g: np.ndarray, radius: float) -> None:
    from matplotlib.patheffects import withStroke

    arrows = g - g.mean(0)
    arrows = arrows * (0.85 * radius / (np.linalg.norm(arrows, axis=1).max() or 1.0))
    outline = [withStroke(linewidth=2, foreground="white")]
    style = {"arrowstyle": "-|>", "lw": 1, "shrinkA": 0, "shrinkB": 0, "path_effects": outline}
    for label, tip in enumerate(arrows):
        axes.annotate("", xy=tip, xytext=(0, 0), arrowprops={**style, "color": _colour(label)})
    for label, (x, y) in enumerate(label_places(arrows, radius) if len(g) <= MAX_LABELLED else ()):
        text = axes.text(x, y, str(label), color=_colour(label), ha="center", va="center", fontsize=SMALL)
        text.set(weight="bold", path_effects=outline)


def label_places(arrows: np.ndarray, radius: float) -> np.ndarray:
    """Where the arrows' labels stand, [K, 2]: just beyond the tips, turned where two would overlap."""
    distance = np.maximum(np.linalg.norm(arrows, axis=1), 0.3 * radius) + 0.12 * radius
    angles = _spread(np.arctan2(arrows[:, 1], arrows[:, 0]), gap=0.2)
    return np.stack([distance * np.cos(angles), distance * np.sin(angles)], axis=1)


def _spread(angles: np.ndarray, gap: float) -> np.ndarray:
    """Angles moved as little as needs be for neighbours on the circle to stand ``gap`` apart."""
    angles, order = angles.copy(), np.argsort(angles)
    gap = min(gap, 2 * np.pi / len(angles))
    for _ in range(500):
        ahead = np.roll(angles[order], -1) + np.where(np.arange(len(order)) == len(order) - 1, 2 * np.pi, 0)
        lacking = np.maximum(gap - (ahead - angles[order]), 0) / 2
        if lacking.max() < 1e-3:
            break
        angles[order] += np.roll(lacking, 1) - lacking
    return angles


def _add_legend(figure: Figure, num_classes: int, in_a_row: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=_marker(label), color=_colour(label), label=str(label))
        for label in range(num_classes)
    ]
    figure.legend(
        handles=handles,
        title="class",
        loc="lower center",
        ncols=min(num_classes, in_a_row),
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _marker(label: int) -> str:
    return MARKERS[label // len(PALETTE) % len(MARKERS)]


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
        others = _without_diagonal(matrix).numpy()
        yield f"similarity_{name}", similarity_heatmap(others, metric.names, metric.names, metric.measures[name])
    scatter = sample.figure(metric)
    if scatter is not None:
        yield "embeddings", scatter


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
            text = f"{value:.2f}" if 0.095 <= abs(value) < 10 else f"{value:.1e}" if value else "0"
            axes.text(column, row, text, ha="center", va="center", fontsize=TINY, color=ink[row, column])
