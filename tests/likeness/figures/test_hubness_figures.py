"""What the figures of hubness show: the counts, their null, and methods in rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from scipy.stats import binom

from likeness.figures.hubness import Quantity, at_least, binned, k_occurrence_figure, method_figure
from likeness.figures.output import save_figure
from likeness.hubness.analysis import HubnessReport, analyse_hubness
from likeness.seeding import generator


def report(n: int = 300, dim: int = 40, k: int = 10) -> HubnessReport:
    return analyse_hubness(torch.randn(n, dim, generator=generator(1), dtype=torch.float64), k)


def test_the_points_of_small_counts_are_their_numbers() -> None:
    found = report()
    counts = found.k_occurrence.numpy()
    density, survival = k_occurrence_figure({"one": found}).axes
    drawn = {line.get_label(): line.get_xydata() for line in density.lines}["one"]
    assert (drawn[:3, 0] == [0, 1, 2]).all()
    assert (drawn[:3, 1] == [(counts == value).sum() for value in range(3)]).all()
    steps = survival.lines[-1].get_xydata()
    assert (steps[:, 1] == [(counts >= value).sum() for value in range(1, counts.max() + 1)]).all()


def test_bins_of_large_counts_hold_every_point_once() -> None:
    histogram = np.bincount(np.random.default_rng(0).integers(0, 500, 5000))
    centres, points = binned(histogram)
    start, total = 0.0, 0.0
    for centre, each in zip(centres, points, strict=True):
        width = 2 * (centre - start) + 1
        total, start = total + width * each, start + width
    assert len(centres) < 40
    assert (start, total) == (len(histogram), pytest.approx(5000))


def test_bins_without_points_are_left_out() -> None:
    histogram = np.zeros(600)
    histogram[[0, 3, 599]] = [5, 2, 1]
    centres, points = binned(histogram)
    assert centres[:2].tolist() == [0, 3]
    assert points[:2].tolist() == [5, 2]
    assert len(centres) == 3


def test_the_grey_curve_is_a_binomial() -> None:
    found = report(n=200, k=7)
    density, survival = k_occurrence_figure({"one": found}).axes
    null = next(line for line in density.lines if line.get_label() == "if neighbours were random").get_xydata()
    expected = 200 * binom.pmf(null[:, 0], 199, 7 / 199)
    assert null[:, 1] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    above = survival.lines[0].get_xydata()
    assert above[:, 1] == pytest.approx(200 * binom.sf(above[:, 0] - 1, 199, 7 / 199), rel=1e-6, abs=1e-9)


def test_several_reports_share_the_panels() -> None:
    figure = k_occurrence_figure({"before": report(), "after": report(dim=2)})
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"before", "after", "if neighbours were random"}
    assert all("300 lists of the 10 nearest" in axes.get_xlabel() for axes in figure.axes)


def test_equal_counts_are_drawn(tmp_path: Path) -> None:
    ring = torch.tensor([[(i + 1) % 5, (i - 1) % 5] for i in range(5)])
    found = analyse_hubness(torch.eye(5), 2, neighbours=ring)
    assert found.max_occurrence == 2
    assert save_figure(k_occurrence_figure({"ring": found}), tmp_path / "ring.png").stat().st_size > 0


def test_at_least_is_a_sum_from_above() -> None:
    counts, points = at_least(np.array([3, 0, 2, 1]))
    assert counts.tolist() == [1, 2, 3]
    assert points.tolist() == [3, 3, 1]


def test_methods_are_rows_with_intervals_and_notes() -> None:
    quantities = [
        Quantity("skewness", [1.5, 0.5, 0.7], chance=0.3, notes=["", "-67 %", "-53 %"]),
        Quantity("error", [10.0, 9.0, 11.0], margins=[1.0, 2.0, 1.0]),
    ]
    first, second = method_figure(["base", "csls", "nicdm"], quantities).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["base", "csls", "nicdm"]
    assert [line.get_xdata()[0] for line in first.lines[:2]] == [1.5, 0.3]
    assert [text.get_text() for text in first.texts] == ["", "-67 %", "-53 %"]
    intervals = next(part for part in second.collections if isinstance(part, LineCollection)).get_segments()
    assert [(low[0], high[0]) for low, high in intervals] == [(9, 11), (7, 11), (10, 12)]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the base is on top
