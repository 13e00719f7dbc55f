"""The inverted softmax and its dynamic form against their formulas; hubs of pure bias vanish."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.similarity_corrections import DynamicInvertedSoftmax, InvertedSoftmax, log_mean_exp
from likeness.neighbours.exact import nearest_neighbours
from tests.likeness.hubness import dense_reductions as dense
from tests.likeness.hubness.reduction_checks import (
    both_forms,
    clustered,
    points,
    require_formula,
    same_neighbours,
    setting,
)

BANK = points(70, 12, seed=5)
banks = pytest.mark.parametrize("bank", [None, BANK], ids=["the index", "a bank"])


@both_forms
@banks
@pytest.mark.parametrize(("metric", "beta"), [("cosine", 1.0), ("cosine", 20.0), ("dot", 1.0)])
def test_against_the_formula(metric: Any, beta: float, bank: Tensor | None, queries: Tensor | None) -> None:
    x = points(160, 12)
    expected = dense.inverted_softmax(setting(x, queries), beta, metric, None if bank is None else bank.numpy())
    require_formula(InvertedSoftmax(beta, metric).fit(x, bank), expected, queries)


@both_forms
@pytest.mark.parametrize("activation", [1, 3])
def test_dynamic_against_the_formula(activation: int, queries: Tensor | None) -> None:
    x = points(160, 12)
    expected = dense.dynamic_inverted_softmax(setting(x, queries), 5.0, activation, "cosine", BANK[:30].numpy())
    plain = (expected == -dense.similarities(setting(x, queries).asked, x.numpy(), "cosine")).all(1)
    assert 0 < plain.sum() < len(plain)  # both kinds of queries are there
    require_formula(DynamicInvertedSoftmax(5.0, activation).fit(x, BANK[:30]), expected, queries)


def test_every_query_of_the_bank_is_active() -> None:
    x = points(160, 12)
    plain, dynamic = (method.fit(x).rerank() for method in (InvertedSoftmax(), DynamicInvertedSoftmax()))
    assert torch.equal(plain.ids, dynamic.ids)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_any_bias_of_an_item_is_ignored(seed: int, size: float) -> None:
    """One dimension more, constant for queries and free for items, adds any bias b(x) to <q, x>."""
    x, queries = points(40, 4, seed), points(30, 4, seed + 1)
    bias = size * points(40, 1, seed + 2)
    one = torch.ones(30, 1, dtype=x.dtype)
    method = InvertedSoftmax(2.0, "dot")
    plain = method.fit(x, queries).distances(queries)
    biased = method.fit(torch.cat([x, bias], 1), torch.cat([queries, one], 1)).distances(torch.cat([queries, one], 1))
    torch.testing.assert_close(biased, plain, rtol=1e-8, atol=1e-8)


def test_a_hub_of_pure_bias_vanishes() -> None:
    x, queries = points(200, 8), points(300, 8, seed=1)
    bias = torch.zeros(200, 1, dtype=x.dtype)
    bias[17] = 100
    index, asked = torch.cat([x, bias], 1), torch.cat([queries, torch.ones(300, 1, dtype=x.dtype)], 1)
    planted = nearest_neighbours(index, 10, metric="dot", queries=asked).ids
    assert int((planted == 17).sum()) == 300
    left = InvertedSoftmax(1.0, "dot").fit(index, asked).rerank(asked).ids
    without = InvertedSoftmax(1.0, "dot").fit(x, queries).rerank(queries).ids
    assert torch.equal(left, without)


@banks
def test_blocks_change_nothing(bank: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(160, 12)
    whole = log_mean_exp(x, bank, 3.0, "dot")
    expected = dense.log_partition(x.numpy(), None if bank is None else bank.numpy(), 3.0, "dot")
    np.testing.assert_allclose(whole + np.log(159 if bank is None else len(bank)), expected)
    monkeypatch.setattr("likeness.neighbours.moments._TILE", (7, 13))
    torch.testing.assert_close(log_mean_exp(x, bank, 3.0, "dot"), whole, rtol=1e-12, atol=0)


def test_large_beta_does_not_overflow() -> None:
    found = InvertedSoftmax(1e4).fit(clustered(100, 16)).rerank()
    assert bool(found.distances.isfinite().all())


@pytest.mark.parametrize("method", [InvertedSoftmax(), DynamicInvertedSoftmax()])
def test_float32(method: Any) -> None:
    x = clustered(1500, 64)
    narrow, wide = (method.fit(y).rerank().ids for y in (x, x.double()))
    assert same_neighbours(narrow, wide) >= 0.9999


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (InvertedSoftmax, {"beta": 0.0}, "beta of inverted_softmax must be positive, got 0"),
        (InvertedSoftmax, {"metric": "euclidean"}, "metric of inverted_softmax must be one of cosine, dot"),
        (DynamicInvertedSoftmax, {"activation": 0}, "activation of dynamic_inverted_softmax must be at least 1"),
    ],
)
def test_options_without_a_meaning(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)
