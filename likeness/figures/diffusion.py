"""The figures of a diffusion model: its bound by gamma and by depth, its schedule and variances, its encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likeness.diffusion.diagnostics.bound_profiles import DepthPoint, GammaProfile, RatioProfile, VolatilityProfile
from likeness.diffusion.diagnostics.by_depth import DepthProfile
from likeness.figures.samples import GAMMA, angles, image_table, point_row
from likeness.figures.style import COLUMN, PAGE, PALETTE, REFERENCE, TINY, UNKNOWN, blank, in_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

LINEAR_BELOW = 0.01  # bits per dimension, where the logarithmic scale of an excess ends
NEGLIGIBLE = 1e-4  # a relative residual that is rounding
NAMES = {"train": "training", "val": "validation"}
COLOURS = {"train": PALETTE[0], "val": PALETTE[1]}
LIMIT: dict[str, Any] = {"color": REFERENCE, "lw": 0.8, "ls": ":"}


@in_style()
def loss_figure(bins: Mapping[str, GammaProfile]) -> Figure:
    """The integrand with its standard error, how much of its area lies to the left, and the loss's variance."""
    caption = (
        "Where along the schedule the diffusion loss comes from: the area under the upper curve is the loss, its band "
        "one standard error. Where the variance is high, estimates are noisy."
    )
    figure = blank(COLUMN, 4.4, caption)
    integrand, cumulative, variance = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for split, binned in bins.items():
        centre, colour = binned.centre.numpy(), COLOURS[split]
        label = f"{NAMES[split]}, area {binned.area:.3f} bits/dim"
        _line_with_band(integrand, centre, binned.integrand.numpy(), binned.integrand_se.numpy(), colour, label)
        shares = np.concatenate([[0.0], 100 * np.cumsum(binned.share.numpy())])
        cumulative.plot(binned.edges.numpy(), shares, color=colour)
        variance.plot(centre, binned.variance.numpy(), color=colour)
    integrand.set(ylabel="loss per unit of $\\gamma$\n(bits/dim)", ylim=(0, None))
    integrand.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    cumulative.set(ylabel="share of the\narea so far (%)", ylim=(0, 100), yticks=(0, 50, 100))
    variance.set(ylabel="variance\n((bits/dim)$^2$)", xlabel=GAMMA)
    _log_scale(variance, *(binned.variance.numpy() for binned in bins.values()))
    return figure


@in_style()
def schedule_figure(gamma: np.ndarray, slope: np.ndarray) -> Figure:
    """gamma(t), alpha^2 and sigma^2, and SNR(t), of equally spaced t in [0, 1]; dgamma/dt where it is not constant.

    Of D dimensions, [P, D], the means are drawn, and in grey from the least to the largest gamma and dgamma/dt.
    """
    t = np.linspace(0, 1, len(gamma))
    spread, spread_of_slope = ((values.min(1), values.max(1)) for values in (gamma, slope))
    gamma, slope = gamma.mean(1), slope.mean(1)
    bent = np.ptp(spread_of_slope) > 1e-3 * np.abs(slope).max()
    caption = "How noise grows with time t in the process: where gamma is steep, time passes a noise level quickly."
    if np.ptp(spread, axis=0).any():
        caption += " Lines are means over dimensions, grey is from the least to the largest."
    figure = blank(PAGE if bent else 5.2, 1.9, caption)
    level, mixture, snr, *rest = figure.subplots(1, 3 + bent)
    level.fill_between(t, *spread, color=UNKNOWN, lw=0)
    level.plot(t, gamma, color=PALETTE[0])
    if bent:
        level.plot(t[[0, -1]], gamma[[0, -1]], **LIMIT)
    level.set(ylabel=rf"$\gamma(t)$, from ${gamma[0]:.2f}$ to ${gamma[-1]:.2f}$")
    mixture.plot(t, 1 / (1 + np.exp(gamma)), color=PALETTE[0], label="signal")
    mixture.plot(t, 1 / (1 + np.exp(-gamma)), color=PALETTE[1], label="noise")
    mixture.legend(loc="center left", handlelength=0.9)
    mixture.set(ylabel="share of the variance")
    snr.plot(t, np.exp(-gamma), color=PALETTE[0])
    snr.set(yscale="log", ylabel=r"SNR$(t) = \alpha_t^2 / \sigma_t^2$")
    for axes in rest:
        axes.fill_between(t, *spread_of_slope, color=UNKNOWN, lw=0)
        axes.plot(t, slope, color=PALETTE[0])
        axes.set(ylim=(0, None), ylabel=r"d$\gamma$/d$t$")
    for axes in (level, mixture, snr, *rest):
        axes.set(xlabel="time $t$", xlim=(0, 1))
    return figure


@in_style()
def ratio_figure(profile: RatioProfile, num_steps: int, *, own: bool) -> Figure:
    """The model's rho by gamma, where it has one of its ``own``, and the best one."""
    caption = "By how much the variance of a generative step should exceed that of the posterior, at each noise level"
    figure = blank(COLUMN, 2.4, f"{caption}, and by how much the model's does." if own else f"{caption}.")
    axes = figure.add_subplot()
    gamma, rho, optimal = (values.float().cpu().numpy() for values in profile)
    best = "optimal, $\\log(1 + 2\\,\\mathrm{E}[q] / d)$"
    axes.plot(gamma, optimal, color=PALETTE[1], marker="o", label=best)
    if own:
        axes.plot(gamma, rho, color=PALETTE[0], marker="s", label="the model's")
    seen = optimal[np.isfinite(optimal) & (optimal > 0)]
    if len(seen):
        axes.set_yscale("symlog", linthresh=float(seen.min()))
    ylabel = r"$\rho = \log\,\sigma_P^2 / \sigma_Q^2$"
    axes.set(xlabel=GAMMA, ylabel=ylabel, title=f"$T$ = {num_steps} steps")
    axes.axhline(0, **LIMIT)
    axes.legend()
    return figure


@in_style()
def volatility_figure(profile: VolatilityProfile, *, own: bool) -> Figure:
    """kappa by gamma: the model's, where it has one of its ``own``, the best one, and DiffEnc-nt's."""
    caption = (
        "The volatility of the generative process that makes the bound tightest, at each noise level; at 1, dotted, "
    )
    figure = blank(COLUMN, 2.4, caption + "it is the forward process's.")
    axes = figure.add_subplot()
    gamma, kappa, optimal, without = (values.float().cpu().numpy() for values in profile)
    known = np.isfinite(gamma)
    label = r"$1 + 2\,\sigma^2$, the best of DiffEnc-nt"
    axes.plot(gamma[known], without[known], color=REFERENCE, lw=1.0, ls="--", label=label)
    axes.plot(gamma[known], optimal[known], color=PALETTE[1], marker="o", label="the best, T = inf")
    if own:
        axes.plot(gamma[known], kappa[known], color=PALETTE[0], marker="s", label="the model's")
    axes.set(xlabel=GAMMA, ylabel=r"volatility $\kappa$", ylim=(0, None))
    axes.axhline(1, **LIMIT)
    axes.legend()
    return figure


@in_style()
def gradient_figure(gamma: np.ndarray, norms: np.ndarray, step: int) -> Figure:
    """Squared norm of the gradient by gamma, [G] each."""
    figure = blank(COLUMN, 2.1, f"From which noise levels the gradient of the loss comes, at step {step}.")
    axes = figure.add_subplot()
    axes.plot(gamma, norms, color=PALETTE[0], marker="o")
    axes.set(xlabel=GAMMA, ylabel="squared norm of the\nloss's gradient ((bits/dim)$^2$)", title=f"step {step}")
    _log_scale(axes, norms)
    return figure


@in_style()
def depth_figure(points: Sequence[DepthPoint]) -> Figure:
    """The bound by depth T, with equal variances and with the fitted ratio, and its excess over infinite depth.

    The last point is infinite depth.
    """
    finite, limit = points[:-1], points[-1]
    place = np.log10([float(point.num_steps or 1) for point in finite])
    end = place[-1] + 0.5
    caption = (
        "The bound by the number of steps T: it falls towards that of infinite depth, the diamond, and a fitted ratio "
        "of variances takes part of the excess away. Bars: one standard error over samples."
    )
    figure = blank(PAGE, 2.6, caption)
    bound, excess = figure.subplots(1, 2)
    for suffix, label, colour, marker in (
        ("", r"equal variances, $\rho = 0$", PALETTE[0], "o"),
        ("fitted", r"$\rho$ in closed form, fitted on training data", PALETTE[1], "s"),
    ):
        look = {"color": colour, "marker": marker, "label": label}
        bound.errorbar(place, *_with_error(finite, suffix or "bpd"), **look)
        excess.errorbar(place, *_with_error(finite, f"{suffix}_excess".strip("_")), **look)
    bound.axhline(limit.bpd, **LIMIT)
    bound.errorbar(end, limit.bpd, limit.bpd_se, color="black", marker="D")
    names = [str(point.num_steps) for point in finite]
    bound.set_xticks([*place, end], [*names, r"$\infty$"])
    excess.set_xticks(place, names)
    bound.set(xlabel="depth $T$ (steps)", ylabel="negative ELBO (bits/dim)")
    excess.set(xlabel="depth $T$ (steps)", ylabel=r"excess over $T = \infty$ (bits/dim)")
    if all(min(point.excess, point.fitted_excess) > 0 for point in finite):
        excess.set_yscale("log")
    else:  # Monte-Carlo error, or an encoder that does better in few steps
        excess.set_yscale("symlog", linthresh=LINEAR_BELOW)
        excess.axhline(0, **LIMIT)
    bound.legend()
    return figure


def _with_error(points: Sequence[DepthPoint], name: str) -> tuple[list[float], list[float]]:
    return [getattr(point, name) for point in points], [getattr(point, f"{name}_se") for point in points]


def _log_scale(axes: Axes, *values: np.ndarray) -> None:
    """A logarithmic scale of y, where there is anything that it can show."""
    if any((part > 0).any() for part in values):
        axes.set_yscale("log")


def _line_with_band(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, label=label)
    axes.fill_between(x, y - error, y + error, color=colour, alpha=0.2, lw=0)


@in_style()
def profile_figure(profile: DepthProfile) -> Figure:
    """Variances of z_t and, of encoders that change the mean, sizes of y, x_t - x and dy/dgamma and the residual."""
    values = {name: value.float().cpu().numpy() for name, value in profile._asdict().items()}
    drawn = [_draw_variance]
    if values["shift"].any():
        drawn = [_draw_sizes, _draw_variance, _draw_residual]
    if values["derivative"].any():
        drawn.insert(1, _draw_derivative)
    rows = 2 if len(drawn) == 4 else 1
    columns = len(drawn) // rows
    caption = "The variance of z_t at each noise level: VDM keeps it where data have variance 1."
    if len(drawn) > 1:
        caption = (
            "What the encoder does to the mean at each noise level, and how far it is from the optimal counter-term."
        )
    figure = blank(COLUMN if columns == 1 else PAGE, 2.2 * rows, caption)
    panels = figure.subplots(rows, columns, squeeze=False)
    for draw, axes in zip(drawn, panels.flat, strict=True):
        draw(axes, values)
        axes.set_xlim(values["gamma"][0], values["gamma"][-1])
    for axes in panels[-1]:
        axes.set_xlabel(GAMMA)
    for axes in panels[0]:
        _add_times(axes, values["gamma"], values["t"])
    return figure


@in_style()
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
    caption = f"{title}, of the images x at each time t. Blue takes away, red adds, on a scale of its own for each t."
    figure, (unused, *bars) = image_table(rows, ["$x$", *map(_time, times)], title, caption, bars=True)
    unused.set_axis_off()
    for axes, limit in zip(bars, limits, strict=True):
        _symmetric_bar(figure, axes, colours, limit)
    return figure


def strips(images: Sequence[np.ndarray], times: Sequence[float], title: str) -> Figure:
    """Images [B, H, W] or [B, H, W, 3] with values in [0, 1] at each time: a row for each sample."""
    rows = [[at_time[row] for at_time in images] for row in range(len(images[0]))]
    caption = "What images look like to the model: the means x_t before noise is added, a row for each image."
    return image_table(rows, [*map(_time, times)], title, caption)[0]


def point_strips(points: Sequence[np.ndarray], times: Sequence[float], title: str) -> Figure:
    """Points [B, 2] in the plane at each time, coloured by their angle at the first, all with the same limits."""
    reach = 1.05 * max(float(np.abs(at_time).max()) for at_time in points)
    caption = (
        "Where the encoder moves points as noise is added; a point keeps the colour of its angle at the first time."
    )
    return point_row(points, [*map(_time, times)], title, caption, angles(points[0]), [reach] * len(points))


def _time(t: float) -> str:
    return f"$t = {t:g}$"


def _symmetric_bar(figure: Figure, axes: Axes, colours: Colormap, limit: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(-limit, limit), colours)
    bar = figure.colorbar(scale, cax=axes, orientation="horizontal", ticks=[-limit, limit])
    axes.set_xticklabels([f"$-{limit:.2g}$", f"${limit:.2g}$"])
    axes.tick_params(labelsize=TINY, length=0, pad=1)
    bar.outline.set_linewidth(0.4)
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _draw_sizes(axes: Axes, values: dict[str, np.ndarray]) -> None:
    _lines(axes, values, {"output": "$|y|$", "shift": "$|x_t - x|$"})
    axes.set(ylabel="output and shift of\nthe mean (r.m.s.)", ylim=(0, None))


def _draw_derivative(axes: Axes, values: dict[str, np.ndarray]) -> None:
    # points, for the time embedding makes the derivative oscillate faster than the profile's times are spaced
    axes.plot(values["gamma"], values["derivative"], color=PALETTE[0], marker="o", ls="", ms=2.5, clip_on=False)
    axes.set(ylabel=r"$|\mathrm{d}y/\mathrm{d}\gamma|$ (r.m.s.)", ylim=(0, None))


def _draw_variance(axes: Axes, values: dict[str, np.ndarray]) -> None:
    expected = r"$\alpha_t^2\,\mathrm{var}(x) + \sigma_t^2$"
    _lines(axes, values, {"variance": "$\\mathrm{var}(z_t)$", "variance_of_vdm": expected})
    axes.set(ylabel="variance per dimension", ylim=(0, None))


def _draw_residual(axes: Axes, values: dict[str, np.ndarray]) -> None:
    change = r"\mathrm{d}x_t/\mathrm{d}\lambda"
    kinds = {
        "residual": r"with $\hat{x}$",
        "residual_of_form": "with $x_t$",
        "residual_in_gamma": r"with $\hat{x}$, and $\gamma$ for $\lambda$",
    }
    _lines(axes, values, {name: kinds[name] for name in kinds if values[name].max() > NEGLIGIBLE})
    axes.set(ylabel=rf"$|\sigma_t^2 \hat{{x}} - {change}|\ /\ |{change}|$")
    _log_scale(axes, *(values[name] for name in kinds))
    axes.axhline(1, **LIMIT)


def _lines(axes: Axes, values: dict[str, np.ndarray], labels: dict[str, str]) -> None:
    for (name, label), colour in zip(labels.items(), PALETTE, strict=False):
        axes.plot(values["gamma"], values[name], color=colour, label=label)
    axes.legend()


def _add_times(axes: Axes, gamma: np.ndarray, t: np.ndarray) -> None:
    """A second axis on top that bears the times."""
    there = (lambda g: np.interp(g, gamma, t), lambda time: np.interp(time, t, gamma))
    top = axes.secondary_xaxis("top", functions=there)
    top.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    top.tick_params(length=2, pad=1)
    top.set_xlabel("time $t$", labelpad=1)
