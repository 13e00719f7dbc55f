"""Tiles of distances against SciPy's."""

from typing import Any

import numpy as np
import pytest
import torch

from likeness.neighbours.tiles import DistanceTiles, fill_own, tiles
from tests.likeness.hubness.dense_reductions import pairs
from tests.likeness.hubness.reduction_checks import points

metrics = pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "dot"])


@metrics
def test_tiles_are_the_distances(metric: Any) -> None:
    x, queries = points(50, 6), points(20, 6, seed=1)
    of = DistanceTiles(x, metric)
    tile = of.tile(of.prepare(queries, "queries").take(slice(5, 15)), slice(10, 40))
    np.testing.assert_allclose(tile, pairs(queries.numpy(), x.numpy(), metric)[5:15, 10:40], rtol=1e-9, atol=1e-12)


@metrics
def test_distances_between_some_points(metric: Any) -> None:
    x = points(50, 6)
    ids = torch.randint(50, (4, 7), generator=torch.Generator().manual_seed(0))
    dense = pairs(x.numpy(), x.numpy(), metric)
    expected = np.stack([dense[np.ix_(row, row)] for row in ids.numpy()])
    np.testing.assert_allclose(DistanceTiles(x, metric).between(ids), expected, rtol=1e-6, atol=1e-6)


def test_euclidean_distances_survive_a_shift_of_float32() -> None:
    x = points(200, 30).float()
    tile = DistanceTiles(x + 1000, "euclidean")
    expected = pairs(x.double().numpy(), x.double().numpy(), "euclidean")
    np.testing.assert_allclose(tile.tile(tile.index, slice(None)), expected, atol=0.02)


def test_rows_without_a_direction() -> None:
    x = points(50, 6)
    of = DistanceTiles(x, "cosine")
    queries = points(4, 6)
    queries[2] = 0
    with pytest.raises(ValueError, match="1 rows of queries are zero and have no cosine: 2"):
        of.prepare(queries, "queries")


def test_tiles_cover_the_matrix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.neighbours.tiles._TILE", (3, 4))
    seen = torch.zeros(10, 9)
    for rows, columns in tiles(10, 9):
        seen[rows, columns] += 1
    assert bool((seen == 1).all())


def test_own_columns_are_filled() -> None:
    tile = fill_own(torch.zeros(3, 4), torch.tensor([5, 9, 7]), slice(4, 8), 1.0)
    assert tile.tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
