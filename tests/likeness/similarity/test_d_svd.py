"""m_SVD and d_{f,g} against scikit-learn's PLS-SVD, all subsets one by one, and what certificates promise."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import PLSSVD
from torch import Tensor

from likeness.similarity.cloud import one_pair
from likeness.similarity.d_llv import choose_labels, d_llv
from likeness.similarity.d_svd import (
    d_fg,
    d_svd,
    d_svd_g,
    label_svd,
    m_svd,
    max_d_svd_f,
    max_d_svd_f_of_ties,
    nuclear_norm,
    pivots_with_subsets,
    subsets_beside_choice,
)
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.softmax_models import SoftmaxModels
from tests.likeness.similarity.paired_samples import orthogonal, related, unrelated
from tests.likeness.similarity.softmax_pairs import Model, equivalent_to, model, related_to, with_bias

SEEDS = st.integers(0, 10_000)
PAIR = one_pair(0, 1, torch.device("cpu"))


def models(*pair: Model) -> SoftmaxModels:
    return SoftmaxModels.of([f for f, _ in pair], [g for _, g in pair])


def pls_svd(u: Tensor, v: Tensor) -> float:
    """The paper's definition."""
    scores = PLSSVD(n_components=u.shape[1]).fit_transform(u.numpy(), v.numpy())
    return float(np.mean([np.cov(a, b)[0, 1] for a, b in zip(scores[0].T, scores[1].T, strict=True)]))


def through_labels(original: Model, pivot: int, labels: list[int]) -> Tensor:
    f, g = original
    return f @ (g[labels] - g[pivot]).T


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_m_svd_is_that_of_scikit_learn(dim: int) -> None:
    x, y = related(50, (dim, dim), seed=dim)
    assert float(m_svd(x, y)) == pytest.approx(pls_svd(x, y), abs=1e-14)
    assert float(d_svd(x, y)) == pytest.approx(1 - pls_svd(x, y), abs=1e-14)


@settings(max_examples=25)
@given(seed=SEEDS, dim=st.integers(1, 4))
def test_what_m_svd_ignores(seed: int, dim: int) -> None:
    x, y = unrelated(40, (dim, dim), seed)
    scales = torch.rand(dim, dtype=torch.float64) + 0.1
    assert float(m_svd(3 + x * scales, y)) == pytest.approx(float(m_svd(x, y)), abs=1e-13)
    assert 0 <= float(m_svd(x, y)) <= 1
    whitened = torch.linalg.qr(x - x.mean(0))[0]
    assert float(m_svd(whitened, whitened @ orthogonal(dim, seed))) == pytest.approx(1, abs=1e-13)
    assert float(d_svd(x, 2 * x - 1)) == pytest.approx(0, abs=1e-14)


@settings(max_examples=50)
@given(seed=SEEDS)
def test_nuclear_norm_of_two_dimensions_in_closed_form(seed: int) -> None:
    x, y = unrelated(2, (2, 2), seed)
    matrices = torch.stack([x, y, x @ x.T, torch.outer(x[0], y[0])])
    torch.testing.assert_close(
        nuclear_norm(matrices), torch.linalg.matrix_norm(matrices, "nuc"), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize(("labels", "dim", "bias"), [(5, 1, False), (6, 2, False), (6, 3, False), (6, 2, True)])
def test_largest_over_label_subsets(labels: int, dim: int, bias: bool) -> None:
    first = model(60, labels, dim, 0)
    second = related_to(first, 0.7)
    pair = [with_bias(m, seed) for seed, m in enumerate((first, second))] if bias else [first, second]
    every = models(*pair)
    choice = choose_labels(every.labels, PAIR)
    found = label_svd(every.labels, PAIR, choice, ComparisonOptions())
    pivot, left_out = int(choice.pivot), int(choice.left_out)
    free = [y for y in range(labels) if y not in (pivot, left_out)]
    values = [
        1 - pls_svd(through_labels(pair[0], pivot, list(subset)), through_labels(pair[1], pivot, list(subset)))
        for subset in combinations(free, dim)
    ]
    assert float(found.largest.lower) == float(found.largest.upper) == pytest.approx(max(values), abs=1e-13)


def test_of_unembeddings_at_the_input_set() -> None:
    first, second = model(40, 7, 3, 0), model(40, 7, 3, 1)
    inputs = d_llv(*first, *second).inputs
    pivot, *others = inputs[0].tolist()
    u, v = (g @ (f[others] - f[pivot]).T for f, g in (first, second))
    assert float(d_svd_g(models(first, second).inputs, PAIR, inputs)) == pytest.approx(1 - pls_svd(u, v), abs=1e-13)


@settings(max_examples=25)
@given(seed=SEEDS, noise=st.floats(0.01, 3))
def test_sampled_subsets_bracket_the_largest(seed: int, noise: float) -> None:
    first = model(50, 8, 3, seed)
    every = models(first, related_to(first, noise, seed + 1))
    choice = choose_labels(every.labels, PAIR)
    at_choice = every.labels.cloud, PAIR, choice.pivot, choice.left_out
    exact = max_d_svd_f(*at_choice, subsets_beside_choice(8, 3))
    sampled = max_d_svd_f(*at_choice, subsets_beside_choice(8, 3, max_subsets=0, num_sampled=3, seed=seed))
    assert float(sampled.lower) <= float(exact.lower) + 1e-14
    assert float(exact.lower) <= float(sampled.upper) + 1e-14
    whole = max_d_svd_f(*at_choice, subsets_beside_choice(8, 3, max_subsets=0, num_sampled=2000))
    assert float(whole.lower) == pytest.approx(float(exact.lower), abs=1e-14)


def test_supremum_over_tied_choices() -> None:
    first, second = model(30, 5, 2, 0), model(30, 5, 2, 1)
    every, subsets = models(first, second, first), subsets_beside_choice(5, 2)
    pairs = torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2])
    choice = choose_labels(every.labels, pairs)
    largest, supremum = max_d_svd_f_of_ties(every.labels.cloud, pairs, choice, subsets)
    for pair in range(3):
        i, j = (index[pair : pair + 1] for index in pairs)
        tied = [
            float(max_d_svd_f(every.labels.cloud, (i, j), tie[None, 1], tie[None, 2], subsets).lower)
            for tie in choice.ties
            if tie[0] == pair
        ]
        assert float(largest.lower[pair]) == pytest.approx(tied[0], abs=1e-14)
        assert float(supremum.lower[pair]) == pytest.approx(max(tied), abs=1e-14)


@settings(max_examples=25)
@given(seed=SEEDS, dim=st.integers(1, 3))
def test_equivalent_models_are_at_distance_zero(seed: int, dim: int) -> None:
    original = model(50, dim + 3, dim, seed)
    every = models(original, equivalent_to(original, seed))
    choice = choose_labels(every.labels, PAIR)
    largest = label_svd(every.labels, PAIR, choice, ComparisonOptions()).supremum
    whole = d_fg(largest, d_svd_g(every.inputs, PAIR, torch.arange(dim + 1)[None]))
    assert float(whole.upper) < 1e-12


def test_independent_maps_keep_m_cca_and_change_d_svd() -> None:
    """What m_CCA cannot see: f and g transformed independently give another distribution."""
    f, g = model(1000, 7, 3, 0)
    a, b = (torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    every = models((f, g), (f @ a, g @ b))
    choice = choose_labels(every.labels, PAIR)
    assert float(label_svd(every.labels, PAIR, choice, ComparisonOptions()).largest.lower) > 0.2
    assert float(choice.term_1) > 0.5


def test_label_subsets() -> None:
    every = subsets_beside_choice(6, 2)
    assert every.complete
    assert every.members.tolist() == [list(pair) for pair in combinations(range(4), 2)]
    drawn = subsets_beside_choice(40, 5, num_sampled=30, seed=1)
    assert not drawn.complete
    assert drawn.members.shape == (30, 5)
    assert all(len(set(row)) == 5 and max(row) < 38 for row in drawn.members.tolist())
    assert drawn.members.equal(subsets_beside_choice(40, 5, num_sampled=30, seed=1).members)
    assert len(subsets_beside_choice(3000, 1024).members) == 4  # of larger matrices fewer


def test_pivots_with_subsets() -> None:
    every = pivots_with_subsets(5, 2)
    assert every.complete
    expected = {(pivot, pair) for pivot in range(5) for pair in combinations(sorted({*range(5)} - {pivot}), 2)}
    assert {(pivot, tuple(sorted(others))) for pivot, *others in every.members.tolist()} == expected
    assert len(every.members) == len(expected)
    assert pivots_with_subsets(100, 10, max_choices=7).members.shape == (7, 11)


def test_refusals() -> None:
    x, y = unrelated(20, (3, 2))
    with pytest.raises(ValueError, match=r"\(20, 3\) and \(20, 2\)"):
        m_svd(x, y)
    constant = torch.cat([x[:, :1], torch.full((20, 1), 0.3, dtype=torch.float64)], dim=1)
    with pytest.raises(ValueError, match=r"coordinate 1 of the second of \(20, 2\) is constant"):
        m_svd(y, constant)
    with pytest.raises(ValueError, match="K = 4 and M = 3"):
        subsets_beside_choice(4, 3)
    with pytest.raises(ValueError, match="K = 2 and M = 2"):
        pivots_with_subsets(2, 2)
    every = models(model(20, 5, 2), model(20, 5, 4))
    subsets = label_svd(every.labels, PAIR, choose_labels(every.labels, PAIR), ComparisonOptions())
    assert bool((subsets.largest.lower > 0).all())  # of min(M, M') labels
