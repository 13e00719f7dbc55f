"""The figures of an encoder of the mean: its sizes by gamma, heat maps over depth, and what the data become."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from callbacks.figures import PALETTE
from callbacks.panels import GAMMA, angles, finish, image_table, point_row
from likeness.diffusion.diagnostics import DepthProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

NEGLIGIBLE = 1e-4  # a relative residual that is rounding


def profile_figure(profile: DepthProfile) -> Figure:
    """Variances of z_t and, of encoders that change the mean, sizes of y, x_t - x and dy/dgamma and the residual."""
    from matplotlib.figure import Figure

    values = {name: value.float().cpu().numpy() for name, value in profile._asdict().items()}
    drawn = [_draw_variance]
    if values["shift"].any():
        drawn = [_draw_sizes, _draw_variance, _draw_residual]
    if values["derivative"].any():
        drawn.insert(1, _draw_derivative)
    rows = 2 if len(drawn) == 4 else 1
    columns = len(drawn) // rows
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for draw, axes in zip(drawn, panels.flat, strict=True):
        draw(axes, values)
        axes.set_xlim(values["gamma"][0], values["gamma"][-1])
        finish(axes)
    for axes in panels[-1]:
        axes.set_xlabel(GAMMA, fontsize=9)
    for axes in panels[0]:
        _add_times(axes, values["gamma"], values["t"])
    return figure


def heat_maps(images: np.ndarray, maps: Sequence[np.ndarray], times: Sequence[float], title: str) -> Figure:
    """Images [B, H, W] or [B, H, W, 3] with values in [0, 1], and beside them maps [B, H, W] at each time.

    Blue is negative and red positive, on a scale for each time that is symmetric about zero.
    """
    from matplotlib import colormaps

    colours = colormaps["bwr"]
    limits = [float(np.abs(values).max()) or 1.0 for values in maps]
    coloured = [
        np.asarray(colours(0.5 + values / (2 * limit)))[..., :3] for values, limit in zip(maps, limits, strict=True)
    ]
    rows = [[image, *(values[row] for values in coloured)] for row, image in enumerate(images)]
    figure, (unused, *bars) = image_table(rows, ["$x$", *map(_time, times)], title, bars=True)
    unused.set_axis_off()
    for axes, limit in zip(bars, limits, strict=True):
        _symmetric_bar(figure, axes, colours, limit)
    return figure


def strips(images: Sequence[np.ndarray], times: Sequence[float], title: str) -> Figure:
    """Images [B, H, W] or [B, H, W, 3] with values in [0, 1] at each time: a row for each sample."""
    rows = [[at_time[row] for at_time in images] for row in range(len(images[0]))]
    return image_table(rows, [*map(_time, times)], title)[0]


def point_strips(points: Sequence[np.ndarray], times: Sequence[float], title: str) -> Figure:
    """Points [B, 2] in the plane at each time, coloured by their angle at the first, all with the same limits."""
    reach = 1.05 * max(float(np.abs(at_time).max()) for at_time in points)
    return point_row(points, [*map(_time, times)], title, angles(points[0]), [reach] * len(points))


def _time(t: float) -> str:
    return f"$t = {t:g}$"


def _symmetric_bar(figure: Figure, axes: Axes, colours: Colormap, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(-limit, limit), colours)
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=[-limit, limit])
    axes.set_xticklabels([f"$-{limit:.2g}$", f"${limit:.2g}$"])
    axes.tick_params(labelsize=6, length=0, pad=1)
    bar.outline.set_linewidth(0.4)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _draw_sizes(axes: Axes, values: dict[str, np.ndarray]) -> None:
    _lines(axes, values, {"output": "$|y|$", "shift": "$|x_t - x|$"})
    axes.set(title="output and shift of the mean (r.m.s.)", ylim=(0, None))


def _draw_derivative(axes: Axes, values: dict[str, np.ndarray]) -> None:
    # points, for the time embedding makes the derivative oscillate faster than the profile's times are spaced
    axes.plot(values["gamma"], values["derivative"], color=PALETTE[0], marker="o", ls="", ms=3, clip_on=False)
    axes.set(title=r"$|\mathrm{d}y/\mathrm{d}\gamma|$ (r.m.s.)", ylim=(0, None))


def _draw_variance(axes: Axes, values: dict[str, np.ndarray]) -> None:
    expected = r"$\alpha_t^2\,\mathrm{var}(x) + \sigma_t^2$"
    _lines(axes, values, {"variance": "$\\mathrm{var}(z_t)$", "variance_of_vdm": expected})
    axes.set(title="variance per dimension", ylim=(0, None))


def _draw_residual(axes: Axes, values: dict[str, np.ndarray]) -> None:
    change = r"\mathrm{d}x_t/\mathrm{d}\lambda"
    kinds = {
        "residual": r"with $\hat{x}$",
        "residual_of_form": "with $x_t$",
        "residual_in_gamma": r"with $\hat{x}$, and $\gamma$ for $\lambda$",
    }
    _lines(axes, values, {name: kinds[name] for name in kinds if values[name].max() > NEGLIGIBLE})
    axes.set(title=rf"counter-term: $|\sigma_t^2 \hat{{x}} - {change}|\ /\ |{change}|$", yscale="log")
    axes.axhline(1, color="#999999", lw=0.8, ls=":")


def _lines(axes: Axes, values: dict[str, np.ndarray], labels: dict[str, str]) -> None:
    for (name, label), colour in zip(labels.items(), PALETTE, strict=False):
        axes.plot(values["gamma"], values[name], color=colour, lw=1.4, label=label)
    axes.legend(fontsize=8, frameon=False)


def _add_times(axes: Axes, gamma: np.ndarray, t: np.ndarray) -> None:
    """A second axis on top that bears the times."""
    there = (lambda g: np.interp(g, gamma, t), lambda time: np.interp(time, t, gamma))
    top = axes.secondary_xaxis("top", functions=there)
    top.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    top.tick_params(labelsize=7, length=2, pad=1)
    top.set_xlabel("$t$", fontsize=8, labelpad=1)
