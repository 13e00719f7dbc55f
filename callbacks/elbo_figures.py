"""The figures of a diffusion model's bound: by gamma, by depth, its schedule and its variances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from callbacks.figures import PALETTE
from callbacks.panels import GAMMA, finish
from likeness.diffusion.depth_curve import DepthPoint
from likeness.diffusion.loss_by_gamma import LossByGamma
from likeness.diffusion.ratio_profile import RatioProfile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches
LINEAR_BELOW = 0.01  # bits per dimension, where the logarithmic scale of an excess ends
NAMES = {"train": "training", "val": "validation"}
COLOURS = {"train": PALETTE[0], "val": PALETTE[1]}


def loss_figure(bins: Mapping[str, LossByGamma]) -> Figure:
    """The integrand with its standard error, how much of its area lies to the left, and the loss's variance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    integrand, cumulative, variance = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    for split, binned in bins.items():
        centre, colour = binned.centre.numpy(), COLOURS[split]
        label = f"{NAMES[split]}, area {binned.area:.3f} bits/dim"
        _line_with_band(integrand, centre, binned.integrand.numpy(), binned.integrand_se.numpy(), colour, label)
        shares = np.concatenate([[0.0], 100 * np.cumsum(binned.share.numpy())])
        cumulative.plot(binned.edges.numpy(), shares, color=colour, lw=1.4)
        variance.plot(centre, binned.variance.numpy(), color=colour, lw=1.4)
    integrand.set(ylabel="loss per unit of $\\gamma$\n(bits per dimension)", ylim=(0, None))
    integrand.legend(fontsize=8, frameon=False)
    cumulative.set(ylabel="share of the\narea so far (%)", ylim=(0, 100), yticks=(0, 25, 50, 75, 100))
    cumulative.grid(axis="y", color="#dddddd", lw=0.6)
    variance.set(ylabel="variance of a\nsample's loss", yscale="log", xlabel=GAMMA)
    finish(integrand, cumulative, variance)
    return figure


def schedule_figure(gamma: np.ndarray, slope: np.ndarray) -> Figure:
    """gamma(t), alpha^2 and sigma^2, and SNR(t), of equally spaced t in [0, 1]; dgamma/dt where it is not constant."""
    from matplotlib.figure import Figure

    t = np.linspace(0, 1, len(gamma))
    bent = np.ptp(slope) > 1e-3 * np.abs(slope).max()
    figure = Figure(figsize=(2.6 * (3 + bent), 2.5), layout="constrained")
    level, mixture, snr, *rest = figure.subplots(1, 3 + bent)
    level.plot(t, gamma, color=PALETTE[0], lw=1.4)
    if bent:
        level.plot(t[[0, -1]], gamma[[0, -1]], color="#999999", lw=0.8, ls=":")
    level.set(title=rf"$\gamma(t)$ from ${gamma[0]:.2f}$ to ${gamma[-1]:.2f}$")
    mixture.plot(t, 1 / (1 + np.exp(gamma)), color=PALETTE[0], lw=1.4, label=r"$\alpha_t^2$")
    mixture.plot(t, 1 / (1 + np.exp(-gamma)), color=PALETTE[1], lw=1.4, label=r"$\sigma_t^2$")
    mixture.legend(fontsize=8, frameon=False)
    mixture.set(title="signal and noise")
    snr.plot(t, np.exp(-gamma), color=PALETTE[0], lw=1.4)
    snr.set(yscale="log", title=r"SNR$(t) = \alpha_t^2 / \sigma_t^2$")
    for axes in rest:
        axes.plot(t, slope, color=PALETTE[0], lw=1.4)
        axes.set(ylim=(0, None), title=r"d$\gamma$/d$t$")
    for axes in (level, mixture, snr, *rest):
        axes.set(xlabel="$t$", xlim=(0, 1))
    finish(level, mixture, snr, *rest)
    return figure


def ratio_figure(profile: RatioProfile, num_steps: int, *, own: bool) -> Figure:
    """The model's rho by gamma, where it has one of its ``own``, and the best one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    gamma, rho, optimal = (values.float().cpu().numpy() for values in profile)
    best = "optimal, $\\log(1 + 2\\,\\mathrm{E}[q] / d)$"
    axes.plot(gamma, optimal, color=PALETTE[1], marker="o", ms=3.5, lw=1.2, label=best)
    if own:
        axes.plot(gamma, rho, color=PALETTE[0], marker="s", ms=3.5, lw=1.2, label="the model's")
    seen = optimal[np.isfinite(optimal) & (optimal > 0)]
    if len(seen):
        axes.set_yscale("symlog", linthresh=float(seen.min()))
    axes.set(xlabel=GAMMA, ylabel=r"$\rho = \log\,\sigma_P^2 / \sigma_Q^2$", title=f"$T$ = {num_steps}")
    axes.axhline(0, color="#999999", lw=0.8, ls=":")
    axes.legend(fontsize=8, frameon=False)
    finish(axes)
    return figure


def gradient_figure(gamma: np.ndarray, norms: np.ndarray, step: int) -> Figure:
    """Squared norm of the gradient by gamma, [G] each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(gamma, norms, color=PALETTE[0], marker="o", ms=3, lw=1.2)
    axes.set(xlabel=GAMMA, ylabel="squared norm of\nthe loss's gradient", yscale="log", title=f"step {step}")
    finish(axes)
    return figure


def depth_figure(points: Sequence[DepthPoint]) -> Figure:
    """The bound by depth T, with equal variances and with the fitted ratio, and its excess over infinite depth.

    The last point is infinite depth.
    """
    from matplotlib.figure import Figure

    finite, limit = points[:-1], points[-1]
    place = np.log10([float(point.num_steps or 1) for point in finite])
    end = place[-1] + 0.5
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    bound, excess = figure.subplots(1, 2)
    for suffix, label, colour, marker in (
        ("", r"equal variances, $\rho = 0$", PALETTE[0], "o"),
        ("fitted", r"$\rho$ in closed form, fitted on training data", PALETTE[1], "s"),
    ):
        style = {"color": colour, "marker": marker, "ms": 4, "lw": 1.2, "capsize": 2, "label": label}
        bound.errorbar(place, *_with_error(finite, suffix or "bpd"), **style)
        excess.errorbar(place, *_with_error(finite, f"{suffix}_excess".strip("_")), **style)
    bound.axhline(limit.bpd, color="#999999", lw=0.8, ls=":")
    bound.errorbar(end, limit.bpd, limit.bpd_se, color="black", marker="D", ms=4, capsize=2)
    names = [str(point.num_steps) for point in finite]
    bound.set_xticks([*place, end], [*names, r"$\infty$"])
    excess.set_xticks(place, names)
    bound.set(xlabel="depth $T$", ylabel="negative ELBO (bits per dimension)")
    excess.set(xlabel="depth $T$", ylabel=r"excess over $T = \infty$ (bits per dimension)")
    if all(min(point.excess, point.fitted_excess) > 0 for point in finite):
        excess.set_yscale("log")
    else:  # Monte-Carlo error, or an encoder that does better in few steps
        excess.set_yscale("symlog", linthresh=LINEAR_BELOW)
        excess.axhline(0, color="#999999", lw=0.8, ls=":")
    bound.legend(fontsize=8, frameon=False)
    finish(bound, excess)
    return figure


def _with_error(points: Sequence[DepthPoint], name: str) -> tuple[list[float], list[float]]:
    return [getattr(point, name) for point in points], [getattr(point, f"{name}_se") for point in points]


def _line_with_band(axes: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, colour: str, label: str) -> None:
    axes.plot(x, y, color=colour, lw=1.4, label=label)
    axes.fill_between(x, y - error, y + error, color=colour, alpha=0.2, lw=0)
