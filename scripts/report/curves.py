"""What ``metrics.csv`` says, read fast and kept small: each metric in bins of steps, with its extremes.

The width of a bin is a power of two, so that bins of a short run merge exactly into those of a long one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame

BINS = 512  # of a run, at most: about one a pixel


@dataclass(frozen=True)
class Binned:
    """A metric in bins of ``width`` steps, [B] each, empty ones left out; ``step`` is the mean of the steps in a bin.

    Where a bin holds one row, as in short runs, nothing is lost.
    """

    width: int
    bin: np.ndarray
    count: np.ndarray
    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def coarser(self, width: int) -> Binned:
        """The same in bins of a larger power of two."""
        if width == self.width:
            return self
        bins = self.bin // (width // self.width)
        return _binned(width, bins, self.count, self.step, self.mean, self.low, self.high)

    @property
    def last(self) -> float:
        """Of the last bin; the last value itself where bins hold one row."""
        return float(self.mean[-1])


@dataclass(frozen=True)
class Metrics:
    """The metrics of a run by name, its last step, and what was wrong with the file."""

    curves: dict[str, Binned] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)  # the last finite value of each
    last_step: int | None = None
    notes: Sequence[str] = ()


def read_metrics(path: Path) -> Metrics:
    """The metrics of a file; rows and values that make no sense are left out, and that is noted."""
    import pandas as pd

    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    notes = ["the last row is cut short and left out"] if len(whole) < len(content) else []
    if not whole:
        return Metrics(notes=[*notes, "it holds no row"])
    try:
        table = pd.read_csv(io.BytesIO(whole), on_bad_lines="skip", encoding_errors="replace", low_memory=False)
    except (ValueError, pd.errors.ParserError) as error:
        return Metrics(notes=[*notes, f"it cannot be read: {' '.join(str(error).split())}"])
    if "step" not in table:
        return Metrics(notes=[*notes, "it has no column step"])
    table = table.apply(pd.to_numeric, errors="coerce")
    known = np.isfinite(table["step"])
    if skipped := int((~known).sum()):
        notes.append(f"{skipped} rows without a step are left out")
        table = table[known]
    if not table["step"].is_monotonic_increasing:
        table = table.sort_values("step", kind="stable")
    notes += _not_finite(table, whole)
    return _summarised(table, notes)


def _summarised(table: DataFrame, notes: list[str]) -> Metrics:
    steps = table["step"].to_numpy(np.int64)
    if not len(steps):
        return Metrics(notes=notes)
    width = 1
    while steps[-1] // width >= BINS:
        width *= 2
    curves, last = {}, {}
    for name in table.columns.drop("step"):
        values = table[name].to_numpy(np.float64)
        known = np.isfinite(values)
        if known.any():
            own, at = values[known], steps[known]
            curves[str(name)] = _binned(width, at // width, np.ones(len(own)), at.astype(float), own, own, own)
            last[str(name)] = float(own[-1])
    return Metrics(curves, last, int(steps[-1]), notes)


def _binned(width: int, bins: np.ndarray, count: np.ndarray, *columns: np.ndarray) -> Binned:
    """Rows in the order of their bins, put together: counts add up, steps and means are weighted by them."""
    step, mean, low, high = columns
    starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
    total = np.add.reduceat(count, starts)
    return Binned(
        width,
        bins[starts],
        total,
        np.add.reduceat(step * count, starts) / total,
        np.add.reduceat(mean * count, starts) / total,
        np.minimum.reduceat(low, starts),
        np.maximum.reduceat(high, starts),
    )


def _not_finite(table: DataFrame, content: bytes) -> list[str]:
    """Which metrics were logged as NaN or infinite, and from which step on."""
    notes = []
    for name in table.columns:
        infinite = np.isinf(table[name].to_numpy(np.float64))
        if infinite.any():
            notes.append(f"{name} is infinite at step {int(table['step'].to_numpy()[infinite][0])}")
    if b"nan" not in content and b"NaN" not in content:
        return notes
    texts = _texts(content)
    if len(texts) and "step" in texts:
        for name in texts.columns:
            wrong = texts[name].str.lower() == "nan"
            if wrong.any():
                notes.append(f"{name} is NaN in {int(wrong.sum())} rows, first at step {texts['step'][wrong].iloc[0]}")
    return notes


def _texts(content: bytes) -> DataFrame:
    """The cells as they are written: a NaN that was logged is no empty cell."""
    import pandas as pd

    options = {"dtype": str, "keep_default_na": False, "on_bad_lines": "skip", "encoding_errors": "replace"}
    return pd.read_csv(io.BytesIO(content), **options)


@dataclass(frozen=True)
class Band:
    """A metric over several runs, [B] each: the mean of those that have come so far, their extremes, their number."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: np.ndarray


def band(curves: Iterable[Binned], bins: int = BINS) -> Band:
    """Runs of one metric put together; of a single run the extremes are those within each bin."""
    own = list(curves)
    width = max(curve.width for curve in own)
    while max(int(curve.bin[-1]) * curve.width for curve in own) // width >= bins:
        width *= 2
    own = [curve.coarser(width) for curve in own]
    if len(own) == 1:
        (one,) = own
        return Band(one.step, one.mean, one.low, one.high, np.ones(len(one.step), int))
    places = np.unique(np.concatenate([curve.bin for curve in own]))
    means, steps = (np.full((len(own), len(places)), np.nan) for _ in range(2))
    for row, curve in enumerate(own):
        at = np.searchsorted(places, curve.bin)
        means[row, at], steps[row, at] = curve.mean, curve.step
    runs = np.isfinite(means).sum(0)
    return Band(np.nanmean(steps, 0), np.nanmean(means, 0), np.nanmin(means, 0), np.nanmax(means, 0), runs)
