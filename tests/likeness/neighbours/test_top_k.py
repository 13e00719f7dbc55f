"""The k smallest entries of a matrix that comes in tiles, against NumPy's stable sort."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from likeness.neighbours import exact as neighbours
from likeness.neighbours.exact import Neighbours, smallest, top_k
from tests.likeness.neighbours.brute_force import first_of_rows


def of_matrix(matrix: torch.Tensor, k: int, exclude_self: bool = False) -> Neighbours:
    return top_k(lambda rows, columns: matrix[rows, columns], *matrix.shape, k, exclude_self=exclude_self)


entries = st.sampled_from([-math.inf, -1.5, 0.0, 1.0, 2.0, math.inf]) | st.floats(allow_nan=False, width=32)


@settings(max_examples=150)
@given(st.data(), st.integers(2, 25), st.booleans())
def test_any_matrix_in_any_tiles(data: st.DataObject, n: int, exclude_self: bool) -> None:
    m = n if exclude_self else data.draw(st.integers(1, 25))
    matrix = data.draw(arrays(np.float32, (m, n), elements=entries))
    k = data.draw(st.integers(1, n - exclude_self))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_TILE", data.draw(st.integers(1, 100)))
        patch.setattr(neighbours, "_COLUMNS", data.draw(st.integers(1, 30)))
        found = of_matrix(torch.from_numpy(matrix), k, exclude_self)
    expected = first_of_rows(matrix, k, exclude_self)
    assert np.array_equal(found.ids.numpy(), expected)
    assert np.array_equal(found.distances.numpy(), np.take_along_axis(matrix, expected, axis=1))


@pytest.mark.parametrize("k", [1, 5, 17, 300, 1999, 2000])
@pytest.mark.parametrize("values", [2, 30, 10**9])
def test_long_rows(k: int, values: int) -> None:
    matrix = torch.randint(values, (12, 2000), generator=torch.Generator().manual_seed(values)).double()
    matrix[0] = 3  # all equal
    matrix[1] = torch.inf
    found, columns = smallest(matrix, k)
    expected = first_of_rows(matrix.numpy(), k)
    assert np.array_equal(columns.numpy(), expected)
    assert np.array_equal(found.numpy(), np.take_along_axis(matrix.numpy(), expected, axis=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_keep_their_type(dtype: torch.dtype) -> None:
    matrix = torch.randn(9, 900, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = of_matrix(matrix, 6)
    assert found.distances.dtype == dtype
    assert np.array_equal(found.ids.numpy(), first_of_rows(matrix.double().numpy(), 6))


def test_a_monotone_transform_changes_no_id() -> None:
    matrix = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ids = of_matrix(matrix, 7, exclude_self=True).ids
    for transformed in (matrix.exp(), matrix**3, 5 * matrix - 2, matrix.atan()):
        assert torch.equal(of_matrix(transformed, 7, exclude_self=True).ids, ids)


def test_tiles_are_no_larger_than_allowed_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TILE", 4000)
    monkeypatch.setattr(neighbours, "_COLUMNS", 100)
    matrix = torch.rand(250, 250, generator=torch.Generator().manual_seed(0))
    before, shapes = matrix.clone(), []

    def block(rows: slice, columns: slice) -> torch.Tensor:
        tile = matrix[rows, columns]
        shapes.append(tile.shape)
        return tile

    top_k(block, 250, 250, 5, exclude_self=True)
    assert max(shape.numel() for shape in shapes) == 4000
    assert torch.equal(matrix, before)


def test_nan_is_refused_with_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_TILE", 100)
    matrix = torch.rand(30, 20, generator=torch.Generator().manual_seed(0))
    matrix[17, 19] = torch.nan
    with pytest.raises(ValueError, match="the distances of query 17 hold NaN"):
        of_matrix(matrix, 3)


@pytest.mark.parametrize(("k", "exclude_self"), [(0, False), (21, False), (20, True)])
def test_more_than_there_are_are_refused(k: int, exclude_self: bool) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to {20 - exclude_self}, but it is {k}"):
        of_matrix(torch.rand(20, 20), k, exclude_self)
