"""The figures of samples: a grid of images or a scatter of points, and the path that led to a few of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from callbacks.figures import PALETTE
from callbacks.panels import CELL, angles, panel_grid, show_image, show_points
from callbacks.pictures import pictures
from likeness.diffusion.process import alpha, sigma
from likeness.diffusion.sampling import State

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 9.0  # inches, the width of a grid
MIN_PIXELS = 64  # of an image's side in it


def sample_grid(x: Tensor, title: str) -> Figure:
    """Images [B, C, H, W] in (-1, 1), as square a grid as it goes."""
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    columns = math.ceil(math.sqrt(len(x)))
    shown = torch.from_numpy(pictures(x))
    channels = shown.movedim(-1, 1) if shown.dim() == 4 else shown[:, None]
    scale = math.ceil(MIN_PIXELS / channels.shape[-1])
    enlarged = channels.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    tiles = make_grid(enlarged, columns, padding=4, pad_value=1).movedim(0, -1).numpy()
    width = min(LARGEST, max(3.0, CELL * columns))
    height = width * tiles.shape[0] / tiles.shape[1] + 0.4
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1 - 0.4 / height))
    axes.imshow(tiles, interpolation="nearest")
    axes.set_axis_off()
    figure.text(0.5, 1 - 0.2 / height, title, fontsize=10, ha="center", va="center")
    return figure


def image_path(states: Sequence[State], samples: Tensor, title: str) -> Figure:
    """z and x_hat of a few images at each kept state, and the samples [B, C, H, W] in (-1, 1) in the last column.

    z is shown on a scale that grows with its noise.
    """
    figure, panels, _ = panel_grid(2 * len(samples), len(states) + 1, title, left=0.3)
    for column, state in enumerate(states):
        reach = float(alpha(state.gamma) + 2 * sigma(state.gamma))
        for offset, shown in enumerate((pictures(state.z / reach), pictures(state.x_hat))):
            for row, image in enumerate(shown):
                show_image(panels[2 * row + offset][column], image)
        panels[0][column].set_title(rf"$\gamma = {float(state.gamma):.1f}$", fontsize=8)
    for row, image in enumerate(pictures(samples)):
        show_image(panels[2 * row][-1], image)
        panels[2 * row + 1][-1].set_axis_off()
        for offset, name in enumerate(("$z$", r"$\hat{x}$")):
            panels[2 * row + offset][0].set_ylabel(name, rotation=0, fontsize=9, labelpad=8, va="center")
    panels[0][-1].set_title("sample", fontsize=8)
    return figure


def point_scatter(samples: Tensor, data: Tensor, title: str) -> Figure:
    """Samples [B, 2] beside data [N, 2], both in (-1, 1)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, points, name, colour in zip(
        figure.subplots(1, 2), (data, samples), ("data", "samples"), PALETTE, strict=False
    ):
        show_points(axes, points.cpu().numpy(), colour, reach=1)
        axes.set_title(f"{len(points)} {name}", fontsize=9)
    return figure


def point_path(states: Sequence[State], title: str) -> Figure:
    """z [B, 2] of points at each kept state, coloured by where they end."""
    figure, panels, _ = panel_grid(1, len(states), title)
    at_states = [state.z.float().cpu().numpy() for state in states]
    reach = max(float(np.abs(points).max()) for points in at_states)
    for axes, points, state in zip(panels[0], at_states, states, strict=True):
        show_points(axes, points, angles(at_states[-1]), reach)
        axes.set_title(rf"$\gamma = {float(state.gamma):.1f}$", fontsize=8)
    return figure
