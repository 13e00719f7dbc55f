"""Embeddings in the plane, with the label vectors as arrows: a panel for each model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from likeness.figures.style import COLUMN, FAINT, MARKERS, PALETTE, SMALL, TINY, blank, in_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 8
MAX_LABELLED = 30  # classes that are named
MAX_POINTS = 2000  # of a panel, and arrows
AXIS_NAME = 0.17  # inches
COLUMNS = ("model", "vector", "class", "x", "y", "x_share", "y_share")  # of a table of planes


@dataclass(frozen=True)
class Panel:
    """A model in the plane: f [N, 2], the number of each point's class, [N], and g [K, 2], less its mean over labels.

    Where the model has more dimensions, the axes are the two principal ones of f, and ``shares`` what they hold of its
    variance. K is 0 of a model without labels.
    """

    name: str
    f: np.ndarray
    labels: np.ndarray
    g: np.ndarray
    shares: Sequence[float] = ()

    @property
    def radius(self) -> float:
        """The largest coordinate of f."""
        return float(np.abs(self.f).max(initial=0)) or 1.0

    @property
    def arrows(self) -> np.ndarray:
        """g, made long enough for the longest to go nearly as far as f."""
        return self.g * (0.85 * self.radius / (np.linalg.norm(self.g, axis=1).max(initial=0) or 1.0))

    @property
    def axis_names(self) -> list[str]:
        """What the axes are of; nothing where they are those of the model."""
        pairs = zip(("1st", "2nd"), self.shares, strict=False)
        return [f"{name} axis: {100 * share:.0f} % of variance" for name, share in pairs]


@dataclass(frozen=True)
class Planes:
    """Panels of the first of ``models`` models, and what their classes are called."""

    panels: Sequence[Panel]
    classes: Sequence[str]
    models: int

    @property
    def caption(self) -> str:
        """What to see."""
        said = (
            "Each point is an input, coloured by its label, and arrows are the label vectors, centred and rescaled. "
            "Models whose panels differ by more than a linear map see the data differently."
        )
        principal = " Of many dimensions the two principal axes of the embeddings are shown."
        return said + principal * any(panel.shares for panel in self.panels)

    def rows(self) -> Iterator[list[object]]:
        """A table under ``COLUMNS``: a row for each f(x) and each g(y), six digits of each number."""
        for panel in self.panels:
            shares = [f"{share:.3g}" for share in panel.shares] or ["", ""]
            for vector, points, labels in (("f", panel.f, panel.labels), ("g", panel.g, range(len(panel.g)))):
                for (x, y), label in zip(points.tolist(), labels, strict=True):
                    yield [panel.name, vector, self.classes[label], f"{x:.6g}", f"{y:.6g}", *shares]


def in_planes(
    embeddings: Sequence[np.ndarray], labels: np.ndarray, unembeddings: Sequence[np.ndarray], names: Sequence[str]
) -> Planes:
    """The first 8 models, their first 2,000 points and label vectors.

    embeddings: f_i [N, M_i]; labels: [N]; unembeddings: g_i [K, M_i], all zero of a model without labels; M_i >= 2.
    ``names`` are those of all models.
    """
    shown = zip(names, embeddings[:MAX_PANELS], unembeddings[:MAX_PANELS], strict=False)
    panels = [_in_plane(name, f[:MAX_POINTS], labels[:MAX_POINTS], g) for name, f, g in shown]
    num_classes = max(max(len(panel.g) for panel in panels), int(labels.max(initial=-1)) + 1)
    return Planes(panels, [str(label) for label in range(num_classes)], len(names))


def _in_plane(name: str, f: np.ndarray, labels: np.ndarray, g: np.ndarray) -> Panel:
    centred = (g - g.mean(0))[: MAX_POINTS if g.any() else 0]
    if f.shape[1] == 2:
        return Panel(name, f, labels, centred)
    directions, shares = principal_axes(f)
    return Panel(name, f @ directions, labels, centred @ directions, shares.tolist())


def embedding_scatter(
    embeddings: Sequence[np.ndarray], labels: np.ndarray, unembeddings: Sequence[np.ndarray], names: Sequence[str]
) -> Figure:
    """Embeddings coloured by class, with the label vectors as arrows; a panel for each model.

    embeddings: f_i [N, M_i]; labels: [N]; unembeddings: g_i [K, M_i], with M_i >= 2. At most 8 models are drawn,
    and the title says so where ``names`` has more. Where M_i > 2 both f and g are seen along the two principal axes
    of f, which bear their share of its variance. The axes bear no numbers, for f is determined up to a linear map at
    best, and the arrows start from the mean label vector, for probabilities do not change when all g(y) move together.
    """
    return planes_figure(in_planes(embeddings, labels, unembeddings, names))


@in_style()
def planes_figure(planes: Planes) -> Figure:
    """The panels beside each other, and a legend of up to 30 classes."""
    shown, num_classes = len(planes.panels), len(planes.classes)
    rows = math.ceil(shown / 4)
    columns = math.ceil(shown / rows)
    panel = COLUMN / min(columns, 2)
    in_a_row = 8 if columns <= 2 else 16
    legend_rows = math.ceil(num_classes / in_a_row) if num_classes <= MAX_LABELLED else 0
    named = AXIS_NAME if any(own.shares for own in planes.panels) else 0
    above, below = 0.25, 0.3 + 0.16 * legend_rows + named  # inches, as all that follows
    width, height = panel * columns, panel * rows + above + below
    spaces = {"wspace": 0.04 + named / panel, "hspace": 0.14 + named / panel}
    figure = blank(width, height, planes.caption, layout=None)
    figure.subplots_adjust(0.02 + named / width, below / height, 0.98, 1 - (above + 0.17) / height, **spaces)
    for index, own in enumerate(planes.panels):
        _draw_panel(figure.add_subplot(rows, columns, index + 1), own, planes.classes)
    count = "" if shown == planes.models else f", the first {shown} of {planes.models} models"
    title = f"Embeddings f(x) and label vectors g(y){count}"
    figure.text(0.5, 1 - 0.13 / height, title, ha="center", va="center")
    if legend_rows:
        _add_legend(figure, planes.classes, in_a_row)
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


def _draw_panel(axes: Axes, panel: Panel, classes: Sequence[str]) -> None:
    for axis, name in zip((axes.xaxis, axes.yaxis), panel.axis_names, strict=False):
        axis.set_label_text(name, fontsize=TINY)
        axis.labelpad = 2
    reach = 1.1 * panel.radius
    _draw_points(axes, panel.f, panel.labels, len(classes))
    _draw_arrows(axes, panel, classes)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set_title(panel.name, pad=3)
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


def _draw_arrows(axes: Axes, panel: Panel, classes: Sequence[str]) -> None:
    from matplotlib.patheffects import withStroke

    arrows = panel.arrows
    outline = [withStroke(linewidth=2, foreground="white")]
    style = {"arrowstyle": "-|>", "lw": 1, "shrinkA": 0, "shrinkB": 0, "path_effects": outline}
    for label, tip in enumerate(arrows):
        axes.annotate("", xy=tip, xytext=(0, 0), arrowprops={**style, "color": _colour(label)})
    for label, (x, y) in enumerate(label_places(arrows, panel.radius) if 0 < len(arrows) <= MAX_LABELLED else ()):
        text = axes.text(x, y, classes[label], color=_colour(label), ha="center", va="center", fontsize=SMALL)
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


def _add_legend(figure: Figure, classes: Sequence[str], in_a_row: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=_marker(label), color=_colour(label), label=name)
        for label, name in enumerate(classes)
    ]
    figure.legend(
        handles=handles,
        title="class",
        loc="lower center",
        ncols=min(len(classes), in_a_row),
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _marker(label: int) -> str:
    return MARKERS[label // len(PALETTE) % len(MARKERS)]
