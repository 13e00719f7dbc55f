"""Local scaling and NICDM against their formulas, and what they are invariant to."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.local_scaling import LocalScaling, Nicdm
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

methods = pytest.mark.parametrize(("method", "formula"), [(LocalScaling, dense.local_scaling), (Nicdm, dense.nicdm)])


@both_forms
@methods
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 7])
def test_against_the_formula(
    method: type[Nicdm], formula: Callable[..., Any], metric: Any, k: int, queries: Tensor | None
) -> None:
    x = points(160, 12)
    expected = formula(setting(x, queries), k, metric)
    require_formula(method(k, metric).fit(x), expected, queries)


@methods
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
def test_a_scale_changes_nothing(method: type[Nicdm], formula: Any, seed: int, scale: float) -> None:
    x, queries = points(40, 4, seed), points(9, 4, seed + 1)
    plain, scaled = (method(3).fit(c * x).distances(c * queries) for c in (1.0, scale))
    torch.testing.assert_close(scaled, plain, rtol=1e-9, atol=1e-12)


@methods
def test_float32(method: type[Nicdm], formula: Any) -> None:
    x = clustered(1500, 64)
    for metric in ("euclidean", "cosine"):
        narrow, wide = (method(metric=metric).fit(y).rerank().ids for y in (x, x.double()))
        assert same_neighbours(narrow, wide) >= 0.9999


@methods
def test_points_that_occur_more_often_than_k(method: type[Nicdm], formula: Any) -> None:
    """Their scale is 0: they are near to each other, and far from all others."""
    x = clustered(600, 16)
    x[50:326] = x[50]
    found = method().fit(x).rerank()
    assert bool(found.distances.isfinite().all())
    copies = (found.ids >= 50) & (found.ids < 326)
    assert bool(copies[50:326].all())
    assert not bool(copies[:50].any() | copies[326:].any())


@methods
def test_unit_vectors_take_one_dimension_more_and_others_two(method: type[Nicdm], formula: Any) -> None:
    x = clustered(100, 16)
    assert method().fit(unit(x)).augment().index.shape == (100, 17)
    assert method(metric="cosine").fit(x).augment().index.shape == (100, 17)
    assert method().fit(x).augment().index.shape == (100, 18)


@methods
def test_augmented_queries_must_have_length_1_where_the_index_has(method: type[Nicdm], formula: Any) -> None:
    x = clustered(100, 16)
    with pytest.raises(ValueError, match="must have it, too"):
        method().fit(unit(x)).augment().queries(2 * x)


@methods
@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "k of .* must be at least 1, got 0"), ({"metric": "dot"}, "metric of .* must be one of euclidean")],
)
def test_options_without_a_meaning(method: Any, formula: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(**options)


@methods
def test_more_neighbours_than_points(method: type[Nicdm], formula: Any) -> None:
    with pytest.raises(ValueError, match="k must be from 1 to 7, but it is 10"):
        method().fit(points(8, 3))
