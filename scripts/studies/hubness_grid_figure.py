"""The figures of the hubness grid: what each method changes on each data set, and what that has to do with the base."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING

from callbacks.figures import MARKERS, PALETTE
from callbacks.panels import finish
from scripts.hubness_methods import BASE
from scripts.studies.hubness_grid_tables import CHANGES, EDGES
from scripts.studies.output import StudyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADINGS = ("k-skewness falls by, %", "Robin Hood index falls by, %", "error falls by, %")
COLUMNS = 3
FAINT = "#cccccc"
SIGNIFICANT = ("better", "worse")


def draw_reductions(rows: Sequence[StudyRow]) -> Figure:
    """For each data set a row of panels: relative reductions of each method, a marker a run, bars the means of several.

    Of the error, markers are filled where McNemar's test finds the change significant.
    """
    from matplotlib.figure import Figure

    data, methods, bases = (_distinct(rows, name) for name in ("data", "method", "base"))
    methods.remove(BASE)
    height = 0.9 + len(data) * (0.7 + 0.26 * len(methods))
    figure = Figure(figsize=(3.0 + 2.4 * len(CHANGES), height), layout="constrained")
    panels = figure.subplots(len(data), len(CHANGES), squeeze=False, sharex="col", sharey=True)
    for line, name in zip(panels, data, strict=True):
        for axes, change, heading in zip(line, CHANGES, HEADINGS, strict=True):
            _reduction_panel(axes, [row for row in rows if row["data"] == name], change, methods, bases)
            axes.set_title(f"{name}: {heading}")
        finish(*line)
        line[0].set_yticks(range(len(methods)), methods)
        line[0].set_ylim(len(methods) - 0.5, -0.5)
        for axes in line:
            axes.tick_params(axis="y", length=0)
    _legend(figure, bases)
    return figure


def draw_gains(rows: Sequence[StudyRow]) -> Figure:
    """The fall of the error against the base's k-skewness among test points: a panel a method, a marker a run."""
    from matplotlib.figure import Figure

    methods, bases = (_distinct(rows, name) for name in ("method", "base"))
    methods.remove(BASE)
    columns = min(COLUMNS, len(methods))
    lines = -(-len(methods) // columns)
    figure = Figure(figsize=(2.7 * columns + 0.4, 2.1 * lines + 0.7), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, method in zip(panels.flat, methods, strict=False):
        axes.axhline(0, color=FAINT, lw=1, zorder=0)
        for edge in EDGES:
            axes.axvline(edge, color=FAINT, lw=1, ls=":", zorder=0)
        _markers(axes, [row for row in rows if row["method"] == method], "base_k_skewness", "error_reduction", bases)
        axes.set_title(method)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    finish(*panels.flat)
    figure.supxlabel("k-skewness of the base among test points", fontsize=9)
    figure.supylabel("error falls by, %", fontsize=9)
    _legend(figure, bases)
    return figure


def _reduction_panel(
    axes: Axes, rows: Sequence[StudyRow], change: str, methods: Sequence[str], bases: Sequence[str]
) -> None:
    axes.axvline(0, color=FAINT, lw=1, zorder=0)
    placed = [row | {"place": methods.index(row["method"])} for row in rows if row["method"] in methods]
    _markers(axes, placed, change, "place", bases)
    for place, (number, base) in product(range(len(methods)), enumerate(bases)):
        own = [row[change] for row in placed if (row["place"], row["base"]) == (place, base)]
        if len(values := [value for value in own if value is not None]) > 1:
            axes.plot([fmean(values)] * 2, [place - 0.3, place + 0.3], color=_colour(number), lw=1.2)


def _markers(axes: Axes, rows: Sequence[StudyRow], x: str, y: str, bases: Sequence[str]) -> None:
    """A marker for each run by the encoder's base, filled unless it is of an error that changes insignificantly."""
    for row in rows:
        if row[x] is None or row[y] is None:
            continue
        place = bases.index(row["base"])
        colour = _colour(place)
        filled = "error_reduction" not in (x, y) or row["verdict"] in SIGNIFICANT
        marker, face = MARKERS[place % len(MARKERS)], colour if filled else "white"
        axes.plot(row[x], row[y], ls="none", ms=5, alpha=0.8, marker=marker, mec=colour, mfc=face)


def _legend(figure: Figure, bases: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="none", marker=MARKERS[place % len(MARKERS)], color=_colour(place), label=base)
        for place, base in enumerate(bases)
    ]
    handles.append(Line2D([], [], ls="none", marker="o", mec="black", mfc="white", label="error: not significant"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=8, frameon=False)


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _distinct(rows: Sequence[StudyRow], name: str) -> list[str]:
    return list(dict.fromkeys(row[name] for row in rows))
