"""Tiles of distances, and bounds of them, against SciPy's distances and differences of points."""

from typing import Any

import numpy as np
import pytest
import torch

from likeness.neighbours import moments
from likeness.neighbours.distances import PointDistances, as_points, row_lengths
from likeness.neighbours.moments import fill_own, tiles
from tests.likeness.hubness.dense_reductions import pairs
from tests.likeness.hubness.reduction_checks import points

metrics = pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "dot"])


@metrics
def test_tiles_are_the_distances(metric: Any) -> None:
    x, queries = points(50, 6), points(20, 6, seed=1)
    of, rows = PointDistances(x, queries, metric), torch.arange(5, 15)
    expected = pairs(queries.numpy(), x.numpy(), metric)[5:15, 10:40]
    np.testing.assert_allclose(of.tile(rows, slice(10, 40)), expected, rtol=1e-9, atol=1e-12)
    bounds = of.bounds(rows, slice(10, 40))
    assert bool((bounds <= of.tile(rows, slice(10, 40))).all())
    np.testing.assert_allclose(bounds, expected, atol=1e-2 if metric == "euclidean" else 1e-4)


@metrics
def test_distances_between_some_points(metric: Any) -> None:
    x = points(50, 6)
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randint(50, (4, 7), generator=draw), torch.randint(50, (4, 9), generator=draw)
    dense = pairs(x.numpy(), x.numpy(), metric)
    expected = np.stack([dense[np.ix_(a, b)] for a, b in zip(first.numpy(), second.numpy(), strict=True)])
    np.testing.assert_allclose(PointDistances(x, None, metric).between(first, second), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("spread", [1e-3, 1e-8])
def test_tiles_of_clusters_that_are_narrow(metric: Any, spread: float) -> None:
    """Products lose all digits of what lies in one cluster."""
    x = points(4, 8).repeat_interleave(10, dim=0) + spread * points(40, 8, seed=1)
    of = PointDistances(x, None, metric)
    rows = torch.arange(40)
    exact = of.exact(rows, rows.expand(40, -1))
    torch.testing.assert_close(of.tile(rows, slice(0, 40)), exact, rtol=1e-11, atol=0)
    torch.testing.assert_close(of.between(rows[None], rows[None])[0], exact, rtol=1e-11, atol=0)


def test_euclidean_distances_survive_a_shift_of_float32() -> None:
    x = points(200, 30).float() + 1000
    rows = torch.arange(200)
    expected = pairs(x.double().numpy(), x.double().numpy(), "euclidean")
    np.testing.assert_allclose(PointDistances(x, None, "euclidean").tile(rows, slice(0, 200)), expected, atol=1e-10)


def test_lengths_of_any_size() -> None:
    x = points(20, 6)
    expected = x.norm(dim=1)
    for scale in (1e-300, 1e-160, 1.0, 1e140):
        torch.testing.assert_close(row_lengths(scale * x, "x") / scale, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_values_whose_squares_leave_float64_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="its square leaves float64: rescale embeddings"):
        as_points(scale * points(5, 3), "embeddings")


def test_tiles_cover_the_matrix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_TILE", (3, 4))
    seen = torch.zeros(10, 9)
    for rows, columns in tiles(10, 9):
        seen[rows, columns] += 1
    assert bool((seen == 1).all())


def test_own_columns_are_filled() -> None:
    tile = fill_own(torch.zeros(3, 4), torch.tensor([5, 9, 7]), slice(4, 8), 1.0)
    assert tile.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
