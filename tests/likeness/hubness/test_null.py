"""Null values against closed forms and random graphs."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from likeness.hubness.analysis import hubness_of_neighbours
from likeness.hubness.indices import HubRule
from likeness.hubness.null import null_bad_occurrence, null_histogram, null_indices


@pytest.mark.parametrize(
    ("n", "m", "k"), [(1000, 1000, 10), (6600, 1000, 10), (50, 8000, 3), (20, 5, 19), (10**8, 10**6, 5)]
)
def test_the_histogram_is_the_binomial_of_scipy(n: int, m: int, k: int) -> None:
    histogram = null_histogram(n, m, k, in_sample=False).numpy()
    expected = n * stats.binom.pmf(np.arange(len(histogram)), m, k / n)
    np.testing.assert_allclose(histogram, expected, rtol=1e-9, atol=1e-280)
    assert histogram.sum() == pytest.approx(n, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "k"), [(1000, 1000, 10), (6600, 1000, 10), (120_000, 7600, 10), (10**6, 10**6, 100)]
)
def test_closed_forms(n: int, m: int, k: int) -> None:
    null, p = null_indices(n, m, k, in_sample=False), k / n
    mean = m * p
    # The mean deviation of the binomial: De Moivre 1730, Diaconis & Zabell 1991.
    last = math.floor(mean) + 1
    deviation = 2 * last * (1 - p) * stats.binom.pmf(last, m, p)
    assert null.k_skewness == pytest.approx((1 - 2 * p) / math.sqrt(mean * (1 - p)), rel=1e-8)
    assert null.robin_hood == pytest.approx(deviation / (2 * mean), rel=1e-9)
    assert null.antihub_rate == pytest.approx((1 - p) ** m, rel=1e-8)
    assert null.hub_rate == pytest.approx(stats.binom.sf(2 * k - 1, m, p), rel=1e-8, abs=1e-18)


def test_the_poisson_limit() -> None:
    null = null_indices(10**7, 10**7, 10, in_sample=True)
    assert null.k_skewness == pytest.approx(10**-0.5, rel=1e-5)
    assert null.robin_hood == pytest.approx(10**10 * math.exp(-10) / math.factorial(10), rel=1e-5)
    assert null.antihub_rate == pytest.approx(4.54e-5, rel=1e-3)


@pytest.mark.parametrize(
    ("n", "m", "robin_hood", "skewness", "antihubs"),
    [(11_314, 7532, 0.155, 0.39, 0.001), (120_000, 7600, 0.531, 1.26, 0.53), (140_000, 6000, 0.651, 1.53, 0.65)],
)
def test_floors_of_the_papers_test_sets(n: int, m: int, robin_hood: float, skewness: float, antihubs: float) -> None:
    null = null_indices(n, m, 10, in_sample=False)
    assert null.robin_hood == pytest.approx(robin_hood, abs=6e-4)
    assert null.k_skewness == pytest.approx(skewness, abs=6e-3)
    assert null.antihub_rate == pytest.approx(antihubs, abs=6e-3)
    assert null.asymmetry is None


def random_graph(rng: np.random.Generator, n: int, m: int, k: int, in_sample: bool, include_self: bool) -> torch.Tensor:
    """m lists of k random points, in-sample each without its own, or with it in the first place."""
    allowed, drawn = n - in_sample, k - include_self
    ids = torch.from_numpy(rng.random((m, allowed)).argpartition(drawn, axis=1)[:, :drawn])
    own = torch.arange(m)[:, None]
    ids = ids + (ids >= own) if in_sample else ids
    return torch.cat([own, ids], dim=1) if include_self else ids


@pytest.mark.parametrize(
    ("n", "m", "in_sample", "include_self"),
    [(600, 600, True, False), (600, 600, True, True), (600, 150, False, False), (600, 200, True, False)],
    ids=["in-sample", "include_self", "bipartite", "thinned"],
)
def test_every_index_against_random_graphs(n: int, m: int, in_sample: bool, include_self: bool) -> None:
    rng, graphs, k = np.random.default_rng(0), 150, 6
    hubs = HubRule("absolute", 1.5 * k * m / n)
    labels, asked_by = torch.arange(n) % 5 // 2, torch.arange(m) % 5 // 2
    drawn = []
    for _ in range(graphs):
        ids = random_graph(rng, n, m, k, in_sample, include_self)
        own = torch.arange(m) if in_sample else None
        report = hubness_of_neighbours(
            ids, n, query_ids=own, labels=labels, query_labels=asked_by, include_self=include_self, hubs=hubs
        )
        drawn.append(report.indices())
    null = report.null.indices()
    assert null.keys() == drawn[0].keys()
    for name, expected in null.items():
        values = np.array([indices[name] for indices in drawn])
        error = values.std() / math.sqrt(graphs)
        # Four standard errors, and the O(1 / n) by which samples differ from their distribution.
        assert abs(values.mean() - expected) <= 4 * error + expected / n, name


def test_the_null_of_bad_occurrences_is_that_of_drawing_labels() -> None:
    labels, asked_by = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 3])
    assert null_bad_occurrence(labels, asked_by, 2, in_sample=False) == pytest.approx((2 / 5 + 1) / 2)
    in_sample = null_bad_occurrence(labels, labels, 2, in_sample=True)
    assert in_sample == pytest.approx((3 * 2 / 4 + 2 * 1) / 5)
    assert null_bad_occurrence(labels, labels, 2, in_sample=True, include_self=True) == pytest.approx(in_sample / 2)


def test_graphs_that_leave_no_choice() -> None:
    everybody = null_indices(5, 5, 4, in_sample=True)
    assert (everybody.k_skewness, everybody.robin_hood, everybody.max_occurrence) == (0, 0, 4)
    assert everybody.asymmetry == 0
    alone = null_indices(5, 5, 1, in_sample=True, include_self=True)
    assert (alone.k_skewness, alone.robin_hood, alone.max_occurrence, alone.antihub_rate) == (0, 0, 1, 1)
    assert alone.asymmetry == 0
