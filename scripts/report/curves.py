"""What ``metrics.csv`` says, read fast and kept small: each metric in bins of steps, with its extremes.

The width of a bin is a power of two, so that bins of a short run merge exactly into those of a long one.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas import DataFrame, Series

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

    def then(self, later: Binned) -> Binned:
        """These bins and those of later rows, as wide as these; the last one and the first may be one."""
        pairs = (
            (getattr(self, name), getattr(later, name)) for name in ("bin", "count", "step", "mean", "low", "high")
        )
        return _binned(self.width, *(np.concatenate(pair) for pair in pairs))

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
    damage: Sequence[str] = ()  # of the file
    infinite: dict[str, int] = field(default_factory=dict)  # the first step at which a metric was
    nan: dict[str, tuple[int, str]] = field(default_factory=dict)  # in how many rows one was, and the first step

    @property
    def notes(self) -> list[str]:
        """What was wrong with the file, and which metrics were logged as infinite or NaN."""
        infinite = [f"{name} is infinite at step {step}" for name, step in self.infinite.items()]
        nan = [f"{name} is NaN in {count} rows, first at step {step}" for name, (count, step) in self.nan.items()]
        return [*self.damage, *infinite, *nan]

    def then(self, later: Metrics) -> Metrics:
        """These and those of rows that came to the file later, as if all had been read at once."""
        damage = list(dict.fromkeys([*self.damage, *later.damage]))
        if later.last_step is None:
            return replace(self, damage=damage)
        width = _width(later.last_step)
        curves = {name: curve.coarser(width) for name, curve in {**later.curves, **self.curves}.items()}
        curves |= {name: curves[name].then(curve) for name, curve in later.curves.items() if name in self.curves}
        nan = {name: (count + later.nan.get(name, (0, ""))[0], step) for name, (count, step) in self.nan.items()}
        return Metrics(
            curves,
            {**self.last, **later.last},
            later.last_step,
            damage,
            {**later.infinite, **self.infinite},
            {**later.nan, **nan},
        )


def read_metrics(path: Path) -> Metrics:
    """The metrics of a file. That it is missing is noted, and rows and values that make no sense are left out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return unread(error)
    whole = content[: content.rfind(b"\n") + 1]
    metrics = metrics_of(whole)
    cut = ["the last row is cut short and left out"] if len(whole) < len(content) else []
    return replace(metrics, damage=[*cut, *metrics.damage])


def unread(error: OSError) -> Metrics:
    """Those of a file that cannot be read."""
    absent = isinstance(error, FileNotFoundError)
    return Metrics(damage=["there is none" if absent else f"it cannot be read: {error.strerror}"])


def metrics_of(content: bytes) -> Metrics:
    """The same of the lines of a file, of which the first one names the columns."""
    import pandas as pd

    if not content:
        return Metrics(damage=["it holds no row"])
    try:
        table = pd.read_csv(io.BytesIO(content), on_bad_lines="skip", encoding_errors="replace", low_memory=False)
    except (ValueError, pd.errors.ParserError) as error:
        return Metrics(damage=[f"it cannot be read: {' '.join(str(error).split())}"])
    columns = {str(name): _numbers(column) for name, column in table.items()}
    if "step" not in columns:
        return Metrics(damage=["it has no column step"])
    damage = []
    known = np.isfinite(columns["step"])
    if skipped := int((~known).sum()):
        damage.append(f"{skipped} rows without a step are left out")
        columns = {name: values[known] for name, values in columns.items()}
    if (np.diff(columns["step"]) < 0).any():
        order = np.argsort(columns["step"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    return replace(_summarised(columns), damage=damage, infinite=_infinite(columns), nan=_nan(content))


def _numbers(column: Series) -> np.ndarray:
    import pandas as pd

    plain = column if column.dtype.kind in "if" else pd.to_numeric(column, errors="coerce")
    return plain.to_numpy(np.float64)


def _summarised(columns: dict[str, np.ndarray]) -> Metrics:
    steps = columns["step"].astype(np.int64)
    if not len(steps):
        return Metrics()
    width = _width(int(steps[-1]))
    curves, last = {}, {}
    for name, values in columns.items():
        known = np.isfinite(values)
        if name != "step" and known.any():
            own, at = values[known], steps[known]
            curves[name] = _binned(width, at // width, np.ones(len(own)), at.astype(float), own, own, own)
            last[name] = float(own[-1])
    return Metrics(curves, last, int(steps[-1]))


def _width(last_step: int) -> int:
    """That of the bins of a run that has come to this step."""
    width = 1
    while last_step // width >= BINS:
        width *= 2
    return width


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


def _infinite(columns: dict[str, np.ndarray]) -> dict[str, int]:
    """The first step at which a metric was logged as infinite."""
    infinite = {name: np.isinf(values) for name, values in columns.items()}
    return {name: int(columns["step"][found][0]) for name, found in infinite.items() if found.any()}


def _nan(content: bytes) -> dict[str, tuple[int, str]]:
    """In how many rows a metric was logged as NaN, and the step of the first."""
    if b"nan" not in content and b"NaN" not in content:
        return {}
    texts = _texts(content)
    nan = {str(name): column.str.lower() == "nan" for name, column in texts.items()}
    return {name: (int(found.sum()), str(texts["step"][found].iloc[0])) for name, found in nan.items() if found.any()}


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
