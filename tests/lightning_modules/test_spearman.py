"""Spearman's correlation against SciPy's, over batches and over ranks."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from lightning_modules.metrics import Spearman
from tests.callbacks.two_ranks import on_two_ranks

VALUES = st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 9)), min_size=3, max_size=40)


def correlation(x: torch.Tensor, y: torch.Tensor, *ends: int) -> float:
    metric = Spearman()
    for part in torch.arange(len(x)).tensor_split(list(ends)):
        metric.update(x[part], y[part])
    return float(metric.compute())


@given(VALUES)
def test_scipy_finds_the_same(values: list[tuple[int, int]]) -> None:
    x, y = torch.tensor(values, dtype=torch.float32).T
    if x.unique().numel() > 1 and y.unique().numel() > 1:
        assert correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    else:
        assert math.isnan(correlation(x, y))


def data() -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 200, generator=source)
    return x.bfloat16(), x.float() + y  # many equal values among the first


def test_batches_and_order_change_nothing() -> None:
    x, y = data()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert correlation(x, y) == correlation(x[order], y[order], 3, 150)


def on_share(rank: int) -> float:
    x, y = data()
    metric = Spearman()
    own = slice(0, 17) if rank else slice(17, 200)
    metric.update(x[own], y[own])
    return float(metric.compute())


def test_ranks_with_unequal_shares_agree_with_one(tmp_path: Path) -> None:
    x, y = data()
    assert on_two_ranks(on_share, tmp_path) == [correlation(x, y)] * 2
