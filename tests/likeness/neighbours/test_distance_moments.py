"""Moments of distances in closed form against all distances; sums of shards against the sums of the whole."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.neighbours import moments as module
from likeness.neighbours.distances import PointDistances
from likeness.neighbours.moments import DistanceMoments, IndexSums, distance_moments, euclidean_moments, euclidean_sums
from tests.likeness.hubness.dense_reductions import others, pairs
from tests.likeness.hubness.reduction_checks import points

metrics = pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "dot"])


def moments_of(x: Tensor, metric: Any, queries: Tensor | None = None) -> DistanceMoments:
    return distance_moments(PointDistances(x, queries, metric), in_index=queries is None)


def require_moments(found: DistanceMoments, distances: np.ndarray, rtol: float) -> None:
    np.testing.assert_allclose(found.mean, distances.mean(1), rtol=rtol)
    np.testing.assert_allclose(found.variance, distances.var(1), rtol=rtol)


@metrics
def test_of_index_points_among_the_others(metric: str) -> None:
    x = points(120, 7)
    require_moments(moments_of(x, metric), others(pairs(x.numpy(), x.numpy(), metric)), rtol=1e-11)


@metrics
def test_of_queries_among_all(metric: str) -> None:
    x, queries = points(120, 7), points(30, 7, seed=1)
    require_moments(moments_of(x, metric, queries), pairs(queries.numpy(), x.numpy(), metric), rtol=1e-11)


@metrics
def test_blocks_change_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(120, 7)
    whole = moments_of(x, metric)
    monkeypatch.setattr(module, "_CHUNK", 13)
    monkeypatch.setattr(module, "_TILE", (17, 11))
    monkeypatch.setattr(module, "_LOST", 10.0)  # every row is taken one by one
    monkeypatch.setattr(module, "_ROWS", 7)
    torch.testing.assert_close(moments_of(x, metric), whole, rtol=1e-11, atol=0)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_far_from_the_origin(metric: str) -> None:
    x = points(120, 7)
    torch.testing.assert_close(moments_of(x + 1e5, metric), moments_of(x, metric), rtol=1e-8, atol=0)


@metrics
def test_float32_points_in_many_dimensions(metric: str) -> None:
    """All distances nearly equal: the variance is a thousandth of the mean squared."""
    x = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0))
    require_moments(moments_of(x, metric), others(differences(x, x, metric)), rtol=1e-9)


def differences(q: Tensor, x: Tensor, metric: str) -> np.ndarray:
    """Distances [m, n] from the differences of points in float64, where SciPy's cosine has lost its digits."""
    q, x = q.double(), x.double()
    if metric == "dot":
        return (-q @ x.T).numpy()
    if metric == "cosine":
        q, x = (rows / rows.norm(dim=1, keepdim=True) for rows in (q, x))
    squares = torch.stack([(x - row).square().sum(1) for row in q])
    return {"euclidean": squares.sqrt(), "sqeuclidean": squares, "cosine": squares / 2}[metric].numpy()


@metrics
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-7])
def test_of_points_with_a_large_part_in_common(metric: str, dtype: torch.dtype, spread: float) -> None:
    x = (1 + spread * points(150, 16)).to(dtype)
    tolerance = 1e-6 if metric == "cosine" and spread == 1e-7 else 1e-8  # of unit vectors' own rounding
    if metric != "dot":
        require_moments(moments_of(x, metric), others(differences(x, x, metric)), rtol=tolerance)
        return
    found, expected = moments_of(x, metric), others(differences(x, x, metric))
    np.testing.assert_allclose(found.mean, expected.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.variance.sqrt(), expected.std(1), rtol=1e-3, atol=1e-14)


@metrics
def test_of_a_query_that_is_far_from_all(metric: str) -> None:
    """All its distances are nearly equal, and their variance cancels in any closed form."""
    x = points(150, 16)
    queries = torch.cat([points(3, 16, seed=1), 1e7 + points(3, 16, seed=1)])
    expected = differences(queries, x, metric)
    require_moments(moments_of(x, metric, queries), expected, rtol=1e-8)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 39))
def test_sums_of_shards_add_to_those_of_the_whole(seed: int, split: int) -> None:
    x = points(40, 5, seed)
    merged, whole = IndexSums.of(x[:split]) + IndexSums.of(x[split:]), IndexSums.of(x)
    for field in fields(IndexSums):
        torch.testing.assert_close(getattr(merged, field.name), getattr(whole, field.name), rtol=1e-12, atol=1e-12)


def test_moments_from_the_sums_of_shards() -> None:
    x = points(90, 5)
    sums = IndexSums.of(x[:20]) + IndexSums.of(x[20:50]) + IndexSums.of(x[50:])
    mean, square = sums.squared_moments(x, in_index=True)
    squared = others(pairs(x.numpy(), x.numpy(), "sqeuclidean"))
    require_moments(DistanceMoments(mean, square - mean.square()), squared, rtol=1e-11)
    mean, square = sums.product_moments(x[:7], None)
    require_moments(DistanceMoments(mean, square - mean.square()), (x[:7] @ x.T).numpy(), rtol=1e-11)


def test_euclidean_sums_of_shards_add_as_well() -> None:
    x, queries = points(90, 5), points(20, 5, seed=1)
    pivot = torch.full((20,), 3.0, dtype=torch.float64)
    shards = [PointDistances(part, queries, "euclidean") for part in (x[:30], x[30:])]
    sums = sum(euclidean_sums(shard, pivot, False) for shard in shards)
    require_moments(euclidean_moments(sums, pivot), pairs(queries.numpy(), x.numpy(), "euclidean"), rtol=1e-11)
