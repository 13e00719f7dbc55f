"""Models' embeddings side by side in the plane: whose class clusters stand where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from callbacks.figures import MARKERS, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 8
MAX_LABELLED = 30  # classes that are named
LEGEND_COLUMNS = 10
PANEL, AXIS_NAME = 2.6, 0.17  # inches


def embedding_scatter(
    embeddings: Sequence[np.ndarray], labels: np.ndarray, unembeddings: Sequence[np.ndarray], names: Sequence[str]
) -> Figure:
    """Embeddings coloured by class, with the label vectors as arrows; a panel for each model.

    embeddings: f_i [N, M_i]; labels: [N]; unembeddings: g_i [K, M_i], with M_i >= 2. At most 8 models are drawn,
    and the title says so where ``names`` has more. Where M_i > 2 both f and g are seen along the two principal axes
    of f, which bear their share of its variance. The axes bear no numbers, for f is determined up to a linear map at
    best, and the arrows start from the mean label vector, for probabilities do not change when all g(y) move together.
    """
    from matplotlib.figure import Figure

    shown = min(len(embeddings), MAX_PANELS)
    rows = math.ceil(shown / 4)
    columns = math.ceil(shown / rows)
    num_classes = len(unembeddings[0])
    legend_rows = math.ceil(num_classes / LEGEND_COLUMNS) if num_classes <= MAX_LABELLED else 0
    named = AXIS_NAME if any(f.shape[1] > 2 for f in embeddings[:shown]) else 0
    above, below = 0.35, 0.4 + 0.22 * legend_rows + named  # inches, as all that follows
    width, height = max(PANEL * columns, 5.2), PANEL * rows + above + below
    spaces = {"wspace": 0.04 + named / PANEL, "hspace": 0.13 + named / PANEL}
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.02 + named / width, below / height, 0.98, 1 - (above + 0.25) / height, **spaces)
    for index in range(shown):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_panel(axes, embeddings[index], labels, unembeddings[index])
        axes.set_title(names[index], fontsize=9, pad=3)
    count = "" if shown == len(names) else f", the first {shown} of {len(names)} models"
    title = f"Embeddings f(x){count}; arrows: centred label vectors g(y), rescaled"
    figure.text(0.5, 1 - 0.22 / height, title, fontsize=10, ha="center", va="center")
    if legend_rows:
        _add_legend(figure, num_classes)
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
            axis.set_label_text(f"{name} principal axis: {100 * share:.0f} % of variance", fontsize=7)
            axis.labelpad = 2
    radius = np.abs(f).max() or 1.0
    _draw_points(axes, f, labels, len(g))
    _draw_arrows(axes, g, radius)
    axes.set(xlim=(-1.1 * radius, 1.1 * radius), ylim=(-1.1 * radius, 1.1 * radius), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color("#bbbbbb")
    axes.axhline(0, color="#cccccc", lw=0.5, zorder=0)
    axes.axvline(0, color="#cccccc", lw=0.5, zorder=0)


def _draw_points(axes: Axes, f: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    markers = np.array([_marker(label) for label in range(num_classes)])
    colours = np.array([_colour(label) for label in range(num_classes)])
    for marker in np.unique(markers):
        own = markers[labels] == marker
        axes.scatter(f[own, 0], f[own, 1], s=5, c=colours[labels[own]], marker=marker, alpha=0.55, linewidths=0)


def _draw_arrows(axes: Axes, g: np.ndarray, radius: float) -> None:
    from matplotlib.patheffects import withStroke

    arrows = g - g.mean(0)
    arrows = arrows * (0.85 * radius / (np.linalg.norm(arrows, axis=1).max() or 1.0))
    outline = [withStroke(linewidth=3, foreground="white")]
    style = {"arrowstyle": "-|>", "lw": 1.5, "shrinkA": 0, "shrinkB": 0, "path_effects": outline}
    for label, tip in enumerate(arrows):
        axes.annotate("", xy=tip, xytext=(0, 0), arrowprops={**style, "color": _colour(label)})
    for label, (x, y) in enumerate(label_places(arrows, radius) if len(g) <= MAX_LABELLED else ()):
        text = axes.text(x, y, str(label), color=_colour(label), ha="center", va="center", fontsize=8)
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


def _add_legend(figure: Figure, num_classes: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker=_marker(label), color=_colour(label), label=str(label))
        for label in range(num_classes)
    ]
    figure.legend(
        handles=handles,
        title="class",
        loc="lower center",
        ncols=min(num_classes, LEGEND_COLUMNS),
        fontsize=8,
        title_fontsize=8,
        frameon=False,
        handletextpad=0.1,
        columnspacing=1.0,
    )


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _marker(label: int) -> str:
    return MARKERS[label // len(PALETTE) % len(MARKERS)]
