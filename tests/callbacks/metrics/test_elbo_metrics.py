"""Streaming metrics against whole samples, on one rank and on two."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks.metrics.elbo import QUANTITIES, ElboMoments, GammaBins, quantities
from likeness.diffusion.bound_profiles import bin_sums, from_sums, gamma_edges
from likeness.diffusion.elbo import ElboTerms
from tests.callbacks.two_ranks import on_two_ranks

SOURCE = torch.Generator().manual_seed(0)
VALUES = torch.rand(3, 25, 4, generator=SOURCE, dtype=torch.float64)  # [K, N, 4]
GAMMA, SLOPE, LOSS = (torch.rand(40, generator=SOURCE) for _ in range(3))
EDGES = gamma_edges(torch.tensor(0.0), torch.tensor(1.0), 5)


def moments(*parts: Tensor) -> dict[str, Tensor]:
    metric = ElboMoments(len(parts[0]))
    for part in parts:
        metric.update(part)
    return metric.compute()


def bins(rows: slice) -> GammaBins:
    metric = GammaBins(5)
    metric.edges = EDGES
    metric.update(GAMMA[rows], SLOPE[rows], LOSS[rows])
    return metric


def test_terms_become_bits_per_dimension() -> None:
    terms = ElboTerms(*(torch.tensor([[value, 2 * value]]) for value in (1.0, 2.0, 4.0)))
    expected = torch.tensor([[[1.0, 2, 4, 7], [2, 4, 8, 14]]]) / (10 * math.log(2))
    torch.testing.assert_close(quantities(terms, dims=10), expected)


def test_means_and_both_standard_errors() -> None:
    found = moments(VALUES[:, :7], VALUES[:, 7:])
    for index, name in enumerate(QUANTITIES):
        values = VALUES[..., index]
        torch.testing.assert_close(found[name], values.mean())
        torch.testing.assert_close(found[f"{name}_se"], values.mean(0).std() / 25**0.5)
        torch.testing.assert_close(found[f"{name}_draw_se"], values.mean(1).std() / 3**0.5)


def test_errors_that_are_not_defined_are_left_out() -> None:
    assert set(moments(VALUES[:1, :1])) == set(QUANTITIES)
    assert set(moments(VALUES[:1])) == {f"{name}{se}" for name in QUANTITIES for se in ("", "_se")}
    assert set(moments(VALUES[:, :1])) == {f"{name}{se}" for name in QUANTITIES for se in ("", "_draw_se")}


def test_states_made_in_inference_mode_go_on_outside() -> None:
    metric, binned = ElboMoments(), bins(slice(0, 4))
    with torch.inference_mode():
        metric.reset()
        binned.reset()
    metric.update(VALUES[:1])
    binned.update(GAMMA, SLOPE, LOSS)
    assert metric.compute()["bpd"] == pytest.approx(float(VALUES[0, :, 3].mean()))
    assert binned.compute().samples.sum() == 40


def test_bins_are_those_of_all_samples() -> None:
    metric = bins(slice(0, 13))
    metric.update(GAMMA[13:], SLOPE[13:], LOSS[13:])
    expected = from_sums(EDGES, bin_sums(EDGES, GAMMA, SLOPE, LOSS))
    for found, value in zip(metric.compute(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=0)


def on_rank(rank: int) -> dict[str, Any]:
    """Unequal shares: 9 and 16 observations, 10 and 30 samples."""
    own = (slice(0, 9), slice(9, 25))[rank]
    share = (slice(0, 10), slice(10, 40))[rank]
    return {"moments": moments(VALUES[:, own]), "bins": list(bins(share).compute())}


def test_two_ranks_merge_to_the_numbers_of_one(tmp_path: Path) -> None:
    expected = from_sums(EDGES, bin_sums(EDGES, GAMMA, SLOPE, LOSS))
    for answer in on_two_ranks(on_rank, tmp_path):
        torch.testing.assert_close(answer["moments"], moments(VALUES), rtol=1e-12, atol=0)
        torch.testing.assert_close(answer["bins"], list(expected), rtol=1e-12, atol=0)
