"""Moments of distances in closed form against all distances; sums of shards against the sums of the whole."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.neighbours import tiles as module
from likeness.neighbours.tiles import (
    DistanceMoments,
    DistanceTiles,
    IndexSums,
    distance_moments,
    euclidean_moments,
    euclidean_sums,
)
from tests.likeness.hubness.dense_reductions import others, pairs
from tests.likeness.hubness.reduction_checks import points

metrics = pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "dot"])


def moments_of(x: Tensor, metric: Any, queries: Tensor | None = None) -> DistanceMoments:
    tiles = DistanceTiles(x, metric)
    prepared = tiles.index if queries is None else tiles.prepare(queries, "queries")
    own = torch.arange(len(x)) if queries is None else None
    return distance_moments(tiles, IndexSums.of(tiles.index.vectors), prepared, own)


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
    monkeypatch.setattr("likeness.neighbours.tiles._TILE", (17, 11))
    torch.testing.assert_close(moments_of(x, metric), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_far_from_the_origin(metric: str) -> None:
    x = points(120, 7)
    torch.testing.assert_close(moments_of(x + 1e5, metric), moments_of(x, metric), rtol=1e-8, atol=0)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_float32_points_in_many_dimensions(metric: str) -> None:
    """All distances nearly equal: the variance is a thousandth of the mean squared."""
    x = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0))
    d = others(pairs(x.double().numpy(), x.double().numpy(), metric))
    require_moments(moments_of(x, metric), d, rtol=1e-4)


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
    squared = pairs(x.numpy(), x.numpy(), "sqeuclidean")
    require_moments(sums.squared_moments(x, in_index=True), others(squared), rtol=1e-11)
    require_moments(sums.dot_moments(x[:7], in_index=False, offset=1.0), 1 - (x[:7] @ x.T).numpy(), rtol=1e-11)


def test_euclidean_sums_of_shards_add_as_well() -> None:
    x, queries = points(90, 5), points(20, 5, seed=1)
    pivot = torch.full((20,), 3.0, dtype=torch.float64)
    shards = [DistanceTiles(part, "euclidean") for part in (x[:30], x[30:])]
    sums = sum(euclidean_sums(tiles, tiles.prepare(queries, "queries"), pivot, None) for tiles in shards)
    require_moments(euclidean_moments(sums, pivot), pairs(queries.numpy(), x.numpy(), "euclidean"), rtol=1e-11)
