"""Paired differences of the frontier study against SciPy, and its claims from made-up results in all three outcomes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scripts.study.frontier.claims import CIFAR, DIGITS, LONGER, MNIST, decided
from scripts.study.frontier.pairs import FITTED, SCALAR, Place, Results, Side, arm_rows, pair_rows
from scripts.study.frontier.report import draw_differences, report

NOISE = np.array([0.0, 0.001, -0.001, 0.0005, -0.0005])  # of the seeds
TIMES = {"stratified_uniform": 0.2, "stratified_signal": 0.132, "stratified_adaptive": 0.126}
TIMES |= {"gradient_uniform": 1.0, "gradient_signal": 0.7, "gradient_adaptive": 0.72}
CODED = {"coder_net": 2.41, "coder_elbo": 2.4, "coder_se": 0.01, "coder_borrowed": 9.0, "coder_lossless": True}


def rows(place: Place, seeds: int = 5, **bpd: float) -> list[dict[str, Any]]:
    """Runs of some arms whose differences are alike over seeds but for a little noise; seeds differ by far more."""
    return [
        {"data": place.data, "times": place.times, "arm": arm, "seed": seed, "steps": 10, "parameters": 7}
        | {"bpd": value + 0.1 * seed + (number % 2) * NOISE[seed]}
        for number, (arm, value) in enumerate(bpd.items())
        for seed in range(seeds)
    ]


def outcome(name: str, *parts: list[dict[str, Any]]) -> str:
    return next(
        claim.outcome for claim in decided(Results([row for part in parts for row in part])) if claim.name == name
    )


def with_columns(found: list[dict[str, Any]], arm: str, **columns: Any) -> list[dict[str, Any]]:
    return [row | columns if row["arm"] == arm else row for row in found]


def test_paired_differences_are_those_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    theirs, ours = values = rng.normal(size=(2, 5))
    images = rng.normal(size=(2, 5, 30))
    made = [(arm, seed, v) for arm, of_arm in zip("ab", values, strict=True) for seed, v in enumerate(of_arm)]
    table = [{"data": "digits", "times": 1, "arm": arm, "seed": seed, "bpd": v} for arm, seed, v in made]
    bits = [{"bpd": images[int(arm == "b"), seed]} for arm, seed, _ in made]
    found = Results(table, bits).paired(DIGITS, Side("b"), Side("a"))
    assert found is not None
    expected = stats.ttest_rel(ours, theirs)
    assert found.test() == pytest.approx((expected.statistic, expected.pvalue))
    assert found.mean == pytest.approx((ours - theirs).mean())
    assert found.se == pytest.approx(stats.sem(ours - theirs))
    assert found.images_se == pytest.approx(stats.sem((images[1] - images[0]).mean(0)))


def test_only_seeds_that_both_have_are_compared() -> None:
    table = rows(DIGITS, 3, a=2.0, b=1.9)
    found = Results([row for row in table if (row["arm"], row["seed"]) != ("a", 1)]).paired(
        DIGITS, Side("b"), Side("a")
    )
    assert found is not None
    assert found.by_seed == pytest.approx((-0.1, -0.101))
    assert found.images_se is None
    single = Results(rows(DIGITS, 1, a=2.0, b=1.9)).paired(DIGITS, Side("b"), Side("a"))
    assert single is not None
    assert (single.se, single.test(), single.below, single.above) == (None, (None, None), False, False)
    assert Results(table).paired(CIFAR, Side("b"), Side("a")) is None
    assert Results(table).paired(DIGITS, Side("b", FITTED), Side("a")) is None


@pytest.mark.parametrize(
    ("h", "i", "wanted"),
    [(2.03, 2.01, "supported"), (2.03, 2.02, "not shown"), (2.03, 2.04, "refuted"), (2.03, 2.0299, "not shown")],
)
def test_volatility_closes_half_of_the_gap(h: float, i: float, wanted: str) -> None:
    assert outcome("V", rows(DIGITS, a=2.0, h=h, i=i)) == wanted


@pytest.mark.parametrize(("g", "wanted"), [(1.999, "supported"), (2.005, "not shown"), (2.02, "refuted")])
def test_volatility_of_a_trained_encoder(g: float, wanted: str) -> None:
    assert outcome("V, trained encoder", rows(DIGITS, f=2.0, g=g)) == wanted


@pytest.mark.parametrize(
    ("b", "longer", "moments", "wanted"),
    [
        (1.98, 2.0, {}, "supported"),
        (1.98, 1.9, {}, "not shown"),  # still lower after 4 x the steps
        (2.0, 2.0, {}, "not shown"),
        (1.98, 2.0, {"stratified_signal": 0.2, "stratified_adaptive": 0.2}, "not shown"),
        (1.98, 2.0, {"gradient_signal": 0.9, "gradient_adaptive": 0.86}, "refuted"),
    ],
)
def test_sampled_times(b: float, longer: float, moments: dict[str, float], wanted: str) -> None:
    short = with_columns(rows(DIGITS, a=2.0, b=b), "a", **(TIMES | moments))
    assert outcome("IS", short, rows(LONGER, 3, a=2.0, b=longer)) == wanted


@pytest.mark.parametrize(
    ("d", "seeds", "scalar", "wanted"),
    [
        (1.98, 5, 2.6, "supported"),
        (1.98, 5, 1.9, "not shown"),  # better along one gamma for all
        (1.9995, 5, 2.6, "refuted"),
        (1.98, 1, 2.6, "not shown"),
    ],
)
def test_a_gamma_of_each_dimension(d: float, seeds: int, scalar: float, wanted: str) -> None:
    table = with_columns(rows(DIGITS, seeds, a=2.0, d=d, a_map=2.0), "d", **{SCALAR: scalar})
    assert outcome("MV", table) == wanted


@pytest.mark.parametrize(
    ("e", "kl", "seeds", "wanted"),
    [
        (1.95, 0.02, 5, "supported"),
        (1.95, 0.02, 1, "not shown"),
        (1.99, 0.02, 5, "not shown"),
        (1.95, 0.0001, 5, "refuted"),
    ],
)
def test_a_context_pays_for_itself(e: float, kl: float, seeds: int, wanted: str) -> None:
    assert outcome("Context", with_columns(rows(DIGITS, seeds, d=2.0, e=e), "e", context=kl)) == wanted


@pytest.mark.parametrize(
    ("j", "mnist", "wanted"),
    [(1.9, 1.9, "supported"), (1.9, None, "not shown"), (1.9, 2.1, "refuted"), (1.9999, 1.9, "not shown")],
)
def test_everything_together(j: float, mnist: float | None, wanted: str) -> None:
    parts = [rows(place, 3, f=2.0, j=j, a_matched=2.0) for place in (DIGITS, CIFAR)]
    last = [] if mnist is None else rows(MNIST, 2, f=2.0, j=mnist, a_matched=2.0)
    assert outcome("All", *parts, last) == wanted


@pytest.mark.parametrize(
    ("coded", "wanted"),
    [
        ({}, "supported"),
        ({"coder_net": 2.43}, "not shown"),
        ({"coder_net": 2.36}, "refuted"),
        ({"coder_lossless": False}, "refuted"),
    ],
)
def test_the_coder_takes_what_the_bound_says(coded: dict[str, Any], wanted: str) -> None:
    assert outcome("Honesty", with_columns(rows(DIGITS, 1, f=2.0), "f", **(CODED | coded))) == wanted


def test_nothing_is_shown_by_nothing() -> None:
    assert {claim.outcome for claim in decided(Results(rows(DIGITS, a_map=2.0)))} == {"not shown"}


def test_tables_have_every_arm_and_pair_that_was_run() -> None:
    table = rows(DIGITS, 3, a=2.0, h=2.03) + rows(CIFAR, 2, a=2.0)
    results = Results(with_columns(table, "h", **{FITTED: 2.01}))
    assert [(row["data"], row["arm"], row["seeds"]) for row in arm_rows(results)] == [
        ("digits", "a", 3),
        ("digits", "h", 3),
        ("cifar10", "a", 2),
    ]
    pairs = {(row["arm"], row["control"]): row for row in pair_rows(results)}
    assert set(pairs) == {("h", "a"), ("h, fitted volatility", "h"), ("h, fitted volatility", "a")}
    assert pairs["h", "a"]["difference"] == pytest.approx(0.03)


def test_the_report_is_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(
        with_columns(rows(DIGITS, a=2.0, h=2.03, i=2.01), "i", **{FITTED: 2.0}) + rows(LONGER, 2, a=2.0, b=1.9)
    )
    report(results, tmp_path)
    assert "V: supported" in capsys.readouterr().out
    text = (tmp_path / "claims.txt").read_text()
    assert "V: supported" in text
    assert "i - h = -0.0200 ± " in text
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}.csv" for name in ("arms", "pairs", "runs")),
        *("claims.txt", "claims.json", "differences.png", "differences.pdf"),
    }
    first, second = draw_differences(results).axes
    assert [tick.get_text() for tick in first.get_xticklabels()][:3] == ["h - a", "i - h", "i - a"]
    assert np.asarray(first.collections[0].get_offsets())[:, 1].tolist() == pytest.approx(0.03 + NOISE)
    assert second.get_title() == "digits, 4 x the steps"
