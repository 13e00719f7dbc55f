"""Tables and figures of the hubness grid, as Nielsen & Hansen 2024 (arXiv 2311.18364) report their runs.

A cell is compared with the base under its own metric. Figures show what each method changes on each data set, and what
that has to do with the hubness of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from likeness.figures.style import FAINT, MARKERS, PAGE, PALETTE, blank, in_style
from likeness.neighbours.classification import mcnemar
from scripts.hubness.methods import BASE
from scripts.reporting import Row, distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REDUCED = ("train_k_skewness", "train_robin_hood", "test_k_skewness", "test_robin_hood")
CHANGES = ("test_k_skewness_reduction", "test_robin_hood_reduction", "error_reduction")
COUNTED = ("error", "test_k_skewness", "test_robin_hood")  # lower is better
# The paper's split of runs by the base's k-skewness among the test points.
EDGES = (2.5, 3.0)
BINS = (f"<= {EDGES[0]:g}", f"{EDGES[0]:g} - {EDGES[1]:g}", f"> {EDGES[1]:g}")
LEVEL = 0.05
HEADINGS = ("k-skewness falls by, %", "Robin Hood index falls by, %", "error falls by, %")
COLUMNS = 3
SIGNIFICANT = ("better", "worse")


def compared(cells: Sequence[Row]) -> list[Row]:
    """Cells beside their base: relative reductions in percent and McNemar's exact test, without ``correct``.

    100 (h_base - h) / h_base of an index, None where the base has none; 100 (acc - acc_base) / (1 - acc_base).
    Cells whose base is missing are left out.
    """
    bases = {(*_run(cell), cell["metric"]): cell for cell in cells if cell["method"] == BASE}
    keys = [(*_run(cell), cell["metric"]) for cell in cells]
    return [_compared(cell, bases[key]) for cell, key in zip(cells, keys, strict=True) if key in bases]


def _compared(cell: Row, base: Row) -> Row:
    row = {name: value for name, value in cell.items() if name != "correct"} | {"error": 1 - cell["accuracy"]}
    row |= {f"{name}_reduction": _reduction(base[name], cell[name]) for name in REDUCED}
    row |= {"error_reduction": _reduction(1 - base["accuracy"], row["error"])}
    row |= {"base_k_skewness": base["test_k_skewness"], "bin": _bin(base["test_k_skewness"])}
    test = None if cell is base else mcnemar(_right(base), _right(cell))
    row |= {"base_only_right": test and test.baseline_only, "only_right": test and test.other_only}
    return row | {"p": test and test.p, "verdict": test and test.verdict}


def _reduction(base: float, value: float) -> float | None:
    return 100 * (base - value) / base if base > 0 else None


def _bin(skewness: float) -> str:
    return BINS[sum(skewness > edge for edge in EDGES)]


def _right(cell: Row) -> torch.Tensor:
    return torch.tensor([mark == "1" for mark in cell["correct"]])


def summary(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """For each group of runs and each method but the base: min, mean and max of the changes, and significant ones.

    ``by``: the columns in which the runs of a group agree.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row["method"] != BASE:
            groups.setdefault((*(row[name] for name in by), row["method"]), []).append(row)
    return [_summary(dict(zip((*by, "method"), key, strict=True)), group) for key, group in groups.items()]


def _summary(place: Row, runs: Sequence[Row]) -> Row:
    answer: Row = {**place, "runs": len(runs)}
    for name in CHANGES:
        values = [run[name] for run in runs if run[name] is not None]
        for suffix, statistic in (("min", min), ("mean", fmean), ("max", max)):
            answer[f"{name}_{suffix}"] = statistic(values) if values else None
    return answer | {verdict: sum(run["verdict"] == verdict for run in runs) for verdict in ("better", "worse")}


def printed_summary(row: Row) -> Row:
    """A row of :func:`summary` as the terminal shows it: the mean and, of several runs, the range."""
    shown: Row = {"method": row["method"]}
    for name, heading in zip(CHANGES, ("k-skewness", "Robin Hood", "error"), strict=True):
        low, mean, high = (row[f"{name}_{statistic}"] for statistic in ("min", "mean", "max"))
        if mean is None:
            shown[heading] = "-"
        elif row["runs"] == 1:
            shown[heading] = f"{mean:z.1f}"
        else:
            shown[heading] = f"{mean:z.{int(name == 'error_reduction')}f} ({low:z.0f}..{high:z.0f})"
    return shown | {"better": f"{row['better']} of {row['runs']}", "worse": row["worse"]}


def printed_bases(rows: Sequence[Row]) -> list[Row]:
    """Runs on one data set before any reduction, with what chance gives: skewness S, Robin Hood index RH, the error."""
    bases = [row for row in rows if row["method"] == BASE]
    chance = {"model": "by chance", "metric": "", **_hubness(bases[0], "_null"), "k": "", "error, %": ""}
    errors = [f"{100 * row['error']:.2f} ± {100 * row['margin']:.2f}" for row in bases]
    shown = [
        {"model": row["model"], "metric": row["metric"], **_hubness(row), "k": str(row["chosen_k"]), "error, %": error}
        for row, error in zip(bases, errors, strict=True)
    ]
    return [chance, *shown]


def _hubness(row: Row, suffix: str = "") -> Row:
    names = {"S": "k_skewness", "RH": "robin_hood"}
    parts = [(part, heading, name) for part in ("train", "test") for heading, name in names.items()]
    return {f"{part} {heading}": f"{row[f'{part}_{name}{suffix}']:.2f}" for part, heading, name in parts}


def wins(rows: Sequence[Row]) -> list[Row]:
    """For each two methods A and B, in how many of the runs that have both B is lower than A, and in how many equal."""
    runs: dict[object, dict[str, Row]] = {}
    for row in rows:
        runs.setdefault(_run(row), {})[_named(row)] = row
    methods = list(dict.fromkeys(map(_named, rows)))
    answers = []
    for quantity in COUNTED:
        for first, second in permutations(methods, 2):
            pairs = [
                (run[first][quantity], run[second][quantity]) for run in runs.values() if {first, second} <= run.keys()
            ]
            counts = {"lower": sum(b < a for a, b in pairs), "equal": sum(b == a for a, b in pairs), "runs": len(pairs)}
            answers.append({"quantity": quantity, "method": first, "other": second, **counts})
    return answers


def win_matrix(counts: Sequence[Row], quantity: str) -> list[Row]:
    """The counts of one quantity as a matrix: a row for each A, a column for each B, which has A's number."""
    lower = {(row["method"], row["other"]): row["lower"] for row in counts if row["quantity"] == quantity}
    methods = {
        method: str(number) for number, method in enumerate(dict.fromkeys(method for method, _ in lower), start=1)
    }
    return [
        {"A \\ B": f"{methods[first]} {first}"}
        | {number: "" if first == second else str(lower[first, second]) for second, number in methods.items()}
        for first in methods
    ]


def _named(row: Row) -> str:
    """A method with the metric by which its neighbours are found."""
    return f"{row['method']} ({row['metric']})"


def _run(row: Row) -> tuple[str, str]:
    return row["data"], row["model"]


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """In each bin of the base's k-skewness, how many comparisons are better and worse, also where all count at once."""
    tested = [row for row in rows if row["method"] != BASE]
    answers: list[Row] = []
    for name in BINS:
        own = [row for row in tested if row["bin"] == name]
        if own:
            answer: Row = {"base k-skewness": name, "comparisons": len(own)}
            for verdict in ("better", "worse"):
                found = [row for row in own if row["verdict"] == verdict]
                strict = sum(row["p"] <= LEVEL / len(tested) for row in found)
                answer |= {verdict: len(found), f"{verdict}, of all at once": strict}
            answers.append(answer)
    return answers


@in_style()
def draw_reductions(rows: Sequence[Row]) -> Figure:
    """For each data set a row of panels: relative reductions of each method, a marker a run, bars the means of several.

    Of the error, markers are filled where McNemar's test finds the change significant.
    """
    data, methods, bases = (distinct(rows, name) for name in ("data", "method", "base"))
    methods.remove(BASE)
    height = 0.8 + len(data) * (0.6 + 0.2 * len(methods))
    caption = (
        "By how much each method lowers hubness and the error, right of the line: a marker for each run, bars are "
        "means. Of the error, filled markers are significant."
    )
    figure = blank(PAGE, height, caption)
    panels = figure.subplots(len(data), len(CHANGES), squeeze=False, sharex="col", sharey=True)
    for line, name in zip(panels, data, strict=True):
        for axes, change, heading in zip(line, CHANGES, HEADINGS, strict=True):
            _reduction_panel(axes, [row for row in rows if row["data"] == name], change, methods, bases)
            axes.set_title(f"{name}: {heading}")
        line[0].set_yticks(range(len(methods)), methods)
        line[0].set_ylim(len(methods) - 0.5, -0.5)
        for axes in line:
            axes.tick_params(axis="y", length=0)
    _legend(figure, bases)
    return figure


def _reduction_panel(
    axes: Axes, rows: Sequence[Row], change: str, methods: Sequence[str], bases: Sequence[str]
) -> None:
    axes.axvline(0, color=FAINT, lw=1, zorder=0)
    placed = [row | {"place": methods.index(row["method"])} for row in rows if row["method"] in methods]
    _markers(axes, placed, change, "place", bases)
    for place, (number, base) in product(range(len(methods)), enumerate(bases)):
        own = [row[change] for row in placed if (row["place"], row["base"]) == (place, base)]
        if len(values := [value for value in own if value is not None]) > 1:
            axes.plot([fmean(values)] * 2, [place - 0.3, place + 0.3], color=_colour(number), lw=1.2)


@in_style()
def draw_gains(rows: Sequence[Row]) -> Figure:
    """The fall of the error against the base's k-skewness among test points: a panel a method, a marker a run."""
    methods, bases = (distinct(rows, name) for name in ("method", "base"))
    methods.remove(BASE)
    columns = min(COLUMNS, len(methods))
    lines = -(-len(methods) // columns)
    caption = (
        "Whether methods help more where there is more hubness to reduce: a panel for each method, a marker for each "
        "run, above the line the error has fallen."
    )
    figure = blank(PAGE, 1.7 * lines + 0.7, caption)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes, method in zip(panels.flat, methods, strict=False):
        axes.axhline(0, color=FAINT, lw=1, zorder=0)
        for edge in EDGES:
            axes.axvline(edge, color=FAINT, lw=1, ls=":", zorder=0)
        _markers(axes, [row for row in rows if row["method"] == method], "base_k_skewness", "error_reduction", bases)
        axes.set_title(method)
    for axes in panels.flat[len(methods) :]:
        axes.set_visible(False)
    figure.supxlabel("k-skewness of the base among test points")
    figure.supylabel("error falls by (%)")
    _legend(figure, bases)
    return figure


def _markers(axes: Axes, rows: Sequence[Row], x: str, y: str, bases: Sequence[str]) -> None:
    """A marker for each run by the encoder's base, filled unless it is of an error that changes insignificantly."""
    for row in rows:
        if row[x] is None or row[y] is None:
            continue
        place = bases.index(row["base"])
        colour = _colour(place)
        filled = "error_reduction" not in (x, y) or row["verdict"] in SIGNIFICANT
        marker, face = MARKERS[place % len(MARKERS)], colour if filled else "white"
        axes.plot(row[x], row[y], ls="none", alpha=0.8, marker=marker, mec=colour, mfc=face)


def _legend(figure: Figure, bases: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="none", marker=MARKERS[place % len(MARKERS)], color=_colour(place), label=base)
        for place, base in enumerate(bases)
    ]
    handles.append(Line2D([], [], ls="none", marker="o", mec="black", mfc="white", label="error: not significant"))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)


def _colour(place: int) -> str:
    return PALETTE[place % len(PALETTE)]
