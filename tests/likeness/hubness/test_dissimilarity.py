"""Local and global dissimilarity against their formulas."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.local_scaling import DisSimGlobal, DisSimLocal
from tests.likeness.hubness import dense_reductions as dense
from tests.likeness.hubness.reduction_checks import (
    both_forms,
    clustered,
    points,
    require_formula,
    same_neighbours,
    setting,
    unit,
)


@both_forms
@pytest.mark.parametrize("k", [2, 10])
def test_local_against_the_formula(k: int, queries: Tensor | None) -> None:
    x = points(160, 12)
    require_formula(DisSimLocal(k).fit(x), dense.dissim_local(setting(x, queries), k), queries)


@both_forms
def test_global_against_the_formula(queries: Tensor | None) -> None:
    x = points(160, 12)
    require_formula(DisSimGlobal().fit(x), dense.dissim_global(setting(x, queries)), queries)


@both_forms
def test_of_directions(queries: Tensor | None) -> None:
    x = points(160, 12)
    s = setting(unit(x), None if queries is None else unit(queries))
    require_formula(DisSimLocal(5, "cosine").fit(x), dense.dissim_local(s, 5), queries)
    require_formula(DisSimGlobal("cosine").fit(x), dense.dissim_global(s), queries)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(-50, 50), st.floats(0.1, 10))
def test_isometries_change_nothing_and_scales_no_rank(seed: int, shift: float, scale: float) -> None:
    x = points(40, 4, seed)
    rotation = torch.linalg.qr(points(4, 4, seed + 1)).Q
    for method in (DisSimLocal(5), DisSimGlobal()):
        plain = method.fit(x).distances()
        torch.testing.assert_close(method.fit(x @ rotation + shift).distances(), plain, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(method.fit(scale * x).distances(), scale**2 * plain, rtol=1e-8, atol=1e-8)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_global_is_minus_twice_the_centred_inner_product(seed: int) -> None:
    x, queries = points(40, 4, seed), points(9, 4, seed + 1)
    expected = -2 * (queries - x.mean(0)) @ (x - x.mean(0)).T
    torch.testing.assert_close(DisSimGlobal().fit(x).distances(queries), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [DisSimLocal(), DisSimGlobal()])
def test_float32(method: Any) -> None:
    x = clustered(1500, 64)
    narrow, wide = (method.fit(y).rerank().ids for y in (x, x.double()))
    assert same_neighbours(narrow, wide) >= 0.9999


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (DisSimLocal, {"k": 0}, "k of dissim_local must be at least 1, got 0"),
        (DisSimLocal, {"metric": "dot"}, "metric of dissim_local must be one of euclidean, cosine"),
        (DisSimGlobal, {"metric": "dot"}, "metric of dissim_global must be one of euclidean, cosine"),
    ],
)
def test_options_without_a_meaning(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)
