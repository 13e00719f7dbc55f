"""The figures of samples, and the panels that all figures of diffusion models are made of.

Samples are a grid of images or a scatter of points, and the path that led to a few of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from likeness.diffusion.process import alpha, sigma
from likeness.diffusion.sampling import State
from likeness.figures.style import COLUMN, FAINT, PAGE, PALETTE, blank, in_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMA = r"$\gamma = -\log\,\mathrm{SNR}$"
CELL = 0.85  # inches, a side of an image
PIXELS = 120  # of an image's side, about; then enlarging it once more changes nothing visible
_GAP = 6  # pixels between images
_TITLE, _NAMES, _SIDE, _BAR = 0.35, 0.2, 0.1, 0.28  # inches


@in_style()
def image_table(
    rows: Sequence[Sequence[np.ndarray | None]],
    columns: Sequence[str],
    title: str,
    caption: str,
    *,
    names: Sequence[str] = (),
    bars: bool = False,
) -> tuple[Figure, list[Axes]]:
    """Images [H, W] or [H, W, 3] with values in [0, 1] under the columns' and beside the rows' names; None is left out.

    With ``bars`` an axes for a colour bar is added below each column. All images are one, which is many times faster
    to draw than an axes for each.
    """
    tiles = _tiled(rows)
    step = CELL / PIXELS * (PIXELS + _GAP)
    left, above = _SIDE + 0.3 * bool(names), _TITLE + _NAMES * any(columns)
    table_width, table_height = step * len(columns), step * len(rows)
    width, height = left + table_width + _SIDE, above + table_height + _SIDE + _BAR * bars
    figure = blank(width, height, caption, layout=None)
    bottom = height - above - table_height
    axes = figure.add_axes((left / width, bottom / height, table_width / width, table_height / height))
    axes.imshow(tiles, interpolation="nearest", extent=(0, len(columns), len(rows), 0), aspect="auto")
    axes.set_axis_off()
    figure.text(0.5, 1 - 0.2 / height, title, ha="center", va="center")
    for column, name in enumerate(columns):
        axes.text(column + 0.5, -0.05, name, ha="center", va="bottom")
    for row, name in enumerate(names):
        axes.text(-0.12, row + 0.5, name, ha="center", va="center")
    return figure, [
        figure.add_axes(((left + step * column) / width, 0.26 / height, CELL / width, 0.07 / height))
        for column in range(len(columns) * bars)
    ]


def _tiled(rows: Sequence[Sequence[np.ndarray | None]]) -> np.ndarray:
    """The images enlarged, with white between them, [H, W, 3]."""
    first = next(image for row in rows for image in row if image is not None)
    scale = max(1, round(PIXELS / max(first.shape[:2])))
    height, width = (scale * side for side in first.shape[:2])
    gap = max(1, round(_GAP * max(height, width) / PIXELS))
    tiles = np.ones((len(rows) * (height + gap), len(rows[0]) * (width + gap), 3))
    for (row, column), image in ((place, rows[place[0]][place[1]]) for place in np.ndindex(len(rows), len(rows[0]))):
        if image is not None:
            coloured = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
            top, left = row * (height + gap), column * (width + gap)
            tiles[top : top + height, left : left + width] = coloured.repeat(scale, 0).repeat(scale, 1)
    return tiles


@in_style()
def point_row(
    points: Sequence[np.ndarray],
    columns: Sequence[str],
    title: str,
    caption: str,
    colours: np.ndarray,
    reach: Sequence[float],
) -> Figure:
    """Points [N, 2] in the plane, a square panel for each entry with its ``reach`` from the origin to the sides."""
    side = min(1.35, PAGE / len(points))
    figure = blank(max(side * len(points), COLUMN), side + 0.5, caption)
    figure.suptitle(title)
    panels = figure.subplots(1, len(points), squeeze=False)[0]
    for axes, entry, name, limit in zip(panels, points, columns, reach, strict=True):
        show_points(axes, entry, colours, limit)
        axes.set_title(name)
    return figure


def show_points(axes: Axes, points: np.ndarray, colours: Any, reach: float) -> None:
    """Points [N, 2] in a square about the origin."""
    axes.scatter(points[:, 0], points[:, 1], s=2, c=colours, cmap=_colours(colours), linewidths=0, rasterized=True)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=FAINT, linewidth=0.5)


def angles(points: np.ndarray) -> np.ndarray:
    """Of points [N, 2] seen from the origin, [N]: a colour for each that travels along."""
    return np.arctan2(points[:, 1], points[:, 0])


def _colours(colours: Any) -> str | None:
    return "twilight" if isinstance(colours, np.ndarray) else None


def pictures(x: Tensor) -> np.ndarray:
    """Images [B, C, H, W] as [B, H, W, 3] of three channels, else as their mean [B, H, W], clipped to [0, 1]."""
    shown = ((x.detach().float() + 1) / 2).clamp(0, 1).cpu()
    return shown.movedim(1, -1).numpy() if x.shape[1] == 3 else shown.mean(1).numpy()


def is_image(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are images [C, H, W]."""
    return len(shape) == 3


def is_point(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are points in the plane."""
    return tuple(shape) == (2,)


def sample_grid(x: Tensor, title: str) -> Figure:
    """Images [B, C, H, W] in (-1, 1), as square a grid as it goes."""
    columns = math.ceil(math.sqrt(len(x)))
    shown = [*pictures(x), *[None] * (-len(x) % columns)]
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    return image_table(rows, [""] * columns, title, "Draws of the model, none chosen.")[0]


def image_path(states: Sequence[State], samples: Tensor, title: str) -> Figure:
    """z and x_hat of a few images at each kept state, and the samples [B, C, H, W] in (-1, 1) in the last column.

    z is shown on a scale that grows with its noise.
    """
    reach = [float(alpha(state.gamma.mean()) + 2 * sigma(state.gamma.mean())) for state in states]
    noisy = [pictures(state.z / limit) for state, limit in zip(states, reach, strict=True)]
    predicted = [pictures(state.x_hat) for state in states]
    rows: list[list[np.ndarray | None]] = []
    for row, image in enumerate(pictures(samples)):
        rows += [[*(z[row] for z in noisy), image], [*(x_hat[row] for x_hat in predicted), None]]
    names = ["$z$", r"$\hat{x}$"] * len(samples)
    caption = "How samples come about, from noise on the left: z, and below it what the model takes it for, x_hat."
    return image_table(rows, [*map(_gamma, states), "sample"], title, caption, names=names)[0]


@in_style()
def point_scatter(samples: Tensor, data: Tensor, title: str) -> Figure:
    """Samples [B, 2] beside data [N, 2], both in (-1, 1)."""
    figure = blank(COLUMN, 2.2, "Samples should lie where the data do, as densely, and nowhere else.")
    figure.suptitle(title)
    for axes, points, name, colour in zip(
        figure.subplots(1, 2), (data, samples), ("points of the data", "samples"), PALETTE, strict=False
    ):
        show_points(axes, points.cpu().numpy(), colour, reach=1)
        axes.set_title(f"{len(points)} {name}")
    return figure


def point_path(states: Sequence[State], title: str) -> Figure:
    """z [B, 2] of points at each kept state, coloured by where they end; limits shrink with the noise."""
    points = [state.z.float().cpu().numpy() for state in states]
    reach = [float(alpha(state.gamma.mean()) + 3 * sigma(state.gamma.mean())) for state in states]
    caption = "How samples come about, from noise on the left; a point has the colour of the angle at which it ends."
    return point_row(points, [*map(_gamma, states)], title, caption, angles(points[-1]), reach)


def _gamma(state: State) -> str:
    """Of each dimension the mean."""
    return rf"$\gamma = {float(state.gamma.mean()):.1f}$"
