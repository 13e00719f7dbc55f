"""d_logit and d_rep from their definitions, their invariances, and the bounds between them."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.similarity.logit_distance import (
    correlation_deficit,
    d_logit_bound,
    d_logit_of_pairs,
    d_logit_squared,
    d_rep_bound,
    d_rep_of_pairs,
    d_rep_of_subsets,
    logit_lengths,
    m_cca_bound,
)
from likeness.similarity.predictions import lowest_log_probability
from likeness.similarity.representations.cca import m_cca
from likeness.similarity.softmax_models import FactorisedHead, LabelVectors, SoftmaxModels
from likeness.similarity.undefined import RankDeficientError, UndefinedError
from tests.likeness.similarity.softmax_pairs import (
    Model,
    equivalent_to,
    model,
    permuted_clusters,
    related_to,
    with_bias,
)
from tests.reference import needs_reference, representations

SEEDS = st.integers(0, 10_000)


def vectors(*models: Model) -> LabelVectors:
    return SoftmaxModels.of([f for f, _ in models], [g for _, g in models]).labels


BOTH = torch.tensor([0, 1]), torch.tensor([1, 0])


def d_logit(found: LabelVectors) -> Tensor:
    """Of two models, in both directions."""
    return d_logit_of_pairs(found, BOTH)


def d_rep(found: LabelVectors) -> Tensor:
    """Of two models, in both directions."""
    return d_rep_of_pairs(found, BOTH)


def centred_logits(original: Model) -> Tensor:
    f, g = original
    return f @ (g - g.mean(0)).T


def mean_square(x: Tensor) -> float:
    return float(x.square().sum(1).mean())


@pytest.mark.parametrize("bias", [False, True])
def test_d_logit_from_its_definition(bias: bool) -> None:
    pair = [model(50, 6, 3, 0), model(50, 6, 2, 1)]  # M may differ
    if bias:
        pair = [with_bias(m, seed) for seed, m in enumerate(pair)]
    logits = [f @ g.T for f, g in pair]
    expected = mean_square(centred_logits(pair[0]) - centred_logits(pair[1]))
    assert d_logit(vectors(*pair)).square().tolist() == pytest.approx([expected, expected], rel=1e-12)
    lengths = logit_lengths(vectors(*pair)).square()
    assert lengths.tolist() == pytest.approx([mean_square(centred_logits(m)) for m in pair])
    assert float(d_logit_squared(*logits)) == pytest.approx(expected, rel=1e-12)
    assert float(d_logit_squared(*(x.log_softmax(1) for x in logits))) == pytest.approx(expected, rel=1e-12)


def test_d_logit_is_differentiable_and_ignores_shifts() -> None:
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 5, generator=g, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: d_logit_squared(x, teacher), student.clone().requires_grad_())
    shifted = student + torch.randn(8, 1, generator=g)
    assert float(d_logit_squared(shifted, teacher)) == pytest.approx(float(d_logit_squared(student, teacher)))


@settings(max_examples=40)
@given(seed=SEEDS, noise=st.floats(0.01, 3))
def test_d_logit_is_a_metric(seed: int, noise: float) -> None:
    first = model(30, 5, 2, seed)
    models = vectors(first, related_to(first, noise, seed + 1), related_to(first, noise, seed + 2))
    pairs = torch.tensor([0, 1, 0, 2]), torch.tensor([1, 2, 2, 0])
    ab, bc, ac, ca = d_logit_of_pairs(models, pairs).tolist()
    assert ac == pytest.approx(ca, rel=1e-13)
    assert ac <= ab + bc + 1e-12


@pytest.mark.parametrize("bias", [False, True])
@settings(max_examples=20)
@given(seed=SEEDS, dim=st.integers(1, 4))
def test_equivalent_models_are_at_distance_zero(bias: bool, seed: int, dim: int) -> None:
    original = model(30, dim + 2, dim, seed)
    other = equivalent_to(original, seed)
    if bias:
        original = with_bias(original, seed)
        other = torch.cat([other[0], original[0][:, -1:]], 1), torch.cat([other[1], original[1][:, -1:]], 1)
    found = vectors(original, other)
    assert float(d_logit(found).max()) < 1e-12
    subsets = d_rep_of_subsets(found, min_conditioning=1e-2)
    assert float(subsets.mean) < 1e-11 or float(subsets.kept) == 0
    # f' is recovered from f, and f from f': nothing is lost either way
    f, f_other = original[0][:, :dim], other[0][:, :dim]
    expected = mean_square(f - f_other @ torch.linalg.lstsq(f_other, f).solution)
    assert float(d_rep(found)[0]) ** 2 == pytest.approx(expected, abs=1e-20)


def test_d_rep_from_its_definition() -> None:
    pair = [model(50, 6, 3, 0), model(50, 6, 2, 1)]
    found = vectors(*pair)
    for i, j in ((0, 1), (1, 0)):
        (f, g), (f_other, g_other) = pair[i], pair[j]
        a = torch.linalg.pinv(g - g.mean(0)) @ (g_other - g_other.mean(0))
        assert float(d_rep(found)[i]) ** 2 == pytest.approx(mean_square(f - f_other @ a.T), rel=1e-11)


def test_averaged_d_rep_over_all_pivots_and_subsets() -> None:
    first, second = model(50, 5, 2, 0), model(50, 5, 2, 1)
    values = []
    for pivot in range(5):
        for subset in combinations(sorted({*range(5)} - {pivot}), 2):
            own, other = ((g[list(subset)] - g[pivot]) for _, g in (first, second))
            a = torch.linalg.solve(own, other)  # rows are differences: L^-T L'^T
            values.append(mean_square(first[0] - second[0] @ a.T))
    found = d_rep_of_subsets(vectors(first, second))
    assert float(found.mean) ** 2 == pytest.approx(np.mean(values), rel=1e-10)
    assert len(values) % 2 == 0  # so that two are in the middle
    assert float(found.median) ** 2 == pytest.approx(np.median(values), rel=1e-10)
    assert float(found.kept) == 1
    assert found.complete
    well = d_rep_of_subsets(vectors(first, second), min_conditioning=0.2)
    assert 0 < float(well.kept) < 1
    assert float(well.mean) < float(found.mean)
    sampled = d_rep_of_subsets(vectors(first, second), max_choices=20, seed=3)
    assert not sampled.complete
    assert min(values) - 1e-9 <= float(sampled.median) ** 2 <= max(values) + 1e-9


def test_numerators_of_the_subset_bound_average_to_d_logit() -> None:
    """Of all pivots and subsets, E sum_{j in J} (delta_j - delta_0)^2 is 2 M / (K - 1) d_logit^2 in the mean."""
    f, g = model(50, 6, 3, 0)
    delta = (centred_logits((f, g)) - centred_logits(model(50, 6, 3, 1))).square()
    raw = centred_logits((f, g)) - centred_logits(model(50, 6, 3, 1))
    means = [
        float((raw[:, list(subset)] - raw[:, [pivot]]).square().sum(1).mean())
        for pivot in range(6)
        for subset in combinations(sorted({*range(6)} - {pivot}), 3)
    ]
    assert np.mean(means) == pytest.approx(2 * 3 / 5 * float(delta.sum(1).mean()), rel=1e-12)


@settings(max_examples=50)
@given(seed=SEEDS, noise=st.floats(0.01, 3), dim=st.integers(1, 3), extra=st.integers(0, 2))
def test_bounds_on_random_models(seed: int, noise: float, dim: int, extra: int) -> None:
    first = model(40, dim + 4, dim, seed)
    second = related_to(first, noise, seed + 1) if extra == 0 else model(40, dim + 4, dim + extra, seed + 1)
    assert_bounded(first, second)
    assert_bounded(second, first)


@pytest.mark.parametrize("length", [1.0, 5.0, 20.0])
def test_bounds_on_constructed_models(length: float) -> None:
    """Clusters in another order: alike in KL alone, the more so the longer the unembeddings."""
    assert_bounded(permuted_clusters(length, False), permuted_clusters(length, True))


@needs_reference
def test_bounds_on_trained_models() -> None:
    for width in (16, 128):
        for i, j in combinations(range(3), 2):
            assert_bounded(representations(width, i), representations(width, j))


def assert_bounded(first: Model, second: Model) -> None:
    f, f_other = (m[0].double() for m in (first, second))
    every, predicted = SoftmaxModels.evaluated([first[0], second[0]], [first[1], second[1]])
    found = every.labels
    distance = d_logit(found)[0]
    of_rep = d_rep_bound(distance, FactorisedHead.of(found.heads[0]), f.square().sum(1).mean().sqrt())
    assert float(d_rep(found)[0]) <= float(of_rep.value) * (1 + 1e-12)
    assert float(correlation_deficit(found)) <= float(distance) ** 2 * (1 + 1e-12)
    of_m_cca = m_cca_bound(distance, found)
    assert float(m_cca(f, f_other)) >= float(of_m_cca.value) - 1e-12
    assert bool(of_m_cca.informative) == (float(of_m_cca.value) > 0)
    lowest = lowest_log_probability(every.embeddings, every.unembeddings, predicted.log_partitions)
    for kl in (predicted.kl[0, 1], predicted.kl[1, 0]):
        assert float(distance) <= float(d_logit_bound(kl, float(lowest.min()), every.num_labels).value)
    if f.shape == f_other.shape:
        subsets = d_rep_of_subsets(found)
        assert float(subsets.mean) <= float(subsets.bound) * (1 + 1e-9)


def test_deficit_from_its_definition() -> None:
    first = model(200, 6, 3, 0)
    second = related_to(first, 0.5)
    found = vectors(first, second)
    logits = centred_logits(first)
    variances = torch.linalg.eigvalsh(torch.cov(logits.T, correction=0)).flip(0)[:3]
    bases = [torch.linalg.qr(f - f.mean(0))[0] for f, _ in (first, second)]
    rho = torch.linalg.svdvals(bases[0].T @ bases[1])
    expected = float(((1 - rho**2) * variances).sum())
    assert float(correlation_deficit(found)) == pytest.approx(expected, rel=1e-12)


def test_a_bound_from_probabilities_that_underflow_says_nothing() -> None:
    bound = d_logit_bound(torch.tensor(0.3, dtype=torch.float64), -2000.0, 4)
    assert float(bound.value) == torch.inf
    assert not bound.informative
    assert float(d_logit_bound(torch.tensor(0.0, dtype=torch.float64), -2000.0, 4).value) == 0


def test_opposite_rotations_are_invisible_to_m_cca() -> None:
    """Paper C's example: f and g turned by 45 degrees in opposite directions."""
    f, g = model(500, 8, 2, 0)
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / 2**0.5
    other = f @ turn, g @ turn.T
    assert float(m_cca(f, other[0])) == pytest.approx(1, abs=1e-12)
    assert float(m_cca(g, other[1])) == pytest.approx(1, abs=1e-12)
    found = vectors((f, g), other)
    assert float(d_logit(found)[0] / logit_lengths(found)[0]) ** 2 > 0.5


def test_heads_that_do_not_span_are_refused() -> None:
    f, g = model(30, 6, 3, 0)
    with pytest.raises(RankDeficientError, match=r"no L_J of the unembeddings \(6, 3\) of model '1'"):
        d_rep_of_subsets(vectors((f, g), (f, g)), min_conditioning=1.0)
    with pytest.raises(UndefinedError, match=r"M = \(3, 2\)"):
        d_rep_of_subsets(vectors((f, g), model(30, 6, 2)))
