"""Figures of logged metrics: a line for each group of runs, with a band that its caption explains."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from likeness.pages.parts import Cell, Curve, Lines, Table
from scripts.report.curves import BINS, band
from scripts.report.groups import Group, Study

COMPANION = re.compile(
    r"(/(min|max|undefined|sampled|\d+)|(_sample|_draw)?_se|_null)$"
)  # of another metric, or one of its siblings
BANDED = 12  # lines; of more, bands would hide each other
POINTS = 30_000  # of all lines of a figure
DECADES = 30  # ratio of the largest to the smallest loss from which on the axis is logarithmic
COLUMNS = 8  # groups that a table of last values has room for
MINIMISED = ("loss", "nll", "bpd", "kl", "perplexity")


@dataclass(frozen=True)
class Metric:
    """A metric under the key it is logged by, and how its figure is called."""

    key: str
    title: str
    unit: str = ""
    says: str = ""  # what to see in it


def own_keys(keys: Sequence[str]) -> list[str]:
    """Those that stand for themselves: a mean for its extremes and siblings, a value for its error and its null."""
    known = set(keys)

    def base(key: str) -> bool:
        found = COMPANION.search(key)
        return found is None or not {key[: found.start()], f"{key[: found.start()]}/mean"} & known

    return [key for key in keys if base(key)]


def metric_figure(study: Study, metric: Metric) -> Lines | None:
    """A metric over the steps of training; None where no run has it."""
    groups = [group for group in study.groups if any(metric.key in run.metrics.curves for run in group.runs)]
    bins = max(64, min(BINS, POINTS // max(len(groups), 1)))
    told: set[str] = set()
    curves = [curve for group in groups for curve in _curves(group, metric.key, bins, len(groups) <= BANDED, told)]
    if not curves:
        return None
    minimised = metric.key.rpartition("/")[2] in MINIMISED
    says = metric.says or ("Lower is better." if minimised else "")
    caption = " ".join(filter(None, (says, *sorted(told))))
    logarithmic = minimised and _spans_decades(curves)
    return Lines(metric.key, metric.title, "step", metric.unit, curves, caption, log_y=logarithmic)


def _curves(group: Group, key: str, bins: int, banded: bool, told: set[str]) -> Iterator[Curve]:
    runs = [run.metrics.curves for run in group.runs if key in run.metrics.curves]
    found = band((curves[key] for curves in runs), bins)
    low, high, says = found.low, found.high, ""
    if len(runs) > 1:
        says = "Line and band over seeds: mean, least and greatest of the runs that have come so far."
    elif told_beside := _companions(key, runs[0].keys()):
        *beside, says = told_beside
        low, high = (band([runs[0][end]], bins).mean if end in runs[0] else low for end in beside)
        if beside[0] == beside[1]:  # an error
            error = low
            low, high = (found.mean - error, found.mean + error) if len(error) == len(found.mean) else (low, high)
    elif (high > low).any():
        says = "Line and band of a single run: mean, least and greatest of the rows that share a pixel."
    shown = banded and len(low) == len(high) == len(found.mean) and bool((high > low).any())
    if shown:
        told.add(says)
    ends = (low, high) if shown else (None, None)
    yield Curve(group.label, found.step, found.mean, ends[0], ends[1], group.colour)
    null = f"{key}_null"
    if banded and any(null in curves for curves in runs):
        chance = band((curves[null] for curves in runs if null in curves), bins)
        told.add("Dashed: what chance gives.")
        yield Curve(f"{group.label}, by chance", chance.step, chance.mean, colour=group.colour, dashed=True)


def _companions(key: str, known: object) -> tuple[str, str, str] | None:
    """The two ends of a band that is logged beside a metric, and what it is."""
    root = key.removesuffix("/mean")
    choices = (
        (
            f"{root}/min",
            f"{root}/max",
            "Band: least and greatest of the siblings, layers or pairs that the mean is of.",
        ),
        (f"{key}_se", f"{key}_se", "Band: one standard error to either side."),
        (f"{key}_sample_se", f"{key}_sample_se", "Band: one standard error over samples to either side."),
    )
    return next((choice for choice in choices if choice[0] in known), None)  # type: ignore[operator]


def _spans_decades(curves: Sequence[Curve]) -> bool:
    values = np.concatenate([curve.y for curve in curves])
    return bool(values.min() > 0 and values.max() > DECADES * values.min())


def last_values(study: Study, keys: Sequence[str], name: str) -> Table | None:
    """A row for each metric with its last value in each group, the mean of its runs; None for more than 8 groups."""
    if not keys or len(study.groups) > COLUMNS:
        return None
    columns = ["metric", *(group.label for group in study.groups)]
    rows: list[list[Cell]] = [[key, *(_last(group, key) for group in study.groups)] for key in keys]
    caption = "The last value that was logged; of several runs the mean of theirs." if study.repeated else ""
    return Table(name, "Last values", columns, rows, caption, folded=True)


def _last(group: Group, key: str) -> float | None:
    values = [run.metrics.last[key] for run in group.runs if key in run.metrics.last]
    return float(np.mean(values)) if values else None
