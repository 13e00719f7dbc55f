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

from likeness.similarity.comparison import Certificate, SoftmaxComparison, compare_softmax_models
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import compare_all_pairs
from scripts.bench.similarity import plain_comparison
from tests.likeness.similarity.softmax_pairs import Model, entries, equivalent_to, log_p, model, related_to, with_bias

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
    own_units = OF_REP
    for field in fields(SoftmaxComparison):
        if field.name in {"ties", "undefined", *own_units, *found.undefined}:
            continue
        before, after = getattr(found, field.name), getattr(changed, field.name)
        before, after = (x.value if isinstance(x, Certificate) else x for x in (before, after))
        assert after == (before if isinstance(before, str) else pytest.approx(before, rel=1e-8, abs=1e-10)), field.name


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


def _huge(f: Tensor, g: Tensor) -> None:
    f *= 1e200
    g *= 1e150


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (_spoilt(model(60, 5, 2), _nan_in_f), "embedding of model '2' is not finite at sample 11: nan"),
        (_spoilt(model(60, 5, 2), _inf_in_g), "unembedding of model '2' is not finite at label 4: inf"),
        (_spoilt(model(60, 5, 2), _huge), "largest logit of model '2' is not finite at sample 0"),
        (model(59, 5, 2), r"same N inputs.*\[60, 2\].*\[59, 2\]"),
        (model(60, 6, 2), r"same K labels.*\[5, 2\].*\[6, 2\]"),
        ((model(60, 5, 2)[0], model(60, 5, 3)[1]), r"f \[60, 2\] and g \[5, 3\] of model '2'"),
        ((model(60, 5, 2)[0][:, :0], model(60, 5, 2)[1][:, :0]), r"none of them 0.*\[60, 0\]"),
    ],
)
def test_what_is_no_model_is_refused(second: Model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(model(60, 5, 2, 3), second)


def _equal_labels(f: Tensor, g: Tensor) -> None:
    g[2] = g[0]


def _flat_f(f: Tensor, g: Tensor) -> None:
    f[:, 1] = 3 * f[:, 0]


def _flat_g(f: Tensor, g: Tensor) -> None:
    g[:, 1] = 3 * g[:, 0] + 1


def _condition_1e8(f: Tensor, g: Tensor) -> None:
    g[:, 1] = g[:, 0] + 1e-8 * g[:, 1]


def _constant_f(f: Tensor, g: Tensor) -> None:
    f[:] = f[0].clone()


OF_INPUT_SETS = {"d_llv", "term_2", "term_4", "input_set", "input_search", "d_svd_g", "m_svd_g"}
OF_INPUT_SETS |= {"d_fg", "d_fg_upper", "squared_bound", "paper_bound"}
OF_LABELS = {"d_llv", "term_1", "term_3", "pivot", "left_out", "ties", "squared_bound", "paper_bound"}
OF_LABEL_SUBSETS = {"m_svd_f", "max_d_svd_f", "max_d_svd_f_upper", "max_d_svd_f_of_ties", "certificate"}
OF_LABEL_SUBSETS |= {"label_subset_search", "d_fg", "d_fg_upper"}
OF_REP = {"d_rep", "d_rep_bound", "d_rep_mean", "d_rep_median", "d_rep_kept", "d_rep_mean_bound", "d_rep_search"}
AVERAGED = OF_REP - {"d_rep", "d_rep_bound"}
ACCURACIES = {"accuracy_1", "accuracy_2"}


@pytest.mark.parametrize(
    ("first", "missing", "why"),
    [
        (_spoilt(model(60, 7, 2), _equal_labels), set(), None),
        (
            _spoilt(model(60, 7, 2), _flat_f),
            AVERAGED,
            ("d_rep_mean", "the embeddings span 1 and 2 dimensions"),
        ),
        (
            _spoilt(model(60, 7, 2), _constant_f),
            OF_INPUT_SETS | OF_LABELS | OF_LABEL_SUBSETS | {"m_cca_f", "correlation_deficit", "m_cca_bound"},
            ("term_1", "log-ratio of labels 0 and 1 of model '1' is constant"),
        ),
        (
            _spoilt(model(60, 7, 2), _flat_g),
            OF_REP | {"m_cca_g", "m_cca_bound"},
            ("d_rep", "unembeddings of model '1' less their mean, [7, 2], span 1 of 2"),
        ),
        (
            _spoilt(model(60, 7, 2), _condition_1e8),
            AVERAGED,
            ("d_rep_mean", "no L_J of the unembeddings (7, 2) of model '1'"),
        ),
    ],
)
def test_what_is_defined_is_given_and_the_rest_says_why(
    first: Model, missing: set[str], why: tuple[str, str] | None
) -> None:
    second = model(60, 7, 2, 3)
    found = compare(first, second)
    assert {field.name for field in fields(found) if getattr(found, field.name) is None} == missing | ACCURACIES
    assert found.undefined.keys() == missing | ACCURACIES
    if why is not None:
        assert why[1] in found.undefined[why[0]]
    p, q = ((f @ g.T).log_softmax(1) for f, g in (first, second))
    assert found.kl_12 == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-10)
    assert found.d_logit > 0


def test_more_dimensions_than_labels() -> None:
    """M >= K: only what spans the head, or subsets of labels, is undefined."""
    first = model(60, 5, 6, 0)
    found = compare(first, related_to(first, 0.5))
    assert found.undefined.keys() == OF_LABEL_SUBSETS | OF_REP | {"m_cca_g", "m_cca_bound"} | ACCURACIES
    lp1, lp2 = log_p(first), log_p(related_to(first, 0.5))
    assert found.input_set is not None
    pivot, *others = found.input_set
    expected = max(entries(lp1.T, lp2.T, pivot, x)[0] for x in others)
    assert found.term_2 == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("samples", "labels", "dim"), [(1, 5, 2), (1, 1, 1), (30, 1, 2), (30, 2, 1), (2, 3, 1), (3, 2, 2)]
)
def test_one_of_each(samples: int, labels: int, dim: int) -> None:
    """One sample, one label, one dimension, two labels: what two models predict can always be compared."""
    first, second = model(samples, labels, dim, 0), model(samples, labels, dim, 1)
    for other in (second, first):
        found = compare(first, other, labels=torch.zeros(samples, dtype=torch.long))
        p, q = ((f @ g.T).log_softmax(1) for f, g in (first, other))
        assert found.kl_12 == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), abs=1e-12)
        u, v = (f @ (g - g.mean(0)).T for f, g in (first, other))
        assert found.d_logit == pytest.approx(float((u - v).square().sum(1).mean().sqrt()), abs=1e-12)
        missing = {field.name for field in fields(found) if getattr(found, field.name) is None}
        assert missing == found.undefined.keys()
        assert all(found.undefined.values())
        given = [getattr(found, field.name) for field in fields(found)]
        assert all(math.isfinite(value) for value in given if isinstance(value, float))


SCALES = st.integers(-900, 900)  # exponents of two: far beyond where squares are numbers


@settings(max_examples=40)
@given(exponent=SCALES, seed=SEEDS)
def test_the_unit_of_the_embeddings_does_not_matter(exponent: int, seed: int) -> None:
    """f in other units and g in their inverse: the same models. Only d_rep has the unit of f."""
    first = model(40, 6, 2, seed)
    second = related_to(first, 0.5, seed + 1)
    unit = 2.0**exponent
    found, base = (
        compare((first[0] * a, first[1] / a), (second[0] * b, second[1] / b)) for a, b in ((unit, 1 / unit), (1.0, 1.0))
    )
    for field in fields(SoftmaxComparison):
        after, before = (getattr(x, field.name) for x in (found, base))
        if field.name in ("undefined", *base.undefined):
            continue
        after, before = (x.value if isinstance(x, Certificate) else x for x in (after, before))
        in_units = field.name in OF_REP - {"d_rep_kept", "d_rep_search"}
        expected = before * unit if in_units else before
        assert after == (expected if isinstance(after, str | tuple) else pytest.approx(expected, rel=1e-12)), field.name


@settings(max_examples=40)
@given(exponent=st.integers(-900, -40), seed=SEEDS)
def test_of_tiny_logits_only_the_first_order_is_left(exponent: int, seed: int) -> None:
    """The smaller the logits, the more lp is u - log K: the distances of u, however small."""
    first = model(40, 6, 2, seed)
    second = related_to(first, 0.5, seed + 1)
    size = 2.0**exponent
    found = compare((first[0] * size, first[1]), (second[0] * size, second[1]))
    u, v = ((f @ (g - g.mean(0)).T).numpy() for f, g in (first, second))
    assert found.pivot is not None
    assert found.input_set is not None
    compared = set(range(6)) - {found.pivot, found.left_out}
    of_labels = [entries(u, v, found.pivot, y) for y in compared]
    of_inputs = [entries(u.T, v.T, found.input_set[0], x) for x in found.input_set[1:]]
    assert found.term_1 == pytest.approx(max(a for a, _ in of_labels), rel=1e-9)
    assert found.term_2 == pytest.approx(max(a for a, _ in of_inputs), rel=1e-9)
    assert found.term_3 == pytest.approx(size * max(b for _, b in of_labels), rel=1e-9)
    assert found.d_logit == pytest.approx(size * math.sqrt(((u - v) ** 2).sum(1).mean()), rel=1e-9)
    assert found.agreement == float((u.argmax(1) == v.argmax(1)).mean())


@settings(max_examples=40)
@given(exponent=st.integers(40, 900), seed=SEEDS)
def test_of_huge_logits_the_largest_is_the_log_partition(exponent: int, seed: int) -> None:
    first = model(40, 6, 2, seed)
    second = related_to(first, 0.5, seed + 1)
    size = 2.0**exponent
    found = compare((first[0] * size, first[1]), (second[0] * size, second[1]))
    u, v = ((f @ (g - g.mean(0)).T).numpy() for f, g in (first, second))
    lp, lq = u - u.max(1, keepdims=True), v - v.max(1, keepdims=True)
    assert found.pivot is not None
    compared = set(range(6)) - {found.pivot, found.left_out}
    of_labels = [entries(lp, lq, found.pivot, y) for y in compared]
    assert found.term_1 == pytest.approx(max(a for a, _ in of_labels), rel=1e-9)
    assert found.term_3 == pytest.approx(size * max(b for _, b in of_labels), rel=1e-9)
    assert found.d_logit == pytest.approx(size * math.sqrt(((u - v) ** 2).sum(1).mean()), rel=1e-9)
    assert found.kl_12 == pytest.approx(size * float(-lq[range(40), u.argmax(1)].mean()), rel=1e-9)


def test_results_outside_float64_are_undefined() -> None:
    first, second = model(40, 6, 2, 0), model(40, 6, 2, 1)
    found = compare((first[0] * 1e200, first[1]), (second[0] * 1e200, second[1]))
    assert found.correlation_deficit is None
    assert "outside the range of float64" in found.undefined["correlation_deficit"]
    assert found.d_logit > 1e199


def test_labels_that_do_not_fit_are_refused() -> None:
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
        with pytest.raises(ValueError, match="label 9 of sample 0"):
            compare(model(60, 5, 2), model(60, 5, 2, 1), labels=torch.full((60,), 9))
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
