"""What ingredients of lower likelihood bounds bring: arms of equal networks and training, over seeds and data sets.

Free volatility, importance-sampled times and schedules of each dimension are trained with VDM and with DiffEnc, and
claims about them are decided by rules that were fixed before. What is trained and measured is kept, and a later call
goes on from there.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from likeness.checks import require_positive
from likeness.files.errors import DataError
from scripts.study.frontier_arms import ARMS, FrontierRun, planned
from scripts.study.frontier_data import DATA, arrays_file
from scripts.study.frontier_measures import Protocol, image_bits, kept_row, train_and_measure
from scripts.study.frontier_pairs import Results
from scripts.study.frontier_report import report


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
        arms: a b c d a_map a_matched f g h i j; all by default.
        seeds: The most trainings of each arm; by default 5 on the digits, 3 on CIFAR-10, 2 on MNIST.
        steps: Of training, as a share of the study's.
        draws: Of the noise of each evaluated image.
        limit: The most test images.
        processes: Trainings side by side, of one thread each; 0 trains nothing and reports what is kept.
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
    rows = [(one, row) for one in runs if (row := kept_row(one, protocol, out)) is not None]
    if not rows:
        raise ValueError(f"none of the {len(runs)} runs is measured in {out}")
    print(f"likeness: {len(rows)} of {len(runs)} runs are measured")
    return Results([row for _, row in rows], [image_bits(one, out) for one, _ in rows])


def at_hand(runs: Sequence[FrontierRun], data_dir: Path, out: Path) -> Iterator[FrontierRun]:
    """The runs whose data are there, with the file of their images; the others are skipped by a line for each data."""
    files: dict[str, Path] = {}
    for name in dict.fromkeys(one.data for one in runs):
        try:
            files[name] = arrays_file(name, data_dir, out)
        except DataError as error:
            print(f"likeness: skipped data {name}: {error}", file=sys.stderr, flush=True)
    yield from (replace(one, file=files[one.data].resolve()) for one in runs if one.data in files)


def ensure_measured(runs: Sequence[FrontierRun], protocol: Protocol, out: Path, processes: int) -> None:
    """Train and measure what is not kept yet, in this order; kept rows of other settings are refused before."""
    missing = [one for one in runs if kept_row(one, protocol, out) is None]
    if processes == 0:
        return
    measured = partial(_measured, protocol=protocol, out=out, count=len(missing))
    numbered = list(enumerate(missing, start=1))
    if processes == 1:
        for each in numbered:
            measured(each)
        return
    context = multiprocessing.get_context("spawn")  # a process that was forked from one with threads may wait for ever
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        for _ in pool.map(measured, numbered):
            pass


def _measured(numbered: tuple[int, FrontierRun], protocol: Protocol, out: Path, count: int) -> None:
    number, one = numbered
    print(f"likeness: run {number} of {count}: {one}", file=sys.stderr, flush=True)
    train_and_measure(one, protocol, out, "cpu")
