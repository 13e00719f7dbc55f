"""d_LLV against its definition term by term, its exact searches against all choices, and its refusals."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.similarity.cloud import Cloud
from likeness.similarity.d_llv import (
    best_input_sets,
    d_llv,
    d_llv_of_pairs,
    term_1_matrix,
)
from likeness.similarity.input_sets import conditioning_of, sample_input_sets
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.predictions import centred_head
from likeness.similarity.softmax_models import SoftmaxModels, input_vectors
from likeness.similarity.undefined import SingularInputsError
from tests.likeness.similarity.softmax_pairs import entries, equivalent_to, log_p, model, related_to, with_bias

SEEDS = st.integers(0, 10_000)
PAIR = torch.tensor([0]), torch.tensor([1])


def input_cloud(f: list[torch.Tensor], g: list[torch.Tensor]) -> Cloud:
    return input_vectors(f, [centred_head(x) for x in g], len(g[0]))


def all_choices_of_labels(lp1: np.ndarray, lp2: np.ndarray) -> dict[tuple[int, int], tuple[float, float]]:
    labels = range(lp1.shape[1])
    result = {}
    for pivot, left_out in permutations(labels, 2):
        found = [entries(lp1, lp2, pivot, y) for y in labels if y not in (pivot, left_out)]
        result[pivot, left_out] = max(a for a, _ in found), max(b for _, b in found)
    return result


@pytest.mark.parametrize(("labels", "dim", "bias"), [(4, 2, False), (6, 3, False), (5, 1, False), (5, 2, True)])
def test_label_side_is_the_best_of_all_choices(labels: int, dim: int, bias: bool) -> None:
    first, second = model(50, labels, dim, 0), model(50, labels, dim, 1)
    if bias:
        first, second = with_bias(first, 0), with_bias(second, 1)
    found = d_llv(*first, *second, ComparisonOptions(search="sampled", num_samples=5))
    choices = all_choices_of_labels(log_p(first), log_p(second))
    best = min(term_1 for term_1, _ in choices.values())
    assert float(found.term_1) == pytest.approx(best, abs=1e-13)
    tied = sorted(choice for choice, (term_1, _) in choices.items() if term_1 <= best * (1 + 1e-6))
    assert [tuple(tie[1:]) for tie in found.labels.ties.tolist()] == tied
    chosen = int(found.labels.pivot), int(found.labels.left_out)
    assert chosen == tied[0]
    assert float(found.term_3) == pytest.approx(choices[chosen][1], abs=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_input_side_is_the_best_of_all_sets(bias: bool) -> None:
    first, second = model(9, 5, 2, 0), model(9, 5, 2, 1)
    if bias:
        first, second = with_bias(first, 0), with_bias(second, 1)
    found = d_llv(*first, *second)
    lp1, lp2 = log_p(first).T, log_p(second).T
    values = {
        (pivot, *others): max(entries(lp1, lp2, pivot, x)[0] for x in others)
        for pivot in range(9)
        for others in combinations([x for x in range(9) if x != pivot], 2)
    }
    pivot, *others = found.inputs[0].tolist()
    assert float(found.term_2) == pytest.approx(min(values.values()), abs=1e-13)
    assert values[pivot, *sorted(others)] == pytest.approx(min(values.values()), abs=1e-13)
    assert float(found.term_4) == pytest.approx(max(entries(lp1, lp2, pivot, x)[1] for x in others), abs=1e-12)


def test_entries_of_both_terms_as_matrices() -> None:
    first, second = model(40, 5, 2, 3), model(40, 5, 2, 4)
    t1, t3 = term_1_matrix(SoftmaxModels.of([first[0], second[0]], [first[1], second[1]]).labels)
    lp1, lp2 = log_p(first), log_p(second)
    for pivot, other in permutations(range(5), 2):
        expected = entries(lp1, lp2, pivot, other)
        assert (float(t1[pivot, other]), float(t3[pivot, other])) == pytest.approx(expected, abs=1e-13)
    torch.testing.assert_close(t1, t1.T, rtol=0, atol=1e-14)
    assert not t1.diagonal().any()


@pytest.mark.parametrize("bias", [False, True])
@settings(max_examples=30)
@given(seed=SEEDS, dim=st.integers(1, 4))
def test_equivalent_models_are_at_distance_zero(bias: bool, seed: int, dim: int) -> None:
    original = model(40, dim + 3, dim, seed)
    f, g = equivalent_to(original, seed)
    if bias:  # a shift of f moves between g and the bias
        original = with_bias(original, seed)
        shift = torch.linspace(-1, 1, dim, dtype=torch.float64)
        bias_of_g = original[1][:, -1:] - (g @ shift)[:, None]
        f, g = torch.cat([f + shift, original[0][:, -1:]], dim=1), torch.cat([g, bias_of_g], dim=1)
    found = d_llv(*original, f, g)
    assert max(float(found.d_llv), float(found.term_1), float(found.term_2)) < 1e-12
    assert max(float(found.term_3), float(found.term_4)) < 1e-12


@settings(max_examples=20)
@given(seed=SEEDS)
def test_a_common_scale_is_seen_by_the_terms_3_and_4_alone_on_the_input_side(seed: int) -> None:
    f, g = model(40, 7, 3, seed)
    found = d_llv(f, g, f, 3 * g)
    assert float(found.term_2) < 1e-12
    assert min(float(found.term_1), float(found.term_3), float(found.term_4)) > 1e-3


@settings(max_examples=20)
@given(seed=SEEDS)
def test_symmetry_and_joint_permutations(seed: int) -> None:
    first = model(40, 5, 2, seed)
    second = related_to(first, 0.5, seed + 1)
    found = d_llv(*first, *second)
    inputs, labels = torch.randperm(40), torch.randperm(5)
    shuffled = d_llv(*(x[order] for m in (second, first) for x, order in zip(m, (inputs, labels), strict=True)))
    for name in ("d_llv", "term_1", "term_2"):
        assert float(getattr(shuffled, name)) == pytest.approx(float(getattr(found, name)), abs=1e-13)


@settings(max_examples=30)
@given(seed=SEEDS, noise=st.floats(0.01, 3))
def test_no_sampled_set_beats_the_exact_search(seed: int, noise: float) -> None:
    first = model(60, 5, 2, seed)
    second = related_to(first, noise, seed + 1)
    exact = d_llv(*first, *second)
    sampled = d_llv(*first, *second, ComparisonOptions(search="sampled", num_samples=20, seed=seed))
    assert float(exact.term_2) <= float(sampled.term_2) + 1e-13
    assert float(exact.term_1) == float(sampled.term_1)


def test_sampled_sets_are_those_of_the_papers_code() -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.choice(100, (10, 3), replace=False)  # noqa: NPY002
    assert sample_input_sets(100, 3, 10, seed=5).tolist() == expected.tolist()
    assert len(set(expected.flatten())) == 30
    with pytest.raises(ValueError, match="34 disjoint sets of 3 inputs need 102 samples, but there are 100"):
        sample_input_sets(100, 3, 34, seed=0)


def test_singular_input_sets_are_left_out() -> None:
    first = model(14, 6, 2, 0)
    second = related_to(first, 0.05, 1)
    for f, _ in (first, second):
        f[:11, 1] = 2 * f[:11, 0]  # most inputs lie on a line
    second[0][11:] += 5  # and the others are far from what they were
    cloud, embeddings = input_cloud(*zip(first, second, strict=True)), [first[0], second[0]]
    found = best_input_sets(cloud, PAIR, embeddings)
    lp1, lp2 = log_p(first).T, log_p(second).T
    regular, singular = [], []
    for pivot, *others in permutations(range(14), 3):
        inputs = torch.tensor([[pivot, *others]])
        kept = min(float(conditioning_of(f[inputs])) for f in embeddings) >= 1e-6
        (regular if kept else singular).append(max(entries(lp1, lp2, pivot, x)[0] for x in others))
    assert float(found.term_2) == pytest.approx(min(regular), abs=1e-12)
    assert min(singular) < 0.5 * min(regular)
    assert float(best_input_sets(cloud, PAIR, embeddings, 0).term_2) == pytest.approx(min(singular), abs=1e-12)


def test_a_search_that_is_broken_off_answers_with_a_regular_set(monkeypatch: pytest.MonkeyPatch) -> None:
    first = model(40, 12, 5, 0)
    second = related_to(first, 0.05, 1)
    for f, _ in (first, second):
        f[1::2] = f[::2] * (1 + 1e-9)  # each input twice: no set of the nearest ones is regular
    cloud, embeddings = input_cloud(*zip(first, second, strict=True)), [first[0], second[0]]
    exact = best_input_sets(cloud, PAIR, embeddings)
    monkeypatch.setattr("likeness.similarity.input_sets._SET_WORK", 0)
    found = best_input_sets(cloud, PAIR, embeddings)
    assert (exact.search, found.search) == (("exact",), ("bounded",))
    assert len({number // 2 for number in found.inputs[0].tolist()}) == 6
    assert min(float(conditioning_of(f[found.inputs])) for f in embeddings) >= 1e-6
    assert float(exact.term_2) <= float(found.term_2) < 3 * float(exact.term_2)
    lp1, lp2 = log_p(first).T, log_p(second).T
    pivot, *others = found.inputs[0].tolist()
    assert float(found.term_2) == pytest.approx(max(entries(lp1, lp2, pivot, x)[0] for x in others), abs=1e-12)


def test_repeated_inputs_are_not_taken_together() -> None:
    first, second = model(20, 6, 2, 0), model(20, 6, 2, 1)
    twice = [(torch.cat([f, f]), g) for f, g in (first, second)]
    found = d_llv(*twice[0], *twice[1])
    assert float(found.term_2) == pytest.approx(float(d_llv(*first, *second).term_2), abs=1e-13)
    assert len({position % 20 for position in found.inputs[0].tolist()}) == 3


def test_no_regular_input_set() -> None:
    f, g = model(30, 6, 2, 0)
    f[:, 1] = 2 * f[:, 0]
    with pytest.raises(SingularInputsError, match=r"\(30, 2\).*at least 1e-06.*span"):
        best_input_sets(input_cloud([f, f], [g, g]), PAIR, [f, f])


@settings(max_examples=40)
@given(seed=SEEDS, noise=st.floats(0.1, 3))
def test_triangle_inequality_at_fixed_labels_and_inputs(seed: int, noise: float) -> None:
    original = model(30, 5, 2, seed)
    models = [original, related_to(original, noise, seed + 1), related_to(original, noise, seed + 2)]
    options = ComparisonOptions(label_choice=(1, 3), input_set=(4, 9, 20), lambda_=0.1)
    every = SoftmaxModels.of([f for f, _ in models], [g for _, g in models])
    pairs = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    for name in ("d_llv", "term_1", "term_2", "term_3", "term_4"):
        ab, bc, ac = getattr(d_llv_of_pairs(every, pairs, options), name).tolist()
        assert ac <= ab + bc + 1e-12
