"""CSLS, NNN and localised centring against their formulas, with and without a bank of queries."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.similarity_corrections import Csls, LocalisedCentring, NearestNeighbourNormalisation
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
metrics = pytest.mark.parametrize("metric", ["cosine", "dot"])
banks = pytest.mark.parametrize("bank", [None, BANK], ids=["the index", "a bank"])


def array(bank: Tensor | None) -> Any:
    return None if bank is None else bank.numpy()


@both_forms
@metrics
@banks
def test_csls_against_the_formula(metric: Any, bank: Tensor | None, queries: Tensor | None) -> None:
    x = points(160, 12)
    expected = dense.csls(setting(x, queries), 7, metric, array(bank))
    require_formula(Csls(7, metric).fit(x, bank), expected, queries)


@both_forms
@metrics
@banks
def test_nnn_against_the_formula(metric: Any, bank: Tensor | None, queries: Tensor | None) -> None:
    x = points(160, 12)
    expected = dense.nnn(setting(x, queries), 7, 0.75, metric, array(bank))
    require_formula(NearestNeighbourNormalisation(7, 0.75, metric).fit(x, bank), expected, queries)


@both_forms
@metrics
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_localised_centring_against_the_formula(metric: Any, gamma: float, queries: Tensor | None) -> None:
    x = points(160, 12)
    s = setting(x, queries)
    expected = dense.bank_similarity(s.x, None, 7, metric) ** gamma - dense.similarities(s.asked, s.x, metric)
    require_formula(LocalisedCentring(7, gamma, metric).fit(x), expected, queries)


def test_half_of_nnn_with_the_queries_as_bank_ranks_as_csls() -> None:
    x, queries = points(160, 12), points(40, 12, seed=1)
    csls = Csls(5).fit(x, queries).rerank(queries).ids
    assert torch.equal(NearestNeighbourNormalisation(5, 0.5).fit(x, queries).rerank(queries).ids, csls)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 3))
def test_csls_ignores_a_constant_added_to_all_similarities(seed: int, constant: float) -> None:
    """One dimension more, in which all points are alike, adds its square to every inner product."""
    x = points(40, 4, seed)
    lifted = torch.cat([x, torch.full((40, 1), constant, dtype=x.dtype)], 1)
    plain, moved = (Csls(5, "dot").fit(y).distances() for y in (x, lifted))
    torch.testing.assert_close(moved, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [Csls(), NearestNeighbourNormalisation(), LocalisedCentring()])
def test_float32(method: Any) -> None:
    x = clustered(1500, 64)
    narrow, wide = (method.fit(y).rerank().ids for y in (x, x.double()))
    assert same_neighbours(narrow, wide) >= 0.9999


def test_a_negative_mean_similarity_has_no_root() -> None:
    x = torch.eye(6, dtype=torch.float64) - 1 / 6
    with pytest.raises(ValueError, match="6 points have a negative mean similarity, point 0 the first"):
        LocalisedCentring(2, 0.5, "dot").fit(x)


def test_no_bank_where_none_is_read() -> None:
    with pytest.raises(ValueError, match="localised_centring takes no bank"):
        LocalisedCentring().fit(points(30, 4), BANK)


@pytest.mark.parametrize("method", [Csls, NearestNeighbourNormalisation, LocalisedCentring])
@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "k of .* must be at least 1, got 0"), ({"metric": "euclidean"}, "must be one of cosine, dot")],
)
def test_options_without_a_meaning(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)
