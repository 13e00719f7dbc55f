"""Indices of hubness from the histogram of counts, against their definitions over points and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from likeness.hubness.indices import (
    HubRule,
    antihub_rate,
    atkinson,
    count_histogram,
    gini,
    indices_of,
    k_skewness,
    robin_hood,
    shannon_evenness,
)

COUNTS = st.lists(st.integers(0, 60), min_size=2, max_size=50).filter(any)


def histogram(counts: list[int]) -> torch.Tensor:
    return count_histogram(torch.tensor(counts))


@given(counts=COUNTS)
def test_against_the_definitions_over_points(counts: list[int]) -> None:
    h, values, n, total = histogram(counts), np.array(counts, dtype=float), len(counts), sum(counts)
    pairs = np.abs(values[:, None] - values).sum()
    p = values[values > 0] / total
    assert robin_hood(h) == pytest.approx(np.abs(values - values.mean()).sum() / (2 * total), abs=1e-14)
    assert gini(h) == pytest.approx(pairs / (2 * n * total), abs=1e-14)
    assert shannon_evenness(h) == pytest.approx(-(p * np.log(p)).sum() / math.log(n), abs=1e-13)
    assert atkinson(h) == pytest.approx(1 - np.sqrt(values).mean() ** 2 / values.mean(), abs=1e-13)
    assert atkinson(h, 0.3) == pytest.approx(1 - (values**0.7).mean() ** (1 / 0.7) / values.mean(), abs=1e-13)
    assert antihub_rate(h) == (values == 0).mean()
    if len(set(counts)) > 1:
        assert k_skewness(h) == pytest.approx(stats.skew(values), abs=1e-10)


@given(counts=COUNTS)
def test_atkinson_of_a_geometric_and_a_harmonic_mean(counts: list[int]) -> None:
    above = [count + 1 for count in counts]
    mean = np.mean(above)
    assert atkinson(histogram(above), 1) == pytest.approx(1 - stats.gmean(above) / mean, abs=1e-13)
    assert atkinson(histogram(above), 2) == pytest.approx(1 - stats.hmean(above) / mean, abs=1e-13)
    assert atkinson(histogram([*above, 0]), 1) == atkinson(histogram([*above, 0]), 2) == 1


@given(value=st.integers(1, 40), n=st.integers(2, 60))
def test_equal_counts_have_no_hubness(value: int, n: int) -> None:
    answers = indices_of(histogram([value] * n), 10, HubRule())
    assert answers.k_skewness == answers.robin_hood == 0
    assert answers.gini == 0
    assert answers.atkinson == pytest.approx(0, abs=1e-15)
    assert answers.shannon_evenness == pytest.approx(1)
    assert answers.groupie_ratio == pytest.approx(1 / n)
    assert indices_of(histogram([value] * n), 10, HubRule("std")).hub_rate == 0


@given(counts=COUNTS, factor=st.integers(2, 7))
def test_what_the_scale_and_the_shift_of_counts_change(counts: list[int], factor: int) -> None:
    scaled = histogram([factor * count for count in counts])
    for index in (robin_hood, gini, shannon_evenness, atkinson, k_skewness):
        assert index(scaled) == pytest.approx(index(histogram(counts)), abs=1e-10), index.__name__
    assert k_skewness(histogram([count + factor for count in counts])) == pytest.approx(
        k_skewness(histogram(counts)), abs=1e-10
    )


@given(counts=COUNTS)
def test_bounds(counts: list[int]) -> None:
    answers = indices_of(histogram(counts), 1, HubRule())
    assert 0 <= answers.robin_hood <= 1 - 1 / len(counts) + 1e-12
    assert answers.robin_hood <= answers.gini + 1e-12
    assert 0 <= answers.shannon_evenness <= 1
    assert 0 <= answers.atkinson <= 1
    assert not any(math.isnan(value) for value in answers.indices().values())


@pytest.mark.parametrize(
    ("rule", "is_hub"),
    [
        (HubRule(), lambda n: n >= 6),
        (HubRule("multiple", 1.5), lambda n: n >= 4.5),
        (HubRule("std", 1.0), lambda n: n > n.mean() + n.std()),
        (HubRule("absolute", 9.0), lambda n: n >= 9),
    ],
)
def test_which_points_are_hubs(rule: HubRule, is_hub) -> None:
    counts = np.random.default_rng(0).poisson(4, 200)
    answers = indices_of(histogram(counts.tolist()), 3, rule)
    assert answers.hub_rate == pytest.approx(is_hub(counts).mean())
    assert answers.hub_occurrence == pytest.approx(counts[is_hub(counts)].sum() / counts.sum())
    assert answers.max_occurrence == counts.max()
    assert answers.groupie_ratio == pytest.approx(counts.max() / counts.sum())
    assert 0 < answers.hub_rate < 1


def test_an_antihub_that_counts_itself_has_one() -> None:
    h = histogram([1, 1, 1, 5])
    assert antihub_rate(h) == 0
    assert antihub_rate(h, include_self=True) == 0.75


def test_indices_leave_out_what_there_is_not() -> None:
    answers = indices_of(histogram([0, 1, 2]), 1, HubRule())
    assert "asymmetry" not in answers.indices()
    assert "bad_occurrence" not in answers.indices()
    assert all(isinstance(value, float) for value in answers.indices().values())


def test_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"hub_rule.*'sum'"):
        HubRule("sum").hubs(histogram([1, 2]), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hub_factor must be positive, got -1"):
        HubRule(factor=-1).hubs(histogram([1, 2]), 1)
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        atkinson(histogram([1, 2]), 0)
