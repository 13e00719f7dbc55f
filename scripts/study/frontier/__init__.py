"""What ingredients of lower likelihood bounds bring: arms of equal networks and training, over seeds and data sets.

Free volatility, importance-sampled times and schedules of each dimension are trained with VDM and with DiffEnc, and
claims about them are decided by rules that were fixed before. What is trained and measured is kept, and a later call
goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from likeness.checks import require_positive
from likeness.files.errors import DataError
from scripts.study.frontier.arms import ARMS, FrontierRun, planned
from scripts.study.frontier.data import DATA, arrays_file
from scripts.study.frontier.measures import (
    Protocol,
    check_file,
    checks_of,
    image_bits,
    keep_check,
    kept_row,
    row_file,
    settings_of,
    train_and_measure,
)
from scripts.study.frontier.pairs import Results
from scripts.study.frontier.report import report
from scripts.study.side_by_side import side_by_side


def run(
    out: Path = Path("runs/frontier"),
    data: Sequence[str] = tuple(DATA),
    data_dir: Path = Path("data"),
    arms: Sequence[str] = tuple(ARMS),
    seeds: int | None = None,
    steps: float = 1.0,
    draws: int = 8,
    limit: int | None = None,
    processes: int = 1,
) -> None:
    """Train what is not trained yet, measure, print the table and the claims, write them and the figure.

    Args:
        out: Where everything is written.
        data: digits, cifar10 (8 x 8 crops) and mnist (14 x 14); what is not at hand is skipped.
        data_dir: Folder with cifar10.npz, or CIFAR-10's batches, and with MNIST/raw.
        arms: a b c d e a_map a_matched f g h i j; all by default.
        seeds: The most trainings of each arm; by default 5 on the digits, 3 on CIFAR-10, 2 on MNIST.
        steps: Steps of a training, as a share of the study's.
        draws: Draws of the noise for each evaluated image.
        limit: The most test images.
        processes: Trainings side by side, of one thread each; 0 reports what is measured so far.
    """
    require_positive(**{"--draws": draws, "--limit": limit})
    if processes < 0:
        raise ValueError(f"--processes must be at least 0, got {processes}")
    protocol = Protocol(draws, limit)
    runs = list(at_hand(list(planned(data, arms, seeds, steps)), data_dir, out))
    ensure_measured(runs, protocol, out, processes)
    report(kept_results(runs, protocol, out), out)


def kept_results(runs: Sequence[FrontierRun], protocol: Protocol, out: Path) -> Results:
    """All that is measured of these runs; raises ValueError where nothing is."""
    rows, bits = [], []
    for one in runs:
        settings = settings_of(one, protocol)
        if (row := kept_row(row_file(one, out), settings)) is not None:
            for check in checks_of(one):
                row |= kept_row(check_file(one, check, out), settings) or {}
            rows.append(row)
            bits.append(image_bits(one, out))
    if not rows:
        raise ValueError(f"none of the {len(runs)} runs is measured in {out}")
    print(f"likeness: {len(rows)} of {len(runs)} runs are measured")
    return Results(rows, bits)


def at_hand(runs: Sequence[FrontierRun], data_dir: Path, out: Path) -> Iterator[FrontierRun]:
    """The runs whose data are there, with the file of their images; the others are skipped by a line for each data."""
    files: dict[str, Path] = {}
    for name in dict.fromkeys(one.data for one in runs):
        try:
            files[name] = arrays_file(name, data_dir, out)
        except DataError as error:
            print(f"likeness: skipped data {name}: {error}", file=sys.stderr, flush=True)
    yield from (replace(one, file=files[one.data].resolve()) for one in runs if one.data in files)


class Job(NamedTuple):
    """A run to train and measure, or a check of one that is finished."""

    run: FrontierRun
    check: str | None = None

    def file(self, out: Path) -> Path:
        """What it leaves."""
        return row_file(self.run, out) if self.check is None else check_file(self.run, self.check, out)

    def __str__(self) -> str:
        return str(self.run) if self.check is None else f"{self.run}: {self.check}"


def ensure_measured(runs: Sequence[FrontierRun], protocol: Protocol, out: Path, processes: int) -> None:
    """Train and measure what is not kept yet, checks last; what is kept of other settings is refused before."""
    settings = {one: settings_of(one, protocol) for one in runs}
    trainings, checks = [Job(one) for one in runs], [Job(one, check) for one in runs for check in checks_of(one)]
    missing = {
        kind: [job for job in jobs if kept_row(job.file(out), settings[job.run]) is None]
        for kind, jobs in {"run": trainings, "check": checks}.items()
    }
    if processes == 0:
        return
    for kind, jobs in missing.items():
        named = [(f"{kind} {number} of {len(jobs)}", job) for number, job in enumerate(jobs, start=1)]
        _in_processes(partial(_work, protocol=protocol, out=out), named, processes)


def _in_processes(work: Callable[[tuple[str, Job]], None], jobs: Sequence[tuple[str, Job]], processes: int) -> None:
    if min(processes, len(jobs)) > 1:
        side_by_side(partial(_on_one_thread, work), jobs, processes)
    else:
        for job in jobs:
            work(job)


def _on_one_thread(work: Callable[[tuple[str, Job]], None], job: tuple[str, Job]) -> None:
    torch.set_num_threads(1)
    work(job)


def _work(named: tuple[str, Job], protocol: Protocol, out: Path) -> None:
    name, job = named
    print(f"likeness: {name}: {job}", file=sys.stderr, flush=True)
    if job.check is None:
        train_and_measure(job.run, protocol, out)
    else:
        keep_check(job.run, job.check, protocol, out)
