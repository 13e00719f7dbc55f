"""Arms of the frontier study against their controls: differences of runs that share seed, data order and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from scripts.reporting import Row
from scripts.study.frontier.arms import ARMS

OWN, FITTED, SCALAR = "bpd", "bpd_fitted", "bpd_scalar"
SUFFIXES = {OWN: "", FITTED: ", fitted volatility", SCALAR: ", one gamma for all"}
ImageBits = Mapping[str, np.ndarray]


class Side(NamedTuple):
    """An arm, and how its finished runs are evaluated."""

    arm: str
    column: str = OWN

    def __str__(self) -> str:
        return self.arm + SUFFIXES[self.column]


class Place(NamedTuple):
    """A data set, and by what its steps were multiplied."""

    data: str
    times: int = 1

    def __str__(self) -> str:
        return self.data if self.times == 1 else f"{self.data}, {self.times} x the steps"


class Paired(NamedTuple):
    """Differences of two sides by seed, and of the images' means over seeds."""

    by_seed: tuple[float, ...]
    images_se: float | None = None

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.by_seed)

    @property
    def se(self) -> float | None:
        """Over seeds; None of a single one."""
        return stdev(self.by_seed) / math.sqrt(len(self.by_seed)) if len(self.by_seed) > 1 else None

    @property
    def below(self) -> bool:
        """Whether the mean is below 0 by two standard errors over seeds."""
        return self.se is not None and self.mean + 2 * self.se < 0

    @property
    def above(self) -> bool:
        """Whether it is above 0 by as much."""
        return self.se is not None and self.mean - 2 * self.se > 0

    def test(self) -> tuple[float | None, float | None]:
        """t and the two-sided p of the paired t-test over seeds; None where it is not defined."""
        from scipy.stats import ttest_1samp

        if len(self.by_seed) < 2 or stdev(self.by_seed) == 0:
            return None, None
        found = ttest_1samp(self.by_seed, 0.0)
        return float(found.statistic), float(found.pvalue)


class Results:
    """Rows of runs, with the bounds of their images if there are any: [N] by column, for each run."""

    def __init__(self, rows: Sequence[Row], bits: Sequence[ImageBits] = ()) -> None:
        self.rows = list(rows)
        self._of = {_key(row): row for row in rows}
        self._bits = {_key(row): found for row, found in zip(rows, bits, strict=False)}

    def places(self) -> list[Place]:
        """In the order of the rows."""
        return list(dict.fromkeys(Place(row["data"], row["times"]) for row in self.rows))

    def runs(self, place: Place, arm: str) -> dict[int, Row]:
        """The rows of an arm by seed."""
        return {row["seed"]: row for row in self.rows if (row["data"], row["times"], row["arm"]) == (*place, arm)}

    def only(self, column: str) -> Row | None:
        """The first row that has a column, of those measured once."""
        return next((row for row in self.rows if column in row), None)

    def paired(self, place: Place, side: Side, control: Side) -> Paired | None:
        """``side`` less ``control`` in bits per dimension, over the seeds that both have; None without any."""
        ours, theirs = self.runs(place, side.arm), self.runs(place, control.arm)
        seeds = [s for s in ours if s in theirs and side.column in ours[s] and control.column in theirs[s]]
        if not seeds:
            return None
        differences = tuple(ours[seed][side.column] - theirs[seed][control.column] for seed in seeds)
        return Paired(differences, self._images_se(place, side, control, seeds))

    def _images_se(self, place: Place, side: Side, control: Side, seeds: Sequence[int]) -> float | None:
        keys = [((*place, side.arm, seed), (*place, control.arm, seed)) for seed in seeds]
        if any(key not in self._bits for pair in keys for key in pair):
            return None
        of_seeds = [self._bits[ours][side.column] - self._bits[theirs][control.column] for ours, theirs in keys]
        difference = np.mean(of_seeds, axis=0)
        return float(difference.std(ddof=1) / math.sqrt(len(difference))) if len(difference) > 1 else None


def _key(row: Row) -> tuple[str, int, str, int]:
    return row["data"], row["times"], row["arm"], row["seed"]


def compared() -> Iterator[tuple[Side, Side]]:
    """Every side with its control: arms, then finished models evaluated in another way."""
    for name, arm in ARMS.items():
        yield from ((Side(name), Side(control)) for control in arm.controls)
    yield Side("d", SCALAR), Side("d")
    for name in ("f", "g", "h", "i", "j"):
        yield Side(name, FITTED), Side(name)
    yield Side("h", FITTED), Side("a")


def pair_rows(results: Results) -> list[Row]:
    """A row for each data set and pair that has been run, in bits per dimension."""
    rows: list[Row] = []
    for place in results.places():
        for side, control in compared():
            found = results.paired(place, side, control)
            if found is None:
                continue
            t, p = found.test()
            row: Row = {"data": str(place), "arm": str(side), "control": str(control), "seeds": len(found.by_seed)}
            row |= {"difference": found.mean, "seeds_se": found.se, "t": t, "p": p, "images_se": found.images_se}
            rows.append(row)
    return rows


def arm_rows(results: Results) -> list[Row]:
    """A row for each data set and arm: means over seeds in bits per dimension, with their standard errors."""
    rows: list[Row] = []
    for place in results.places():
        for name, arm in ARMS.items():
            runs = list(results.runs(place, name).values())
            if not runs:
                continue
            row: Row = {"data": str(place), "arm": name, "what": arm.title, "parameters": runs[0]["parameters"]}
            row |= {"seeds": len(runs), "steps": runs[0]["steps"]}
            for column in SUFFIXES:
                values = [run[column] for run in runs if column in run]
                row[column] = fmean(values) if values else None
                row[f"{column}_se"] = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            rows.append(row)
    return rows
