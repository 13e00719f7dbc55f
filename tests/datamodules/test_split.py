"""Splits gather whole batches, share storage, and refuse data that are wrong."""

import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import corrupt
from datamodules.splits import TensorSplit, check_split, held_out
from likeness.files.errors import DataError, missing

X, Y = torch.arange(20.0).view(10, 2), torch.arange(10) % 3


def test_ids_are_positions_in_the_split() -> None:
    split = TensorSplit(X, Y, torch.tensor([7, 2, 5]))
    batch = split[torch.tensor([2, 0])]
    assert len(split) == 3
    assert torch.equal(batch.x, X[[5, 7]])
    assert batch.y.tolist() == [2, 1]
    assert batch.id.tolist() == [2, 0]


def test_moving_takes_no_more_than_the_split() -> None:
    split = TensorSplit(X, Y, torch.tensor([7, 2, 5])).to("meta")
    assert split.x.shape == (3, 2)
    assert split.x.device.type == split.y.device.type == "meta"
    stays = TensorSplit(X, Y)
    assert stays.to("cpu") is stays


@given(st.integers(2, 300), st.integers(0, 10), st.data())
def test_held_out_is_a_partition_by_seed_alone(size: int, seed: int, data: st.DataObject) -> None:
    val_size = data.draw(st.integers(1, size - 1))
    train, val = held_out(size, val_size, seed)
    assert len(val) == val_size
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(size))
    assert all(map(torch.equal, held_out(size, val_size, seed), (train, val)))


def test_held_out_is_fixed_for_good() -> None:
    """A changed division would put tested samples into the training of an older checkpoint."""
    assert held_out(10, 4, 0)[1].tolist() == [0, 4, 6, 9]
    assert held_out(10, 4, 1)[1].tolist() != [0, 4, 6, 9]


@pytest.mark.parametrize("val_size", [10, 11])
def test_holding_out_everything_is_refused(val_size: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 9 here, got {val_size}"):
        held_out(10, val_size, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [None, torch.tensor([0, 9, 4])])
def test_an_input_that_is_not_finite_is_named(bad: float, rows: torch.Tensor | None) -> None:
    x = X.clone()
    x[4, 1] = bad
    id_ = 4 if rows is None else 2
    with pytest.raises(DataError, match=f"val sample {id_} has an input that is not finite: {bad}"):
        check_split("val", TensorSplit(x, Y, rows), 3)


def test_a_bad_input_outside_the_split_does_not_matter() -> None:
    x = X.clone()
    x[4, 1] = math.nan
    check_split("val", TensorSplit(x, Y, torch.tensor([0, 9])), 3)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_named(label: int) -> None:
    y = Y.clone()
    y[6] = label
    with pytest.raises(DataError, match=f"train sample 6 has label {label}, expected 0 to 2"):
        check_split("train", TensorSplit(X, y), 3)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError, match="the test split is empty"):
        check_split("test", TensorSplit(X[:0], Y[:0]), 3)


def test_errors_are_one_line_and_survive_being_sent_between_processes() -> None:
    for error in (missing(Path("a/b.tar"), "fetch\nit"), corrupt(Path("a/b.tar"), "MD5 0f", "fetch it")):
        assert "\n" not in str(error)
        assert "b.tar" in str(error)
        assert str(Path("a/b.tar").resolve()) in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
