"""The figures of the DiffEnc study: the bound by model and seed, and gains of variance ratios as predicted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from callbacks.figures import MARKERS, PALETTE
from scripts.studies.output import StudyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS = {"test": "test", "train": "training samples"}
KINDS = {"fitted": "closed form", "learned": "learned"}


def draw_models(seeds: Sequence[StudyRow]) -> Figure:
    """A panel for each split: a dot for each seed, and for each model the mean and its standard error over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    for axes, (split, title) in zip(figure.subplots(1, len(SPLITS)), SPLITS.items(), strict=True):
        _models_panel(axes, [row for row in seeds if row["split"] == split])
        axes.set_title(title, fontsize=10)
    figure.axes[0].set_ylabel("bits per dimension")
    return figure


def _models_panel(axes: Axes, seeds: Sequence[StudyRow]) -> None:
    models = list(dict.fromkeys(row["model"] for row in seeds))
    for place, model in enumerate(models):
        values = np.array([row["bpd"] for row in seeds if row["model"] == model])
        axes.scatter(np.full(len(values), place - 0.12), values, s=18, color=PALETTE[place], alpha=0.5, linewidths=0)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        axes.errorbar(place + 0.12, values.mean(), error, fmt="o", color=PALETTE[place], capsize=3, markersize=5)
    axes.set_xticks(range(len(models)), models)
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def draw_gains(means: Sequence[StudyRow]) -> Figure:
    """Gains over ratio 1 in T steps: measured against predicted, and what is left of the prediction by T."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.6), layout="constrained")
    measured, share = figure.subplots(1, 2)
    models = list(dict.fromkeys(row["model"] for row in means))
    for index, model in enumerate(models):
        own = [row for row in means if row["model"] == model]
        for offset, (kind, label) in enumerate(KINDS.items()):
            style = {"color": PALETTE[index], "marker": MARKERS[offset], "ms": 5, "lw": 1.0}
            style |= {"mfc": "none" if offset else PALETTE[index], "ls": "--" if offset else "-"}
            predicted, gained = (np.array([row[name] for row in own]) for name in ("gain_predicted", f"gain_{kind}"))
            measured.plot(predicted, gained, label=f"{model}, {label}", **style)
            share.plot([row["T"] for row in own], gained / predicted, **style)
    ends = [fmean(row["gain_predicted"] for row in means if row["T"] == depth) for depth in _ends(means)]
    measured.plot(ends, ends, color="#999999", lw=0.8, ls=":")
    measured.set(
        xscale="log",
        yscale="log",
        xlabel="gain predicted (bits per dimension)",
        ylabel="gain measured (bits per dimension)",
    )
    share.axhline(1, color="#999999", lw=0.8, ls=":")
    share.set(xscale="log", yscale="log", xlabel="depth $T$", ylabel="gain measured / predicted")
    depths = sorted({row["T"] for row in means})
    share.set_xticks(depths, [str(depth) for depth in depths])
    share.set_xticks([], minor=True)
    share.yaxis.set_major_formatter("{x:g}")
    measured.legend(fontsize=7, frameon=False)
    for axes in (measured, share):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _ends(means: Sequence[StudyRow]) -> tuple[int, int]:
    depths = [row["T"] for row in means]
    return min(depths), max(depths)
