"""Orders are functions of their arguments, and the ranks together see what one process would."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.samplers import EvaluationOrder, RepeatedOrder, TrainOrder, epoch_order
from tests.datamodules.toys import flat

WORLDS = (1, 2, 4)


def batches(order: TrainOrder | EvaluationOrder) -> list[list[int]]:
    return [batch.tolist() for batch in order]


def train_order(epoch: int = 0, seeds: Sequence[int] = (5,), rank: int = 0, world_size: int = 1) -> TrainOrder:
    order = TrainOrder(50, 8, seeds, rank, world_size)
    order.set_epoch(epoch)
    return order


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    torch.manual_seed(0)
    first = batches(train_order(epoch=2))
    torch.manual_seed(1)
    assert batches(train_order(epoch=2)) == first
    assert batches(train_order(epoch=3)) != first
    assert batches(train_order(epoch=2, seeds=[6])) != first


def test_iterating_leaves_the_global_random_stream_alone() -> None:
    before = torch.get_rng_state()
    batches(train_order())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_visits_every_sample_once_but_for_the_last_incomplete_batch() -> None:
    seen = flat(batches(train_order()))
    assert len(seen) == len(set(seen)) == 48
    assert seen == epoch_order(5, 0, 50)[:48].tolist()


def test_positions_are_uniform() -> None:
    """Sample 0 stands anywhere in the order equally often: chi-squared of 20 places over 4,000 epochs."""
    places = torch.stack([epoch_order(0, epoch, 20) for epoch in range(4000)]).eq(0).sum(0).double()
    assert float(((places - 200) ** 2 / 200).sum()) < 43.8  # 0.1 % point of chi-squared with 19 degrees of freedom


@given(st.integers(0, 6), st.integers(0, 3))
def test_skipping_continues_exactly_and_once(skip: int, epoch: int) -> None:
    whole = batches(train_order(epoch))
    order = train_order(epoch)
    order.skip(skip)
    assert len(order) == len(whole) == 6
    assert batches(order) == whole[skip:]
    assert batches(order) == whole


def test_an_iterator_that_is_never_used_consumes_no_skip() -> None:
    order = train_order()
    order.skip(4)
    iter(order)
    assert len(batches(order)) == 2


@pytest.mark.parametrize("world_size", WORLDS)
@given(epoch=st.integers(0, 5))
def test_the_ranks_together_hold_the_global_batch(world_size: int, epoch: int) -> None:
    ranks = [batches(train_order(epoch, rank=rank, world_size=world_size)) for rank in range(world_size)]
    for number, expected in enumerate(batches(train_order(epoch))):
        shards = [rank[number] for rank in ranks]
        assert {len(shard) for shard in shards} == {8 // world_size}
        assert sorted(flat(shards)) == sorted(expected)


@pytest.mark.parametrize("world_size", WORLDS)
def test_several_orders_stand_one_after_the_other(world_size: int) -> None:
    alone = [batches(train_order(1, [seed], 0, world_size)) for seed in (3, 1, 4)]
    together = batches(train_order(1, [3, 1, 4], 0, world_size))
    assert together == [flat(parts) for parts in zip(*alone, strict=True)]


def test_a_position_replaces_epoch_and_skip() -> None:
    order = TrainOrder(50, 8, [5], position=lambda: (3, 2))
    order.set_epoch(1)
    assert batches(order) == batches(train_order(3))[2:]


def test_a_repeated_order_stays_at_epoch_0() -> None:
    order = RepeatedOrder(50, 8, [5])
    order.set_epoch(7)
    assert batches(order) == batches(train_order(0)) == batches(order)


def test_errors_name_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"batch_size 10 .* world_size 4"):
        TrainOrder(50, 10, [0], 0, 4)
    with pytest.raises(ValueError, match="batch_size 51 exceeds the 50"):
        TrainOrder(50, 51, [0])
    with pytest.raises(ValueError, match=r"3 samples .* 4 ranks"):
        EvaluationOrder(3, 10, 0, 4)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 9))
def test_evaluation_visits_each_sample_exactly_once(samples: int, batch_size: int, world_size: int) -> None:
    if samples < world_size:
        return
    orders = [EvaluationOrder(samples, batch_size, rank, world_size) for rank in range(world_size)]
    ranks = [batches(order) for order in orders]
    assert sorted(flat(flat(ranks))) == list(range(samples))
    for order, mine in zip(orders, ranks, strict=True):
        assert len(order) == len(mine) >= 1
        assert all(len(batch) == batch_size for batch in mine[:-2])
        assert all(1 <= len(batch) <= max(2, batch_size) for batch in mine)
        assert all(len(batch) <= batch_size for batch in mine[:-1])
        assert flat(mine) == sorted(flat(mine))
    assert len({len(mine) for mine in ranks}) == 1  # a sharded model would wait for the rank with one more


def test_with_one_sample_a_batch_no_batch_holds_more_unless_ranks_differ() -> None:
    assert batches(EvaluationOrder(4, 1, 1, 2)) == [[1], [3]]
    assert batches(EvaluationOrder(3, 1)) == [[0], [1], [2]]
    assert batches(EvaluationOrder(5, 1, 0, 2)) == [[0], [2, 4]]
    assert batches(EvaluationOrder(5, 1, 1, 2)) == [[1], [3]]
