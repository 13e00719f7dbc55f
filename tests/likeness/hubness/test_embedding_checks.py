"""What is reported of suspicious rows and dimensions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.hubness.analysis import dead_dimensions, dimension_warnings, repeated_rows, row_warnings, zero_rows


def gaussian(n: int = 30, dim: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, dim)))


@given(values=st.lists(st.integers(0, 3), min_size=2, max_size=40), width=st.integers(1, 3))
def test_rows_that_repeat_earlier_ones(values: list[int], width: int) -> None:
    rows = gaussian(4, width).float()[values]
    assert repeated_rows(rows).tolist() == [i for i, value in enumerate(values) if value in values[:i]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_negative_zero_is_a_zero(dtype: torch.dtype) -> None:
    assert repeated_rows(torch.tensor([[0.0, 1], [2, 2], [-0.0, 1]], dtype=dtype)).tolist() == [2]
    assert zero_rows(torch.tensor([[0.0, 1], [0, -0.0]], dtype=dtype)).tolist() == [1]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_dead_dimensions_at_any_scale(scale: float) -> None:
    x = gaussian()
    x[:, 1], x[:, 3] = 0, 0.1
    x[:, 3] += 1e-9 * gaussian()[:, 0]  # a constant with the rounding of a normalisation
    assert dead_dimensions(scale * x).tolist() == [1, 3]
    assert dimension_warnings(scale * x, "embeddings") == ["2 dimensions of embeddings are constant: 1, 3"]


def test_warnings_count_and_name_the_first_rows() -> None:
    x = gaussian()
    x[[4, 9]] = 0
    x[10:20] = x[3]
    assert row_warnings(x, "queries", "euclidean") == [
        "2 rows of queries are zero: 4, 9",
        "11 rows of queries repeat an earlier one: 9, 10, 11, 12, 13, ...",
    ]
    with pytest.raises(ValueError, match="2 rows of queries are zero and have no cosine: 4, 9"):
        row_warnings(x, "queries", "cosine")


def test_nothing_is_said_of_ordinary_rows() -> None:
    assert row_warnings(gaussian(), "embeddings", "cosine") == dimension_warnings(gaussian(), "embeddings") == []
