"""The whole comparison: every field against the definitions in plain NumPy, invariances, and what they refuse."""

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.similarity.cca import RankDeficientError
from likeness.similarity.comparison import Certificate, SoftmaxComparison, compare_softmax_models
from likeness.similarity.d_llv import ConstantLogRatioError
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import compare_all_pairs
from scripts.bench.similarity import plain_comparison
from tests.likeness.similarity.softmax_pairs import Model, equivalent_to, model, related_to, with_bias

SAMPLED = ComparisonOptions(search="sampled", num_samples=10)
SEEDS = st.integers(0, 10_000)
TOLERANCES = {"m_cca_f": 1e-6, "m_cca_g": 1e-6}  # scikit-learn's CCA iterates


def compare(first: Model, second: Model, **kwargs: Any) -> SoftmaxComparison:
    return compare_softmax_models(*first, *second, **kwargs)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("labels", "dim"), [(4, 2), (6, 2), (8, 3)])
def test_all_fields_against_plain_numpy(labels: int, dim: int) -> None:
    first = model(80, labels, dim, 0)
    models = [first, related_to(first, 0.7, 1), model(80, labels, dim, 2)]
    together = compare_all_pairs([f for f, _ in models], [g for _, g in models], options=SAMPLED)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        plain = plain_comparison(*(x.numpy() for m in (models[i], models[j]) for x in m), num_samples=10)
        alone = compare(models[i], models[j], options=SAMPLED)
        for key, expected in plain.items():
            name, tolerance = key.removesuffix(", reversed"), TOLERANCES.get(key, 1e-12)
            matrix = together[name] if name == key else together[name].T
            assert float(matrix[i, j]) == pytest.approx(expected, abs=tolerance), key
            if name == key:
                value = getattr(alone, "kl_12" if name == "kl" else name)
                value = value.value if isinstance(value, Certificate) else value
                assert value == pytest.approx(expected, abs=tolerance), name


def test_pairwise_and_single_answers_are_the_same() -> None:
    models = [model(60, 6, 2, 0), with_bias(model(60, 6, 2, 1)), model(60, 6, 3, 2)]
    together = compare_all_pairs([f for f, _ in models], [g for _, g in models], options=SAMPLED)
    renamed = {"kl": "kl_12"}
    for i in range(3):
        for j in range(3):
            if i == j:
                continue
            alone = compare(models[i], models[j], options=SAMPLED)
            for name, matrix in together.items():
                value = getattr(alone, renamed.get(name, name))
                value = value.value if isinstance(value, Certificate) else value
                expected = math.nan if value is None else value
                assert float(matrix[i, j]) == pytest.approx(expected, abs=1e-12, nan_ok=True), name
    for name, matrix in together.items():
        assert matrix.dtype == torch.float64
        on_diagonal = 1.0 if name in ("agreement", "m_cca_f", "m_cca_g") else 0.0
        assert matrix.diagonal().tolist() == pytest.approx([on_diagonal] * 3, abs=1e-12), name


@settings(max_examples=25)
@given(seed=SEEDS, noise=st.floats(0.1, 2), dim=st.integers(1, 3))
def test_invariance_to_what_no_data_can_tell(seed: int, noise: float, dim: int) -> None:
    """Either side may be replaced by an equivalent model: nothing but d_rep, which lives in f's own units, moves."""
    first = model(50, dim + 3, dim, seed)
    second = related_to(first, noise, seed + 1)
    found = compare(first, second)
    changed = compare(equivalent_to(first, seed + 2), equivalent_to(second, seed + 3))
    own_units = {"d_rep_mean", "d_rep_median", "d_rep_kept", "d_rep_mean_bound", "d_rep", "d_rep_bound"}
    for field in fields(SoftmaxComparison):
        if field.name in {"ties", "undefined", *own_units, *found.undefined}:
            continue
        before, after = getattr(found, field.name), getattr(changed, field.name)
        before, after = (x.value if isinstance(x, Certificate) else x for x in (before, after))
        assert after == pytest.approx(before, rel=1e-8, abs=1e-10), field.name


@settings(max_examples=15)
@given(seed=SEEDS)
def test_equivalent_models(seed: int) -> None:
    original = model(50, 7, 3, seed)
    found = compare(original, equivalent_to(original, seed))
    for name in ("js", "total_variation", "d_llv", "d_fg_upper", "max_d_svd_f_of_ties", "d_logit"):
        assert getattr(found, name) < 1e-12, name
    assert max(found.kl_12, found.kl_21) < 1e-12
    assert min(found.m_cca_f, found.m_cca_g) > 1 - 1e-12
    assert found.agreement == 1


@settings(max_examples=15)
@given(seed=SEEDS)
def test_symmetry(seed: int) -> None:
    first = model(50, 6, 2, seed)
    second = related_to(first, 0.5, seed + 1)
    one, other = compare(first, second), compare(second, first)
    assert one.kl_12 == pytest.approx(other.kl_21, abs=1e-13)
    for name in ("js", "total_variation", "agreement", "d_llv", "d_fg", "m_cca_f", "m_cca_g", "d_logit"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12), name


def test_measures_separate_what_they_should() -> None:
    """Independent maps of f and g: the same representations to m_CCA, another model to all that read both."""
    f, g = model(1000, 7, 3, 0)
    maps = [torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2)]
    found = compare((f, g), (f @ maps[0], g @ maps[1]))
    assert min(found.m_cca_f, found.m_cca_g) > 1 - 1e-12
    assert found.d_llv is not None
    assert found.d_fg is not None
    assert min(found.d_llv, found.d_fg, found.kl_12) > 0.2


def test_fields_that_are_undefined_say_why() -> None:
    different = compare(model(60, 6, 2, 0), model(60, 6, 3, 1))
    missing = {field.name for field in fields(different) if getattr(different, field.name) is None}
    assert missing == different.undefined.keys()
    assert {"d_llv", "term_2", "max_d_svd_f", "d_fg", "d_rep_mean", "accuracy_1"} < missing
    assert "2 and 3" in different.undefined["d_llv"]
    assert min(different.term_1, different.d_logit, different.d_rep, different.m_cca_f) > 0
    given_set = compare(
        model(60, 6, 2, 0),
        model(60, 6, 3, 1),
        options=ComparisonOptions(input_set=(3, 5, 9)),
        labels=torch.arange(60) % 6,
    )
    assert given_set.d_llv is not None
    assert given_set.d_svd_g is not None
    assert "accuracy_1" not in given_set.undefined
    few_labels = compare(model(60, 3, 2, 0), model(60, 3, 2, 1))
    assert few_labels.d_llv is not None
    assert few_labels.undefined["max_d_svd_f"] == "L needs K = M + 2 labels, but K = 3 and M = 2"


def test_accuracy_and_agreement() -> None:
    first, second = model(60, 5, 2, 0), model(60, 5, 2, 1)
    likeliest = [(f @ g.T).argmax(1) for f, g in (first, second)]
    found = compare(first, second, labels=likeliest[0])
    assert found.accuracy_1 == 1
    assert found.accuracy_2 == found.agreement == float((likeliest[0] == likeliest[1]).double().mean())


def test_many_label_subsets_give_a_certified_interval() -> None:
    first = model(100, 12, 3, 0)
    second = related_to(first, 0.5)
    exact = compare(first, second)
    interval = compare(first, second, options=ComparisonOptions(max_subsets=10, num_subsets=5))
    assert exact.max_d_svd_f == exact.max_d_svd_f_upper
    assert interval.max_d_svd_f is not None
    assert interval.max_d_svd_f_upper is not None
    assert exact.max_d_svd_f is not None
    assert interval.max_d_svd_f <= exact.max_d_svd_f <= interval.max_d_svd_f_upper
    assert interval.max_d_svd_f < interval.max_d_svd_f_upper


def test_ids_must_match() -> None:
    first, second, ids = model(60, 5, 2, 0), model(60, 5, 2, 1), torch.arange(60)
    assert compare(first, second, ids1=ids, ids2=ids.clone()) == compare(first, second)
    swapped = ids.clone()
    swapped[[7, 8]] = swapped[[8, 7]]
    with pytest.raises(ValueError, match="row 7 has id 7 of model 1 and 8 of model 2"):
        compare(first, second, ids1=ids, ids2=swapped)
    with pytest.raises(ValueError, match="of one model only"):
        compare(first, second, ids1=ids)
    with pytest.raises(ValueError, match=r"ids2 must be \[N\] = \[60\], but is \[59\]"):
        compare(first, second, ids1=ids, ids2=ids[1:])


def _spoilt(original: Model, spoil: Callable[[Tensor, Tensor], None]) -> Model:
    f, g = (x.clone() for x in original)
    spoil(f, g)
    return f, g


def _nan_in_f(f: Tensor, g: Tensor) -> None:
    f[11, 1] = torch.nan


def _inf_in_g(f: Tensor, g: Tensor) -> None:
    g[4, 0] = torch.inf


def _equal_labels(f: Tensor, g: Tensor) -> None:
    g[2] = g[0]


def _flat_f(f: Tensor, g: Tensor) -> None:
    f[:, 1] = 3 * f[:, 0]


def _flat_g(f: Tensor, g: Tensor) -> None:
    g[:, 1] = 3 * g[:, 0] + 1


@pytest.mark.parametrize(
    ("second", "error", "message"),
    [
        (_spoilt(model(60, 5, 2), _nan_in_f), ValueError, "embedding of model '2' is not finite at sample 11: nan"),
        (_spoilt(model(60, 5, 2), _inf_in_g), ValueError, "unembedding of model '2' is not finite at label 4: inf"),
        (_spoilt(model(60, 5, 2), _equal_labels), ConstantLogRatioError, "labels 0 and 2 of model '2'"),
        (_spoilt(model(60, 5, 2), _flat_f), RankDeficientError, r"embeddings of model '2', \[60, 2\], span 1 of 2"),
        (_spoilt(model(60, 5, 2), _flat_g), RankDeficientError, r"unembeddings of model '2' .*\[5, 2\], span 1 of 2"),
        (model(59, 5, 2), ValueError, r"same N inputs.*\[60, 2\].*\[59, 2\]"),
        (model(60, 6, 2), ValueError, r"same K labels.*\[5, 2\].*\[6, 2\]"),
        (model(60, 5, 5), ValueError, r"at least M \+ 1 labels.*\[K, M\] = \[5, 5\]"),
        ((model(60, 5, 2)[0], model(60, 5, 3)[1]), ValueError, r"f \[60, 2\] and g \[5, 3\] of model '2'"),
    ],
)
def test_degenerate_models(second: Model, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compare(model(60, 5, 2, 3), second)


def test_too_few_inputs_and_bad_labels() -> None:
    with pytest.raises(ValueError, match=r"at least M \+ 1 inputs.*\[N, M\] = \[2, 2\]"):
        compare(model(2, 5, 2), model(2, 5, 2, 1))
    first, second = model(60, 5, 2, 0), model(60, 5, 2, 1)
    with pytest.raises(ValueError, match=r"label 5 of sample 3 is not one of 0\.\.4"):
        compare(first, second, labels=torch.zeros(60, dtype=torch.long).index_fill(0, torch.tensor([3]), 5))
    with pytest.raises(ValueError, match=r"labels must be \[N\] = \[60\], but are \[2\]"):
        compare(first, second, labels=torch.zeros(2, dtype=torch.long))


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        compare(model(60, 5, 2, 0), model(60, 5, 2, 1))
        with pytest.raises(ValueError, match="inputs"):
            compare(model(2, 5, 2), model(2, 5, 2, 1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_training_tensors_are_accepted() -> None:
    first, second = model(60, 5, 2, 0), model(60, 5, 2, 1)
    expected = compare(first, second, options=SAMPLED)
    training = [x.clone().requires_grad_() for x in (*first, *second)]
    assert compare_softmax_models(*training, options=SAMPLED) == expected
    stacked = compare_all_pairs(torch.stack(training[::2]), torch.stack(training[1::2]), options=SAMPLED)
    assert float(stacked["d_llv"][0, 1]) == expected.d_llv
