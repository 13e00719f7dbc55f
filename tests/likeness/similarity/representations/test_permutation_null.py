"""The permutation null: uniform p-values on unrelated data, small ones on related data, exact where countable."""

from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest
import scipy.stats
import torch

from likeness.similarity.catalogue import REPRESENTATION_MEASURES, RepresentationMeasure, of_function
from likeness.similarity.representations.cca import m_cca, principal_basis
from likeness.similarity.representations.permutation_null import NullDistribution, null_distribution, pairwise_nulls
from tests.likeness.similarity.paired_samples import related, unrelated

measures = pytest.mark.parametrize("measure", REPRESENTATION_MEASURES.values(), ids=REPRESENTATION_MEASURES)
CONTINUOUS = ["linear_cka", "unbiased_linear_cka", "procrustes", "svcca", "pwcca", "rsa"]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_p_values_of_unrelated_data_are_uniform(name: str) -> None:
    """Kolmogorov-Smirnov over 150 draws; p = (1 + #) / (n + 1) takes 50 values, so the fit is near enough."""
    p_values = [
        null_distribution(REPRESENTATION_MEASURES[name], *unrelated(20, (2, 3), seed), n=49).p_value
        for seed in range(150)
    ]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01
    assert sum(p <= 0.1 for p in p_values) <= 27  # at most 15 expected, whatever the measure; 27 has chance 1e-3


@measures
def test_the_p_value_of_related_data_is_the_smallest_there_is(measure: RepresentationMeasure) -> None:
    null = null_distribution(measure, *related(60, (3, 4), noise=0.1), n=99)
    assert null.p_value == 0.01
    assert null.observed == pytest.approx(float(measure(*related(60, (3, 4), noise=0.1))), abs=1e-12)


@measures
def test_the_null_is_what_independent_draws_score(measure: RepresentationMeasure) -> None:
    null = null_distribution(measure, *unrelated(30, (3, 4)), n=200)
    draws = torch.stack([measure(*unrelated(30, (3, 4), seed)) for seed in range(1, 101)])
    assert null.mean == pytest.approx(float(draws.mean()), abs=4 * float(draws.std()) / 10 + 0.02)
    assert null.quantile(0.05) < null.quantile(0.5) < null.quantile(0.95)


def test_the_biased_null_is_positive_and_the_unbiased_is_not() -> None:
    biased, unbiased = (
        null_distribution(REPRESENTATION_MEASURES[name], *unrelated(32, (8, 8)), n=400)
        for name in ("linear_cka", "unbiased_linear_cka")
    )
    assert biased.mean == pytest.approx(0.2, abs=0.03)
    assert unbiased.mean == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("larger_is_more_alike", [True, False])
def test_the_p_value_counts_what_is_at_least_as_alike(larger_is_more_alike: bool) -> None:
    null = NullDistribution(0.3, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), larger_is_more_alike)
    assert null.p_value == pytest.approx((1 + (2 if larger_is_more_alike else 3)) / 5)


def test_a_permutation_that_changes_nothing_counts_as_extreme() -> None:
    """Of the 6 orders of 3 points the identity is one, so p tends to 1/6 however close x is to y."""
    x = torch.tensor([[0.0], [1.0], [3.0]])
    null = null_distribution(
        REPRESENTATION_MEASURES["procrustes"], x, 2 * x + 0.01 * torch.tensor([[0.0], [1.0], [0.0]]), n=3000
    )
    assert null.p_value == pytest.approx(1 / 6, abs=0.02)
    every = torch.stack([REPRESENTATION_MEASURES["procrustes"](x, x[list(order)]) for order in permutations(range(3))])
    assert null.mean == pytest.approx(float(every.mean()), abs=0.03)


@measures
def test_the_same_seed_gives_the_same_null(measure: RepresentationMeasure, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = related(20)
    first = null_distribution(measure, x, y, n=7, seed=3)
    monkeypatch.setattr(
        "likeness.similarity.representations.permutation_null._MAX_ELEMENTS", 1
    )  # one permutation at a time
    second = null_distribution(measure, x, y, n=7, seed=3)
    torch.testing.assert_close(first.values, second.values, rtol=0, atol=1e-12)
    other = null_distribution(measure, x, y, n=7, seed=4)
    assert not torch.equal(first.values, other.values)


def test_any_function_has_a_null() -> None:
    x, y = related(50, (2, 3))
    null = null_distribution(of_function(m_cca, "m_CCA", larger_is_more_alike=True), x, y, n=99)
    whole = replace(REPRESENTATION_MEASURES["svcca"], prepare=partial(principal_basis, variance=1.0))
    torch.testing.assert_close(null.values, null_distribution(whole, x, y, n=99).values, rtol=0, atol=1e-12)
    assert null.p_value == 0.01


@pytest.mark.parametrize("name", ["procrustes", "pwcca"])
def test_all_pairs_at_once(name: str) -> None:
    """PWCCA has two directions, so that each pair is permuted twice; of a symmetric measure both are one."""
    samples = [*related(30, (3, 4)), unrelated(30)[0]]
    found = pairwise_nulls(REPRESENTATION_MEASURES[name], samples, ("a", "b", "c"), n=19, seed=2)
    assert found.mean.diagonal().isnan().all()
    for i, j in ((0, 1), (0, 2), (1, 2), (1, 0)):
        pair = (i, j) if name == "pwcca" else tuple(sorted((i, j)))
        null = null_distribution(REPRESENTATION_MEASURES[name], *(samples[model] for model in pair), n=19, seed=2)
        assert float(found.mean[i, j]) == pytest.approx(null.mean, abs=1e-12)
        assert float(found.p_value[i, j]) == null.p_value
    beside = pairwise_nulls(
        REPRESENTATION_MEASURES[name], [*samples[:2], torch.ones(30, 2)], ("a", "b", "c"), n=19, seed=2
    )
    assert float(beside.mean[0, 1]) == float(found.mean[0, 1])
    assert beside.mean[2].isnan().all()


def test_no_permutations_are_refused() -> None:
    with pytest.raises(ValueError, match="n of the permutations must be at least 1, got 0"):
        null_distribution(REPRESENTATION_MEASURES["linear_cka"], *related(), n=0)


def test_different_numbers_of_samples_are_refused() -> None:
    x, y = related()
    with pytest.raises(ValueError, match=r"'x' is \[40, 3\], 'y' is \[39, 4\]"):
        null_distribution(REPRESENTATION_MEASURES["linear_cka"], x, y[1:])
