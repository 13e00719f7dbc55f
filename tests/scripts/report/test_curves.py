"""Metrics in bins against sums over the rows of the file, and files that a kill or a diverged loss left."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest

from scripts.report.curves import BINS, Metrics, band, metrics_of, read_metrics
from tests.scripts.report.run_folders import write_metrics


def test_short_runs_lose_nothing(tmp_path: Path) -> None:
    rows = [(10 * n + 9, 1 / (n + 1), 7.0 if n % 50 == 3 else None) for n in range(200)]
    metrics = read_metrics(write_metrics(tmp_path, ("step", "train/loss", "val/nll"), rows))
    loss, nll = metrics.curves["train/loss"], metrics.curves["val/nll"]
    assert loss.step.tolist() == [step for step, _, _ in rows]
    assert loss.mean.tolist() == loss.low.tolist() == loss.high.tolist() == [value for _, value, _ in rows]
    assert nll.step.tolist() == [39, 539, 1039, 1539]
    assert (metrics.last_step, metrics.notes, metrics.last["val/nll"]) == (1999, [], 7.0)


def test_bins_keep_means_and_every_spike(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=5000)
    values[1234] = 99.0
    metrics = read_metrics(write_metrics(tmp_path, ("step", "x"), list(enumerate(values.tolist()))))
    curve = metrics.curves["x"]
    assert curve.width == 16  # the least power of two that leaves at most 512 bins of 5000 steps
    assert len(curve.mean) == math.ceil(5000 / 16) <= BINS
    for place, number in enumerate(curve.bin.tolist()):
        own = values[16 * number : 16 * number + 16]
        assert curve.mean[place] == pytest.approx(own.mean(), rel=1e-12)
        assert (curve.low[place], curve.high[place]) == (own.min(), own.max())
    assert curve.high.max() == 99.0


def test_coarser_bins_are_those_of_the_rows_themselves(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=4000)
    curve = read_metrics(write_metrics(tmp_path, ("step", "x"), list(enumerate(values.tolist())))).curves["x"]
    coarse = curve.coarser(256)
    parts = [values[start : start + 256] for start in range(0, 4000, 256)]
    np.testing.assert_allclose(coarse.mean, [part.mean() for part in parts], rtol=1e-12)
    assert coarse.low.tolist() == [part.min() for part in parts]
    assert coarse.count.tolist() == [len(part) for part in parts]


def test_rows_that_come_later_make_what_one_reading_of_all_makes(tmp_path: Path) -> None:
    draws = np.random.default_rng(2)
    values = draws.normal(size=3000).tolist()
    rows = [
        (step, x, x if step % 700 == 9 else None, "nan" if step % 900 == 8 else 1.0) for step, x in enumerate(values)
    ]
    path = write_metrics(tmp_path, ("step", "x", "seldom", "y"), rows)
    head, *lines = path.read_bytes().splitlines(keepends=True)
    parts = np.split(np.array(lines), sorted(draws.integers(1, 3000, 40).tolist()))
    pieces = [metrics_of(head + b"".join(part.tolist())) for part in parts]
    found = functools.reduce(Metrics.then, pieces)
    whole = read_metrics(path)
    assert (found.last, found.last_step, found.notes) == (whole.last, 2999, whole.notes)
    assert whole.notes == ["y is NaN in 4 rows, first at step 8"]
    for name, curve in whole.curves.items():
        for part in ("width", "bin", "count", "step", "mean", "low", "high"):
            np.testing.assert_allclose(getattr(found.curves[name], part), getattr(curve, part), rtol=1e-12, atol=1e-15)


def test_a_band_is_of_the_runs_that_have_come_so_far(tmp_path: Path) -> None:
    runs = [[(step, seed + step) for step in range(length)] for seed, length in ((0, 900), (1, 300))]
    curves = [
        read_metrics(write_metrics(tmp_path / str(n), ("step", "x"), rows)).curves["x"] for n, rows in enumerate(runs)
    ]
    assert [curve.width for curve in curves] == [2, 1]
    found = band(curves)
    assert len(found.step) == 450
    assert found.runs.tolist() == [2] * 150 + [1] * 300
    assert (found.mean[10], found.low[10], found.high[10]) == (21.0, 20.5, 21.5)
    assert found.mean[400] == found.low[400] == found.high[400] == 800.5


def test_what_a_kill_cut_short_is_left_out_and_said(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, ("step", "x"), [(0, 1.0), (1, 2.0)])
    path.write_bytes(path.read_bytes() + b"2,3")
    metrics = read_metrics(path)
    assert metrics.curves["x"].mean.tolist() == [1.0, 2.0]
    assert metrics.notes == ["the last row is cut short and left out"]


def test_numbers_that_are_not_finite_are_said_and_empty_cells_are_not(tmp_path: Path) -> None:
    rows = [(0, 1.0, None, 1.0), (5, "nan", 2.0, "inf"), (9, "nan", None, 1.0)]
    metrics = read_metrics(write_metrics(tmp_path, ("step", "train/loss", "val/x", "y"), rows))
    assert metrics.notes == ["y is infinite at step 5", "train/loss is NaN in 2 rows, first at step 5"]
    assert metrics.curves["train/loss"].mean.tolist() == [1.0]
    assert metrics.curves["y"].step.tolist() == [0.0, 9.0]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"", "it holds no row"),
        (b"step,x", "cut short"),
        (b"a,b\r\n1,2\r\n", "no column step"),
        (b"\xff\xfe\x00\r\n\x00\r\n", "no column step"),
        (b"step,x\r\n,1\r\nold,2\r\n3,4\r\n", "2 rows without a step"),
        (b'step,x\r\n1,"2\r\n', ""),
    ],
)
def test_any_content_is_read_or_refused_in_words(tmp_path: Path, content: bytes, note: str) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    assert note in "; ".join(read_metrics(tmp_path / "metrics.csv").notes)
