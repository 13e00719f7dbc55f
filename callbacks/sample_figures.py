"""The figures of samples: a grid of images or a scatter of points, and the path that led to a few of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from callbacks.figures import PALETTE
from callbacks.panels import angles, image_table, point_row, show_points
from callbacks.pictures import pictures
from likeness.diffusion.process import alpha, sigma
from likeness.diffusion.sampling import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sample_grid(x: Tensor, title: str) -> Figure:
    """Images [B, C, H, W] in (-1, 1), as square a grid as it goes."""
    columns = math.ceil(math.sqrt(len(x)))
    shown = [*pictures(x), *[None] * (-len(x) % columns)]
    rows = [shown[start : start + columns] for start in range(0, len(shown), columns)]
    return image_table(rows, [""] * columns, title)[0]


def image_path(states: Sequence[State], samples: Tensor, title: str) -> Figure:
    """z and x_hat of a few images at each kept state, and the samples [B, C, H, W] in (-1, 1) in the last column.

    z is shown on a scale that grows with its noise.
    """
    reach = [float(alpha(state.gamma) + 2 * sigma(state.gamma)) for state in states]
    noisy = [pictures(state.z / limit) for state, limit in zip(states, reach, strict=True)]
    predicted = [pictures(state.x_hat) for state in states]
    rows: list[list[np.ndarray | None]] = []
    for row, image in enumerate(pictures(samples)):
        rows += [[*(z[row] for z in noisy), image], [*(x_hat[row] for x_hat in predicted), None]]
    names = ["$z$", r"$\hat{x}$"] * len(samples)
    return image_table(rows, [*map(_gamma, states), "sample"], title, names=names)[0]


def point_scatter(samples: Tensor, data: Tensor, title: str) -> Figure:
    """Samples [B, 2] beside data [N, 2], both in (-1, 1)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, points, name, colour in zip(
        figure.subplots(1, 2), (data, samples), ("points of the data", "samples"), PALETTE, strict=False
    ):
        show_points(axes, points.cpu().numpy(), colour, reach=1)
        axes.set_title(f"{len(points)} {name}", fontsize=9)
    return figure


def point_path(states: Sequence[State], title: str) -> Figure:
    """z [B, 2] of points at each kept state, coloured by where they end; limits shrink with the noise."""
    points = [state.z.float().cpu().numpy() for state in states]
    reach = [float(alpha(state.gamma) + 3 * sigma(state.gamma)) for state in states]
    return point_row(points, [*map(_gamma, states)], title, angles(points[-1]), reach)


def _gamma(state: State) -> str:
    return rf"$\gamma = {float(state.gamma):.1f}$"
