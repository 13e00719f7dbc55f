"""Panels of diffusion models' figures: lines, images in a grid, points in the plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMA = r"$\gamma = -\log\,\mathrm{SNR}$"
CELL = 0.85  # inches, a side of an image
_GAP, _ABOVE, _SIDE = 0.06, 0.55, 0.1
BAR = 0.28  # inches below a column that a colour bar takes


def finish(*panels: Axes) -> None:
    """The look that panels with lines share."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.title.set_fontsize(9)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(9)


def panel_grid(
    rows: int, columns: int, title: str, *, left: float = 0.0, bars: bool = False
) -> tuple[Figure, list[list[Axes]], list[Axes]]:
    """Square panels, and with ``bars`` an axes for a colour bar below each column; ``left`` is room for names."""
    from matplotlib.figure import Figure

    width = 2 * _SIDE + left + columns * (CELL + _GAP) - _GAP
    height = _ABOVE + rows * (CELL + _GAP) + _SIDE + BAR * bars
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.2 / height, title, fontsize=10, ha="center", va="center")

    def axes_at(column: int, bottom: float, tall: float) -> Any:
        start = _SIDE + left + column * (CELL + _GAP)
        return figure.add_axes((start / width, bottom / height, CELL / width, tall / height))

    bottoms = [height - _ABOVE - (row + 1) * (CELL + _GAP) + _GAP for row in range(rows)]
    panels = [[axes_at(column, bottom, CELL) for column in range(columns)] for bottom in bottoms]
    for axes in (axes for row in panels for axes in row):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="#bbbbbb", linewidth=0.5)
    return figure, panels, [axes_at(column, _SIDE + 0.16, 0.07) for column in range(columns if bars else 0)]


def show_image(axes: Axes, image: np.ndarray) -> None:
    """An image [H, W] or [H, W, 3] with values in [0, 1]."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def show_points(axes: Axes, points: np.ndarray, colours: Any, reach: float) -> None:
    """Points [N, 2] in a square about the origin."""
    axes.scatter(points[:, 0], points[:, 1], s=2, c=colours, cmap=_colours(colours), linewidths=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set(color="#bbbbbb", linewidth=0.5)


def angles(points: np.ndarray) -> np.ndarray:
    """Of points [N, 2] seen from the origin, [N]: a colour for each that travels along."""
    return np.arctan2(points[:, 1], points[:, 0])


def _colours(colours: Any) -> str | None:
    return "twilight" if isinstance(colours, np.ndarray) else None
