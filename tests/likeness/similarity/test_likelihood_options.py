"""d_LLV's options, ties and degenerate models, and what it refuses."""

from itertools import permutations
from typing import Any

import pytest
import torch

from likeness.similarity import d_llv as search
from likeness.similarity.cloud import one_pair
from likeness.similarity.d_llv import MAX_TIES, choose_labels, d_llv, term_1_matrix
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.softmax_models import SoftmaxModels
from likeness.similarity.undefined import ConstantLogRatioError
from tests.likeness.similarity.softmax_pairs import entries, equivalent_to, log_p, model, related_to

CPU = torch.device("cpu")


def test_fixed_choices_are_those_asked_for() -> None:
    first, second = model(30, 5, 2, 0), model(30, 5, 2, 1)
    options = ComparisonOptions(label_choice=(1, 3), input_set=(4, 9, 20, 21))
    found = d_llv(*first, *second, options)
    lp1, lp2 = log_p(first), log_p(second)
    labels, inputs = (
        [entries(a, b, p, y) for y in others]
        for a, b, p, others in ((lp1, lp2, 1, (0, 2, 4)), (lp1.T, lp2.T, 4, (9, 20, 21)))
    )
    assert float(found.term_1) == pytest.approx(max(a for a, _ in labels), abs=1e-13)
    assert float(found.term_2) == pytest.approx(max(a for a, _ in inputs), abs=1e-13)
    assert float(found.term_3) == pytest.approx(max(b for _, b in labels), abs=1e-13)
    assert float(found.term_4) == pytest.approx(max(b for _, b in inputs), abs=1e-13)
    assert found.labels.ties.tolist() == [[0, 1, 3]]
    assert found.inputs.tolist() == [[4, 9, 20, 21]]


def test_how_the_terms_are_combined() -> None:
    first, second = model(30, 5, 2, 0), model(30, 5, 2, 1)
    by_max, by_sum = (d_llv(*first, *second, ComparisonOptions(lambda_=10, combine=how)) for how in ("max", "sum"))
    terms = [float(by_max.term_1), float(by_max.term_2), 10 * float(by_max.term_3), 10 * float(by_max.term_4)]
    assert float(by_max.d_llv) == max(terms)
    assert float(by_sum.d_llv) == pytest.approx(sum(terms))


def test_ties_of_equal_models_are_capped() -> None:
    f, g = model(30, 12, 2, 0)
    found = d_llv(f, g, f, g)
    assert float(found.d_llv) < 1e-15
    assert (int(found.labels.pivot), int(found.labels.left_out)) == (0, 1)
    assert len(found.labels.ties) == MAX_TIES


def test_constant_log_ratio_names_the_labels_and_the_model() -> None:
    first, second = model(30, 6, 2, 0), model(30, 6, 2, 1)
    second[1][4] = second[1][1]
    with pytest.raises(ConstantLogRatioError, match="labels 4 and 1 of model '1' is constant"):
        d_llv(*second, *first, ComparisonOptions(label_choice=(4, 0)))
    second[1][:] = second[1][1]  # no two labels differ, so that no choice is left
    with pytest.raises(ConstantLogRatioError, match="labels 0 and 1 of model '2' is constant"):
        d_llv(*first, *second)


@pytest.mark.parametrize("few_labels", [10_000, 3])
def test_choices_that_compare_equal_labels_are_none(few_labels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels 1 and 4 are equal in one model: a pivot of them can leave the other out, and no other pivot minds."""
    monkeypatch.setattr(search, "_FEW_LABELS", few_labels)
    first, second = model(30, 6, 2, 0), model(30, 6, 2, 1)
    second[1][4] = second[1][1]
    lp1, lp2 = log_p(first), log_p(second)
    choices = {}
    for pivot, left_out in permutations(range(6), 2):
        compared = set(range(6)) - {pivot, left_out}
        if not (pivot in (1, 4) and compared & {1, 4}):
            choices[pivot, left_out] = max(entries(lp1, lp2, pivot, y)[0] for y in compared)
    found = d_llv(*first, *second)
    assert float(found.term_1) == pytest.approx(min(choices.values()), abs=1e-13)
    assert choices[int(found.labels.pivot), int(found.labels.left_out)] == min(choices.values())


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.3])
def test_hopeless_pivots_are_not_needed(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    first = model(200, 700, 5, 0)
    vectors = SoftmaxModels.of(*zip(first, related_to(first, noise), strict=True)).labels
    pair = one_pair(0, 1, CPU)
    expected = choose_labels(vectors, pair)
    monkeypatch.setattr(search, "_FEW_LABELS", 10)
    monkeypatch.setattr(search, "_ROWS_AT_ONCE", 64)
    found = choose_labels(vectors, pair)
    assert float(found.term_1) == pytest.approx(float(expected.term_1), abs=1e-14)
    assert found.ties.tolist() == expected.ties.tolist()
    known = search.maxima_of_promising_pivots(vectors, pair).largest[0, :, 1].isfinite()
    assert known.sum() < 400


def test_wide_representations_go_through_matrix_products() -> None:
    first = model(300, 140, 130, 0)
    second = related_to(first, 0.5)
    vectors = SoftmaxModels.of([first[0], second[0]], [first[1], second[1]]).labels
    t1, _ = term_1_matrix(vectors)
    lp1, lp2 = log_p(first), log_p(second)
    assert float(t1[3, 77]) == pytest.approx(entries(lp1, lp2, 3, 77)[0], abs=1e-12)
    assert float(d_llv(*first, *equivalent_to(first)).d_llv) < 1e-11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_choice": (2, 2)}, r"label_choice must be two of the labels 0..4, got \(2, 2\)"),
        ({"label_choice": (0, 5)}, r"got \(0, 5\)"),
        ({"input_set": (3,)}, r"input_set must be at least two of the positions 0..29, got \(3,\)"),
        ({"input_set": (3, 30)}, r"got \(3, 30\)"),
        ({"input_set": (3, 3, 4)}, "coincides"),
        ({"search": "best"}, "search must be one of exact, sampled, auto, got 'best'"),
        ({"combine": "mean"}, "combine must be one of max, sum, got 'mean'"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"lambda_": -1.0}, "lambda_ must not be negative, got -1.0"),
        ({"search": "sampled"}, "200 disjoint sets of 3 inputs need 600 samples, but there are 30"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        d_llv(*model(30, 5, 2, 0), *model(30, 5, 2, 1), ComparisonOptions(**options))


def test_refused_models() -> None:
    two_labels = model(30, 2, 1, 0), model(30, 2, 1, 1)
    with pytest.raises(ValueError, match="there are 2 labels"):
        d_llv(*two_labels[0], *two_labels[1])
    with pytest.raises(ValueError, match=r"\(30, 2\), \(30, 3\).*give the set"):
        d_llv(*model(30, 5, 2, 0), *model(30, 5, 3, 1))
