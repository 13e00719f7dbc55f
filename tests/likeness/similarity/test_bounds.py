"""Each bound of d_{f,g} on random, constructed and trained pairs of models."""

from collections.abc import Iterator
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.similarity.cloud import one_pair
from likeness.similarity.comparison import SoftmaxComparison, compare_softmax_models
from likeness.similarity.d_llv import choose_labels
from likeness.similarity.d_svd import correlation_certificate, paper_bound, squared_bound
from likeness.similarity.softmax_models import SoftmaxModels
from tests.likeness.similarity.softmax_pairs import Model, model, permuted_clusters, related_to
from tests.reference import needs_reference, representations


def assert_bounded(found: SoftmaxComparison) -> None:
    assert found.d_fg is not None
    assert found.max_d_svd_f is not None
    assert found.d_llv is not None
    assert found.certificate is not None
    assert found.squared_bound is not None
    assert found.paper_bound is not None
    assert found.max_d_svd_f <= found.certificate.value + 1e-12
    assert found.certificate.value <= 2 * found.term_1**2 + 1e-12
    assert found.d_fg <= found.squared_bound.value + 1e-12
    assert found.d_fg <= found.paper_bound.value + 1e-12
    for bound in (found.certificate, found.squared_bound, found.paper_bound):
        assert bound.informative == (bound.value < 1)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), noise=st.floats(1e-3, 5), dim=st.integers(1, 4))
def test_on_random_models(seed: int, noise: float, dim: int) -> None:
    first = model(30, dim + 3, dim, seed)
    assert_bounded(compare_softmax_models(*first, *related_to(first, noise, seed + 1)))


@pytest.mark.parametrize("classes", [4, 6, 10])
def test_on_constructed_models(classes: int) -> None:
    """Clusters around the directions of the labels, under growing noise."""
    generator = torch.Generator().manual_seed(0)
    angles = 2 * torch.pi * torch.arange(classes, dtype=torch.float64) / classes
    g = 20 * torch.stack([angles.cos(), angles.sin()], dim=1)
    f = 5 * g.repeat(40, 1) / 20 + 0.1 * torch.randn(40 * classes, 2, generator=generator, dtype=torch.float64)
    for level in (0.01, 0.1, 1.0):
        noise = level * torch.randn(f.shape, generator=generator, dtype=torch.float64)
        assert_bounded(compare_softmax_models(f, g, f + noise, g))
    assert_bounded(compare_softmax_models(*permuted_clusters(2, False), *permuted_clusters(2, True)))


@needs_reference
def test_on_trained_models() -> None:
    informative = {"paper_bound": 0, "squared_bound": 0}
    for found in trained_pairs():
        assert_bounded(found)
        for name in informative:
            informative[name] += getattr(found, name).informative
    assert informative == {"paper_bound": 14, "squared_bound": 40}


def trained_pairs() -> Iterator[SoftmaxComparison]:
    for width in (16, 32, 64, 128):
        models: list[Model] = [representations(width, seed) for seed in range(5)]
        for first, second in combinations(models, 2):
            yield compare_softmax_models(*(x[::4] if len(x) > 4 else x for x in (*first, *second)))


def test_values() -> None:
    distances = torch.tensor([0.1, 0.3, 0.8])
    assert paper_bound(distances, 2).value.tolist() == pytest.approx([0.4, 1.2, 3.2])
    assert paper_bound(distances, 2).informative.tolist() == [True, False, False]
    assert squared_bound(distances).value.tolist() == pytest.approx([0.02, 0.18, 1.28])
    assert squared_bound(distances).informative.tolist() == [True, True, False]


@given(d_llv=st.floats(1e-6, 10), dim=st.integers(1, 20))
def test_which_bound_is_the_sharper_one(d_llv: float, dim: int) -> None:
    """The squared one under M; so wherever the paper's is informative, and it still is up to 1 / sqrt(2)."""
    paper, squared = paper_bound(torch.tensor(d_llv).double(), dim), squared_bound(torch.tensor(d_llv).double())
    if abs(d_llv - dim) > 1e-9:
        assert bool(squared.value < paper.value) == (d_llv < dim)
    if paper.informative:
        assert bool(squared.informative)
        assert bool(squared.value < paper.value)
    assert bool(squared.informative) == (2 * d_llv**2 < 1)


def test_certificate_from_its_definition() -> None:
    first, second = model(40, 6, 2, 0), model(40, 6, 2, 1)
    vectors = SoftmaxModels.of([first[0], second[0]], [first[1], second[1]]).labels
    pair = one_pair(0, 1, torch.device("cpu"))
    choice = choose_labels(vectors, pair)
    pivot, left_out = int(choice.pivot), int(choice.left_out)
    correlations = []
    for label in set(range(6)) - {pivot, left_out}:
        ratios = [f @ (g[label] - g[pivot]) for f, g in (first, second)]
        correlations.append(float(torch.corrcoef(torch.stack(ratios))[0, 1]))
    expected = 1 - sum(sorted(correlations)[:2]) / 2
    found = correlation_certificate(vectors.cloud, pair, choice.pivot, choice.left_out, 2)
    assert float(found.value) == pytest.approx(expected, abs=1e-13)
