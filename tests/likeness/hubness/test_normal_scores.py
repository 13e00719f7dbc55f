"""Normal scores: their invariances, ties, dead dimensions, and values between those that were fitted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata
from torch import Tensor

from likeness.hubness.f_norm import NormalScores, Order

ORDERS: tuple[Order, ...] = ("deterministic", "random")
orders, seeds = st.sampled_from(ORDERS), st.integers(0, 1000)
each_order = pytest.mark.parametrize("order", ORDERS)


def points(n: int, dim: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()


def order_statistics(order: Order, n: int, dim: int, seed: int) -> np.ndarray:
    """[n, d] ascending."""
    if order == "random":
        return np.sort(np.random.default_rng(seed).standard_normal((n, dim)), axis=0)
    return np.repeat(norm.ppf((np.arange(n) + 0.5) / n)[:, None], dim, 1)


@given(seed=seeds, n=st.integers(2, 40), order=orders)
def test_the_r_th_value_becomes_the_r_th_order_statistic(seed: int, n: int, order: Order) -> None:
    x = points(n, seed=seed)
    expected = np.take_along_axis(order_statistics(order, n, 4, seed), rankdata(x, axis=0).astype(int) - 1, 0)
    np.testing.assert_allclose(NormalScores.of(x, order, seed)(x), expected, rtol=1e-12, atol=1e-12)


@given(seed=seeds, n=st.integers(2, 40), order=orders)
def test_increasing_maps_of_a_dimension_change_nothing(seed: int, n: int, order: Order) -> None:
    x = points(n, seed=seed).float().double()  # so that no map rounds two values to one
    mapped = torch.stack([x[:, 0].log(), x[:, 1] ** 3, 1e-3 * x[:, 2], -1 / x[:, 3]], 1)
    assert torch.equal(NormalScores.of(x, order, seed, eps=0)(x), NormalScores.of(mapped, order, seed, eps=0)(mapped))


@given(seed=seeds, n=st.integers(2, 40))
def test_sorted_dimensions_are_identical(seed: int, n: int) -> None:
    x = points(n, seed=seed)
    columns = NormalScores.of(x)(x).sort(dim=0).values
    assert torch.equal(columns, columns[:, :1].expand_as(columns))
    torch.testing.assert_close(columns, -columns.flip(0))  # with mean 0


@given(seed=seeds, n=st.integers(2, 40), order=orders)
def test_idempotent(seed: int, n: int, order: Order) -> None:
    once = NormalScores.of(points(n, seed=seed), order, seed)(points(n, seed=seed))
    assert torch.equal(NormalScores.of(once, order, seed)(once), once)


@given(seed=seeds, order=orders, values=st.lists(st.integers(0, 4), min_size=2, max_size=30))
def test_equal_values_share_their_order_statistics(seed: int, order: Order, values: list[int]) -> None:
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    scores = NormalScores.of(x, order, seed)(x)[:, 0]
    statistics = order_statistics(order, len(values), 1, seed)[:, 0]
    for value in set(values):
        expected = statistics[np.sort(values) == value].mean() if len(set(values)) > 1 else 0
        np.testing.assert_allclose(scores[x[:, 0] == value], expected, rtol=1e-12, atol=1e-12)


@given(seed=seeds, order=orders)
def test_the_order_of_rows_says_nothing(seed: int, order: Order) -> None:
    x = points(20, seed=seed).mul(2).round()  # with ties
    reordered = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        NormalScores.of(x[reordered], order)(x[reordered]), NormalScores.of(x, order)(x)[reordered]
    )


@each_order
def test_new_values_are_interpolated_and_clamped(order: Order) -> None:
    x, queries = points(30), points(200, seed=1).mul(3).sub(1)
    queries[:9] = x[:9]
    scores, statistics = NormalScores.of(x, order)(queries), order_statistics(order, 30, 4, 0)
    for dim in range(4):
        expected = np.interp(queries[:, dim], x[:, dim].sort().values, statistics[:, dim])
        np.testing.assert_allclose(scores[:, dim], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(scores[:9], NormalScores.of(x, order)(x)[:9])
    if order == "deterministic":
        assert float(scores.abs().max()) == pytest.approx(-norm.ppf(0.5 / 30), rel=1e-14)
        far = NormalScores.of(x)(torch.tensor([[-1e300] * 4, [1e300] * 4], dtype=torch.float64))
        torch.testing.assert_close(far[:, 0], torch.tensor([norm.ppf(0.5 / 30), -norm.ppf(0.5 / 30)]).double())


@each_order
def test_dead_dimensions_are_zero_unless_asked_for(order: Order) -> None:
    x, rounding = points(30), 1e-9 * points(30, 1, seed=1)
    wide = torch.cat([x, torch.full((30, 1), 7.0), 0.1 + rounding], 1)
    scores = NormalScores.of(wide, order)(wide)
    assert bool((scores[:, 4:] == 0).all())
    spread = NormalScores.of(wide, order, eps=0)(wide)
    assert bool((spread[:, 4] == 0).all())  # constant: all ranks are equal
    np.testing.assert_array_equal(spread[:, 5].argsort(), rounding[:, 0].argsort())


def test_blocks_of_dimensions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, queries = points(20, 7), points(9, 7, seed=1)
    whole = NormalScores.of(x)(queries)
    monkeypatch.setattr("likeness.hubness.f_norm._BLOCK", 40)
    assert torch.equal(NormalScores.of(x)(queries), whole)


def test_refuses_another_order() -> None:
    with pytest.raises(ValueError, match="order must be one of deterministic, random, but it is 'sorted'"):
        NormalScores.of(points(3), "sorted")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (5, 3)])
def test_what_is_given_stays_as_it_was(shape: tuple[int, int]) -> None:
    x = points(*shape)
    before = x.clone()
    NormalScores.of(x)(x)
    assert torch.equal(x, before)
