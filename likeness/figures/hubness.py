"""The figures of hubness: how often points are neighbours against chance, and what methods do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from likeness.figures.style import FAINT, PAGE, PALETTE, REFERENCE, SMALL, TINY, blank, in_style
from likeness.hubness.analysis import HubnessReport
from likeness.hubness.indices import count_histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS_PER_DOUBLING = 3  # of counts that are too many to show each by itself
CHANCE = "if neighbours were random"


class Quantity(NamedTuple):
    """One number of each of R methods."""

    name: str
    values: Sequence[float]
    chance: float | None = None  # what it is where neighbours are random
    margins: Sequence[float] | None = None  # half the 95 % intervals
    notes: Sequence[str] | None = None  # at the right of each row


@in_style()
def k_occurrence_figure(reports: Mapping[str, HubnessReport]) -> Figure:
    """k-occurrences by the name of each report, log-log: how many points have N of them, and how many at least N.

    Grey is the first report's null. Antihubs, N = 0, have a place of their own left of the logarithmic scale. The
    reports should have one n, m and k.
    """
    caption = (
        "How many points are how often among the nearest neighbours of others: what lies right of the grey curve of "
        "chance are hubs, and points at 0 are nobody's neighbours."
    )
    figure = blank(PAGE, 2.9, caption)
    density, survival = figure.subplots(1, 2)
    first = next(iter(reports.values()))
    histograms = {name: count_histogram(report.k_occurrence).cpu().numpy() for name, report in reports.items()}
    _draw_null(density, survival, first.null_histogram().numpy())
    for (name, histogram), colour in zip(histograms.items(), PALETTE, strict=False):
        density.plot(*binned(histogram), ls="none", marker="o", mew=0, color=colour, label=name, zorder=3)
        survival.plot(*at_least(histogram), color=colour, drawstyle="steps-pre", zorder=3)
    _scale(density, survival, histograms, first)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@in_style()
def method_figure(methods: Sequence[str], quantities: Sequence[Quantity], bases: Sequence[int] = (0,)) -> Figure:
    """A panel for each quantity with a row for each of R methods.

    ``bases`` are the rows, ascending, that those after them are compared with: each is a line down to the next.
    """
    caption = "What each method does, a row for each: the grey line is the points as they are, dashed is chance."
    if any(quantity.margins is not None for quantity in quantities):
        caption += " Bars are 95 % intervals."
    figure = blank(PAGE, 0.9 + 0.2 * len(methods), caption)
    panels = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, quantity in zip(panels, quantities, strict=True):
        _draw_quantity(axes, quantity, bases)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    for axes in panels:
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def binned(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts N and the points for each whole number N, averaged over bins where the counts are large.

    histogram: [C], points with N = 0, 1, .... Bins without points are left out.
    """
    doublings = np.arange(0, np.log2(len(histogram)) + 1, 1 / BINS_PER_DOUBLING)
    edges = np.unique(np.floor(2**doublings).astype(int))
    edges = np.concatenate([[0], edges[edges < len(histogram)], [len(histogram)]])
    points = np.add.reduceat(histogram, edges[:-1])
    centres, seen = (edges[:-1] + edges[1:] - 1) / 2, points > 0
    return centres[seen], (points / np.diff(edges))[seen]


def at_least(histogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts N = 1, 2, ... and how many points have at least N, from the histogram [C] of N = 0, 1, ...."""
    return np.arange(1, len(histogram)), histogram[::-1].cumsum()[::-1][1:]


def _draw_null(density: Axes, survival: Axes, expected: np.ndarray) -> None:
    counts = np.arange(len(expected))
    density.fill_between(counts[1:], expected[1:], color=REFERENCE, alpha=0.15, lw=0)
    density.plot(counts[1:], expected[1:], color=REFERENCE, ls="--", label=CHANCE)
    density.plot([-0.2, 0.2], [expected[0]] * 2, color=REFERENCE)
    counts, points = at_least(expected)
    survival.fill_between(counts, points, color=REFERENCE, alpha=0.15, lw=0)
    survival.plot(counts, points, color=REFERENCE, ls="--")


def _scale(density: Axes, survival: Axes, histograms: Mapping[str, np.ndarray], report: HubnessReport) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

    right = 1.4 * max(map(len, histograms.values()))
    lowest = min(binned(histogram)[1].min() for histogram in histograms.values())
    density.set_xscale("symlog", linthresh=1, linscale=0.35)
    density.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1))
    density.axvline(0.5, color=FAINT, lw=0.8)
    survival.set_xscale("log")
    density.set(xlim=(-0.35, right), ylim=(min(0.5, lowest / 2), 1.6 * report.n), ylabel="points with k-occurrence N")
    survival.set(xlim=(0.9, right), ylim=(0.5, 1.6 * report.n), ylabel="points with at least N")
    for axes in (density, survival):
        axes.set_yscale("log", nonpositive="clip")
        axes.set_xlabel(f"N: in how many of {report.m:,} lists of the {report.k} nearest", fontsize=SMALL)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _draw_quantity(axes: Axes, quantity: Quantity, bases: Sequence[int]) -> None:
    values, rows = np.asarray(quantity.values), np.arange(len(quantity.values))
    margins = np.zeros(len(values)) if quantity.margins is None else np.asarray(quantity.margins)
    for base, end in zip(bases, [*bases[1:], len(values)], strict=True):
        name = "the points as they are" if base == bases[0] else None
        axes.plot([values[base]] * 2, [base - 0.4, end - 0.6], color=FAINT, lw=1, label=name, zorder=0)
    if quantity.chance is not None:
        axes.axvline(quantity.chance, color=REFERENCE, lw=1.2, ls="--", label=CHANCE, zorder=0)
    axes.hlines(rows, values - margins, values + margins, color=PALETTE[0], lw=1.4)
    axes.plot(values, rows, ls="none", marker="o", color=PALETTE[0])
    ends = [*(values - margins), *(values + margins), *([] if quantity.chance is None else [quantity.chance])]
    low, room = min(ends), max(max(ends) - min(ends), 1e-12)
    axes.set(xlim=(low - 0.08 * room, low + (1.9 if quantity.notes else 1.08) * room), xlabel=quantity.name)
    for row, note in enumerate(quantity.notes or ()):
        axes.annotate(note, (1, row), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=TINY)
