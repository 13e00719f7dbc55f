"""Errors of functions of moments, against comparisons of what is left without each group of documents."""

from functools import cache

import pytest
import torch
from torch import Tensor

from likeness.language.answer import LanguageComparison
from likeness.language.comparison import compare_language_models, compared
from likeness.language.pair_moments import PairMoments
from likeness.language.token_pass import Head
from likeness.seeding import hashed
from tests.likeness.language.pairs import logits, random_pair

DOCUMENTS = torch.arange(200) // 8
WEIGHTS = torch.arange(12.0)
GROUPS = 5
FUNCTIONS = ("m_cca_f", "linear_cka_f", "d_logit_weighted", "d_logit_weighted_normalised")


@cache
def models() -> tuple[tuple[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor | None], Tensor]:
    return random_pair(samples=200, labels=12, dims=(4, 3))


@cache
def whole() -> LanguageComparison:
    return compare_language_models(*models(), documents=DOCUMENTS, weights=WEIGHTS, groups=GROUPS)


def without_each_group() -> list[Tensor]:
    return [(hashed(DOCUMENTS) % GROUPS != group).nonzero().flatten() for group in range(GROUPS)]


def error(values: list[float]) -> float:
    numbers = torch.tensor(values).double()
    return float(((len(values) - 1) / len(values) * (numbers - numbers.mean()).square().sum()).sqrt())


def test_functions_of_what_is_left() -> None:
    first, second, next_token = models()
    parts = [
        compare_language_models((first[0][r], *first[1:]), (second[0][r], *second[1:]), next_token[r], weights=WEIGHTS)
        for r in without_each_group()
    ]
    assert whole().groups == GROUPS
    for name in FUNCTIONS:
        assert whole().errors[name] == pytest.approx(error([getattr(part, name) for part in parts]), rel=1e-6), name
        assert whole().errors[name] > 0


def test_term_1_keeps_its_labels() -> None:
    log_p = [logits(model).log_softmax(1) for model in models()[:2]]
    pivot, left_out = whole().pivot, whole().left_out

    def entry(rows: Tensor, label: int) -> float:
        p, q = (x[rows][:, [pivot, label]] for x in log_p)
        scaled = p / (p[:, 1] - p[:, 0]).std() - q / (q[:, 1] - q[:, 0]).std()
        return float(scaled.std(0).max())

    every = torch.arange(200)
    label = max({*range(12)} - {pivot, left_out}, key=lambda one: entry(every, one))
    assert entry(every, label) == pytest.approx(whole().term_1, rel=1e-7)
    expected = error([entry(rows, label) for rows in without_each_group()])
    assert whole().errors["term_1"] == pytest.approx(expected, rel=1e-6)


def test_batches_and_parts_change_no_error() -> None:
    first, second, next_token = models()
    parts = [PairMoments(Head(*first[1:]), Head(*second[1:]), groups=GROUPS) for _ in range(2)]
    for number, rows in enumerate(torch.arange(200).split(30)):
        parts[number % 2].update((first[0][rows], second[0][rows]), next_token[rows], DOCUMENTS[rows], rows)
    parts[0].merge(parts[1])
    assert compared(parts[0], weights=WEIGHTS).errors == pytest.approx(whole().errors, rel=1e-9)


def test_a_model_and_itself_have_no_error_and_one_document_says_nothing() -> None:
    first, _, next_token = models()
    itself = compare_language_models(first, first, next_token, documents=DOCUMENTS, groups=GROUPS)
    assert max(itself.errors[name] for name in (*FUNCTIONS, "term_1")) < 1e-12
    one = compare_language_models(first, first, next_token, documents=torch.zeros(200).long(), groups=GROUPS)
    assert (one.groups, set(FUNCTIONS) & set(one.errors)) == (0, set())
