"""Streaming metrics against whole samples, on one rank and on two."""

from pathlib import Path
from typing import Any

import torch

from likeness.diffusion.diagnostics.bound_profiles import bin_sums, from_sums, gamma_edges
from likeness.diffusion.diagnostics.metric import GammaBins
from tests.callbacks.two_ranks import on_two_ranks

SOURCE = torch.Generator().manual_seed(0)
GAMMA, SLOPE, LOSS = (torch.rand(40, generator=SOURCE) for _ in range(3))
EDGES = gamma_edges(torch.tensor(0.0), torch.tensor(1.0), 5)


def bins(rows: slice) -> GammaBins:
    metric = GammaBins(5)
    metric.edges = EDGES
    metric.update(GAMMA[rows], SLOPE[rows], LOSS[rows])
    return metric


def test_states_made_in_inference_mode_go_on_outside() -> None:
    binned = bins(slice(0, 4))
    with torch.inference_mode():
        binned.reset()
    binned.update(GAMMA, SLOPE, LOSS)
    assert binned.compute().samples.sum() == 40


def test_bins_are_those_of_all_samples() -> None:
    metric = bins(slice(0, 13))
    metric.update(GAMMA[13:], SLOPE[13:], LOSS[13:])
    expected = from_sums(EDGES, bin_sums(EDGES, GAMMA, SLOPE, LOSS))
    for found, value in zip(metric.compute(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=0)


def on_rank(rank: int) -> dict[str, Any]:
    """Unequal shares: 10 and 30 samples."""
    return {"bins": list(bins((slice(0, 10), slice(10, 40))[rank]).compute())}


def test_two_ranks_merge_to_the_numbers_of_one(tmp_path: Path) -> None:
    expected = from_sums(EDGES, bin_sums(EDGES, GAMMA, SLOPE, LOSS))
    for answer in on_two_ranks(on_rank, tmp_path):
        torch.testing.assert_close(answer["bins"], list(expected), rtol=1e-12, atol=0)
