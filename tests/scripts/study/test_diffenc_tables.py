"""Means, standard errors and the Welch test of the DiffEnc study against their textbook formulas."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scripts.study.diffenc_vs_vdm import (
    draw_gains,
    draw_models,
    gain_means,
    model_means,
    printed_gain,
    printed_model,
    welch_tests,
)

BPD = {"VDM": [2.12, 2.10, 2.17], "NT": [2.20, 2.25, 2.21], "DiffEnc": [2.08, 2.11, 2.09]}


def seeds(count: int = 3) -> list[dict[str, Any]]:
    """Runs evaluated on two splits; training samples have 0.1 bits less."""
    return [
        {"model": model, "seed": seed, "split": split, "reconstruction": 0.01, "latent": 0.002, "bpd_draw_se": 0.001}
        | {"diffusion": bpd - 0.012 - less, "bpd": bpd - less}
        for model, values in BPD.items()
        for seed, bpd in enumerate(values[:count])
        for split, less in (("test", 0.0), ("train", 0.1))
    ]


def ratios() -> list[dict[str, Any]]:
    """Gains of two models at three depths, of two seeds."""
    rows = []
    for model, depth, seed in ((m, d, s) for m in ("VDM", "NT") for d in (4, 10, 100) for s in (0, 1)):
        gain = (1 + 0.1 * seed) / depth
        bounds = {"bpd_one": 3 + gain, "bpd_fitted": 3.0, "bpd_learned": 3.1}
        gains = {"gain_predicted": 1.3 * gain, "gain_fitted": gain, "gain_learned": 0.9 * gain}
        rows.append({"model": model, "seed": seed, "T": depth, **bounds, **gains})
    return rows


def test_means_and_standard_errors_are_over_seeds() -> None:
    means = model_means(seeds())
    assert [(row["split"], row["model"], row["seeds"]) for row in means[:3]] == [
        ("test", model, 3) for model in ("VDM", "NT", "DiffEnc")
    ]
    assert means[0]["bpd"] == pytest.approx(np.mean(BPD["VDM"]))
    assert means[0]["bpd_se"] == pytest.approx(stats.sem(BPD["VDM"]))
    assert means[3]["bpd"] == pytest.approx(np.mean(BPD["VDM"]) - 0.1)
    assert means[0]["reconstruction_se"] == pytest.approx(0, abs=1e-12)
    gained = next(row for row in gain_means(ratios()) if (row["model"], row["T"]) == ("NT", 10))
    assert (gained["gain_fitted"], gained["gain_fitted_se"]) == pytest.approx((0.105, 0.005))


def test_the_test_is_welchs_and_one_sided() -> None:
    """t and its degrees of freedom by Welch (1947) and Satterthwaite."""
    (vdm, _, *_) = rows = [row for row in welch_tests(seeds()) if row["split"] == "test"]
    assert [row["hypothesis"] for row in rows] == ["DiffEnc < VDM", "DiffEnc < NT"]
    a, b = np.array(BPD["DiffEnc"]), np.array(BPD["VDM"])
    u, v = a.var(ddof=1) / 3, b.var(ddof=1) / 3
    t, freedom = (a.mean() - b.mean()) / math.sqrt(u + v), (u + v) ** 2 / (u**2 / 2 + v**2 / 2)
    assert vdm["difference"] == pytest.approx(a.mean() - b.mean())
    assert vdm["t"] == pytest.approx(t)
    assert vdm["p"] == pytest.approx(stats.t.cdf(t, freedom))
    assert vdm["p"] < 0.5


def test_one_seed_has_neither_errors_nor_tests() -> None:
    row = model_means(seeds(1))[0]
    assert row["bpd_se"] is None
    assert printed_model(row)["bpd"] == "2.1200"
    assert {test["p"] for test in welch_tests(seeds(1))} == {None}


def test_the_terminal_shows_errors_beside_means() -> None:
    assert printed_model(model_means(seeds())[2])["bpd"] == "2.0933 ±0.0088"
    row = printed_gain(gain_means(ratios())[0])
    assert row == {
        "model": "VDM",
        "T": 4,
        "bpd": "3.2625",
        "predicted": "0.3413 ±0.0163",
        "fitted": "0.2625 ±0.0125",
        "learned": "0.2363 ±0.0113",
    }


@pytest.mark.parametrize("count", [1, 3])
def test_a_dot_for_each_seed_and_an_error_bar_for_each_model(count: int) -> None:
    test, train = draw_models(seeds(count)).axes
    assert [tick.get_text() for tick in test.get_xticklabels()] == ["VDM", "NT", "DiffEnc"]
    dots = test.collections[0].get_offsets()
    assert np.asarray(dots)[:, 1].tolist() == BPD["VDM"][:count]
    assert train.get_title() == "training samples"


def test_gains_are_drawn_against_their_prediction() -> None:
    measured, share = draw_gains(gain_means(ratios())).axes
    first = measured.lines[0]
    assert first.get_label() == "VDM, closed form"
    assert np.asarray(first.get_xdata()) == pytest.approx(1.3 * np.asarray(first.get_ydata()))
    assert np.asarray(share.lines[0].get_ydata()) == pytest.approx(1 / 1.3)
    assert np.asarray(share.lines[0].get_xdata()).tolist() == [4, 10, 100]
