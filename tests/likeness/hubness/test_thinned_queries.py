"""Moments from some of the queries: unbiased over all choices of them, and right on data."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.indices import count_histogram, k_occurrence
from likeness.hubness.null import choose_queries, thinned_estimate
from likeness.neighbours.exact import DistanceName, nearest_neighbours


def test_the_moments_are_unbiased_over_all_choices() -> None:
    rng = np.random.default_rng(0)
    others = torch.from_numpy(rng.integers(1, 6, (8, 1)))
    ids = torch.cat([torch.zeros_like(others), others], dim=1)  # point 0 is a hub
    counts = k_occurrence(ids, 6).double()
    estimates = [
        thinned_estimate(count_histogram(k_occurrence(ids[list(chosen)], 6)), 4, 8)
        for chosen in combinations(range(8), 4)
    ]
    third = [estimate.k_skewness * estimate.variance**1.5 for estimate in estimates]
    assert all(estimate.mean == pytest.approx(8 * 2 / 6) for estimate in estimates)
    assert np.mean([estimate.variance for estimate in estimates]) == pytest.approx(float(counts.var(correction=0)))
    assert np.mean(third) == pytest.approx(float((counts - counts.mean()).pow(3).mean()))


def test_all_queries_give_the_moments_themselves() -> None:
    counts = torch.tensor([0, 0, 1, 2, 2, 3, 9, 15])
    estimate = thinned_estimate(count_histogram(counts), 16, 16)
    assert estimate.k_skewness == pytest.approx(stats.skew(counts.numpy()))
    assert estimate.variance == pytest.approx(counts.numpy().var())
    assert estimate.queries == 16


def test_no_skewness_without_variance() -> None:
    estimate = thinned_estimate(count_histogram(torch.full((6,), 2)), 4, 8)
    assert estimate.k_skewness is None
    assert estimate.reason == "the variance over all 8 queries is estimated as -2.67 from 4: search more"


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_estimates_from_a_fifth_of_the_queries(metric: DistanceName) -> None:
    x = torch.from_numpy(np.random.default_rng(20).standard_normal((2000, 20)))
    ids = nearest_neighbours(x, 10, metric=metric).ids
    true = stats.skew(k_occurrence(ids, 2000).numpy())
    raw, corrected = [], []
    for seed in range(60):
        chosen = choose_queries(2000, 0.2, seed)
        histogram = count_histogram(k_occurrence(ids[chosen], 2000))
        raw.append(stats.skew(k_occurrence(ids[chosen], 2000).numpy()))
        corrected.append(thinned_estimate(histogram, len(chosen), 2000).k_skewness)
    assert abs(np.mean(raw) - true) > 0.2
    assert np.mean(corrected) == pytest.approx(true, abs=4 * np.std(corrected) / 60**0.5)


@pytest.mark.parametrize("bipartite", [False, True])
def test_only_the_chosen_queries_are_searched(bipartite: bool) -> None:
    rng = np.random.default_rng(0)
    x, queries = rng.standard_normal((300, 8)), rng.standard_normal((200, 8)) if bipartite else None
    report = analyse_hubness(x, k=5, queries=queries, query_fraction=0.25, seed=3)
    everybody = 200 if bipartite else 300
    chosen = choose_queries(everybody, 0.25, 3)
    points = torch.from_numpy(x)
    of_queries = torch.from_numpy(queries) if queries is not None else None
    ids = nearest_neighbours(points, 5, queries=of_queries).ids
    assert torch.equal(report.k_occurrence, k_occurrence(ids[chosen], 300))
    assert report.m == len(chosen) == everybody // 4
    assert report.asymmetry is None
    assert report.thinned == thinned_estimate(count_histogram(report.k_occurrence), report.m, everybody)


def test_points_among_many_duplicates_leave_themselves_out_of_a_share_of_the_lists() -> None:
    x = torch.zeros(40, 2)
    x[20:] = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    report = analyse_hubness(x, k=5, query_fraction=0.5)
    expected = k_occurrence(nearest_neighbours(x, 5).ids[choose_queries(40, 0.5, 0)], 40)
    assert torch.equal(report.k_occurrence, expected)


def test_choices_are_a_function_of_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(choose_queries(100, 0.1, 1), choose_queries(100, 0.1, 1))
    assert not torch.equal(choose_queries(100, 0.1, 1), choose_queries(100, 0.1, 2))
    assert torch.equal(choose_queries(100, 1.0, 1), torch.arange(100))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_options_are_named() -> None:
    with pytest.raises(ValueError, match="query_fraction must be above 0 and at most 1, got 1"):
        choose_queries(10, 1.5, 0)
    with pytest.raises(ValueError, match="at least 3 of the 10 queries, and at most all; got 2"):
        thinned_estimate(torch.tensor([1, 2]), 2, 10)
