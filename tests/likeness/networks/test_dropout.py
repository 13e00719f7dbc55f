"""Dropout by one mask for a value and its tangent."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.networks.dual import Dual, DualDropout, scaled_mask


@given(p=st.floats(0.01, 0.95), seed=st.integers(0, 1000))
def test_keeps_the_share_that_it_should_and_divides_by_it(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    mask = scaled_mask(torch.empty(3, 5, 40, 61, dtype=torch.float64), p)
    kept = (mask > 0).double().mean().item()
    error = (p * (1 - p) / mask.numel()) ** 0.5
    assert abs(kept - (1 - p)) < 5 * error + 2**-16
    values = mask.unique()
    torch.testing.assert_close(
        values, torch.tensor([0, 1 / (1 - p)], dtype=torch.float64), rtol=2**-16 / (1 - p), atol=0
    )


def test_compiled_it_keeps_the_share_too() -> None:
    torch.manual_seed(0)
    compiled = torch.compile(scaled_mask, backend="eager", fullgraph=True)
    mask = compiled(torch.empty(100_000, dtype=torch.float64), 0.3)
    kept = (mask > 0).double().mean().item()
    assert abs(kept - 0.7) < 5 * (0.21 / mask.numel()) ** 0.5
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.7], dtype=torch.float64))


def test_entries_are_independent_of_their_neighbours() -> None:
    torch.manual_seed(0)
    mask = (scaled_mask(torch.empty(100_000), 0.3) > 0).double() - 0.7
    for lag in (1, 2, 3, 4):
        correlation = (mask[lag:] * mask[:-lag]).mean().item() / 0.21
        assert abs(correlation) < 5 / mask.numel() ** 0.5


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_mask_for_both_parts(memory_format: torch.memory_format) -> None:
    h = torch.ones(2, 3, 4, 5).to(memory_format=memory_format)
    value, tangent = DualDropout(0.5)(Dual(h, 2 * h))
    assert tangent is not None
    torch.testing.assert_close(tangent, 2 * value)
    assert value.unique().tolist() == [0.0, 2.0]
    assert value.stride() == h.stride()


def test_equal_seeds_drop_the_same_with_and_without_a_tangent() -> None:
    h, dropout = torch.randn(2, 3, 4, 5), DualDropout(0.5)
    torch.manual_seed(0)
    alone = dropout(Dual(h)).value
    torch.manual_seed(0)
    torch.testing.assert_close(dropout(Dual(h, h)).value, alone)


def test_evaluation_drops_nothing() -> None:
    h = Dual(torch.randn(2, 3))
    assert DualDropout(0.5).eval()(h) is h
    assert DualDropout(0.0)(h) is h
