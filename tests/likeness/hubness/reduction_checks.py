"""What every reduction is held to: its formula on the whole matrix, in-sample and for queries."""

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.hubness.reduction_base import HubnessReduction
from tests.likeness.hubness.dense_reductions import Matrix, Setting, order


def points(n: int, d: int, seed: int = 0) -> Tensor:
    """Normal points [n, d] in float64 about a mean that is not 0, the first dimensions wider than the last."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.5, d) + 0.3


def clustered(n: int, d: int, seed: int = 0, spread: float = 0.25) -> Tensor:
    """Points [n, d] of float32 about 20 centres of length about 1, of very different density."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(20, d, generator=generator), dim=1)
    number = torch.randint(20, (n,), generator=generator)
    width = spread * (0.3 + number / 20)[:, None]
    return centres[number] + width * torch.randn(n, d, generator=generator) / d**0.5


def unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=1)


def setting(x: Tensor, queries: Tensor | None = None) -> Setting:
    return Setting(x.double().numpy(), None if queries is None else queries.double().numpy())


def require_formula(
    fitted: HubnessReduction,
    expected: Matrix,
    queries: Tensor | None = None,
    k: int = 10,
    rtol: float = 1e-9,
    keys: Matrix | None = None,
) -> None:
    """Dense distances, and the k first of every row, by (value, id), or by keys that tell small distances apart."""
    in_sample = queries is None
    dense = fitted.distances(queries).double().numpy().copy()
    if in_sample:
        assert np.isposinf(np.diag(dense)).all()
        np.fill_diagonal(dense, np.diag(expected))
    np.testing.assert_allclose(dense, expected, rtol=rtol, atol=1e-12)
    found = fitted.rerank(queries, k)
    ids = order(expected if keys is None else keys, in_sample)[:, :k]
    assert found.ids.dtype == torch.int64
    np.testing.assert_array_equal(found.ids.numpy(), ids)
    np.testing.assert_allclose(found.distances, np.take_along_axis(expected, ids, 1), rtol=rtol, atol=1e-12)
    assert bool((found.distances.diff(dim=1) >= 0).all())


def same_neighbours(first: Tensor, second: Tensor) -> float:
    """Share of the ids [m, k] of the first that the second has in the same row."""
    return float((first[:, :, None] == second[:, None]).any(2).double().mean())


both_forms = pytest.mark.parametrize("queries", [None, points(40, 12, seed=7)], ids=["in-sample", "queries"])
