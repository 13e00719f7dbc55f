"""Times that cover [0, 1) evenly, and the step that a time stands for."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from likeness.diffusion.process import spread_by_id, step_of, stratified

SIZES = st.integers(1, 300)
OFFSETS = st.floats(0, 1, exclude_max=True)


@given(size=SIZES, offset=OFFSETS)
def test_stratified_times_are_a_grid(size: int, offset: float) -> None:
    """O21: exactly B times in [0, 1) whose sorted gaps are all 1 / B, around the circle."""
    t = stratified(torch.tensor(offset, dtype=torch.float64), size)
    assert t.shape == (size,)
    assert (t >= 0).all()
    assert (t < 1).all()
    in_order = t.sort().values
    gaps = torch.cat([in_order.diff(), in_order[:1] + 1 - in_order[-1:]])
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / size), rtol=0, atol=1e-12)


@given(size=SIZES, offset=st.floats(0.01, 0.99))
def test_each_interval_is_hit_once(size: int, offset: float) -> None:
    """O21: for every B in float32; the offset keeps away from the borders, where rounding decides."""
    t = stratified(torch.tensor((3 + offset) / size % 1), size)
    assert sorted((t * size).long().tolist()) == list(range(size))


@given(size=st.integers(1, 40), ranks=st.integers(1, 8), offset=OFFSETS)
def test_ranks_share_one_grid(size: int, ranks: int, offset: float) -> None:
    """O21: the ranks' rows of the global batch's times are its grid."""
    everywhere = stratified(torch.tensor(offset, dtype=torch.float64), size * ranks)
    rows = torch.cat([everywhere[rank::ranks] for rank in range(ranks)])
    assert torch.equal(rows.sort().values, everywhere.sort().values)


def test_offset_moves_each_time_through_the_whole_interval() -> None:
    """Each place in the batch sees uniform times, so that no sample is tied to a noise level."""
    offsets = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    t = torch.stack([stratified(offset, 7) for offset in offsets])
    torch.testing.assert_close(t.sort(dim=0).values, offsets[:, None].expand(-1, 7), rtol=0, atol=5e-4)


@given(offset=OFFSETS, batch=st.integers(1, 50))
def test_times_of_samples_do_not_depend_on_batches(offset: float, batch: int) -> None:
    ids = torch.arange(100)
    together = spread_by_id(offset, ids)
    apart = torch.cat([spread_by_id(offset, part) for part in ids.split(batch)])
    assert torch.equal(together, apart)


def test_times_of_consecutive_samples_are_spread() -> None:
    """Their discrepancy is far below the 1 / sqrt(N) of independent times."""
    t = spread_by_id(0.3, torch.arange(500, 1500)).sort().values
    grid = torch.arange(1000, dtype=torch.float64) / 1000
    assert (t - grid).abs().max() < 5e-3


@given(t=OFFSETS, num_steps=st.integers(1, 1000))
def test_a_step_contains_its_time(t: float, num_steps: int) -> None:
    time = torch.tensor([t], dtype=torch.float64)
    s, end = step_of(time, num_steps)
    assert s <= time + 1e-12
    assert time <= end + 1e-12
    assert (end - s).item() == pytest.approx(1 / num_steps)
    assert (end * num_steps).item() == pytest.approx(round((end * num_steps).item()), abs=1e-9)


def test_steps_at_the_ends() -> None:
    s, t = step_of(torch.tensor([0.0, 1.0]), 10)
    torch.testing.assert_close(s, torch.tensor([0.0, 0.9]))
    torch.testing.assert_close(t, torch.tensor([0.1, 1.0]))


def test_evenly_spread_times_see_each_step_equally() -> None:
    _, t = step_of(stratified(torch.tensor(0.3721), 200), 50)
    assert torch.equal(torch.unique(t, return_counts=True)[1], torch.full((50,), 4))
