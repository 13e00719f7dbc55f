"""Datamodules of texts: division, ranks, resuming, and lists of strings on their way to the model."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.utilities import move_data_to_device

from datamodules.texts import nonempty_rows
from likeness.batch import Batch, PairBatch
from likeness.files.errors import DataError
from tests.datamodules.text_toys import TextRecorder, Words
from tests.datamodules.toys import Save, flat, trainer

BATCHES = [
    Batch(["a", "b"], torch.tensor([0, 1]), torch.tensor([4, 2])),
    PairBatch(["a", "b"], ["c", "d"], torch.tensor([0.5, 5.0]), torch.tensor([4, 2])),
]


@pytest.mark.parametrize("batch", BATCHES, ids=["texts", "pairs"])
def test_lists_of_strings_survive_the_transfer_to_a_device(batch: Batch[list[str]] | PairBatch) -> None:
    moved = move_data_to_device(batch, torch.device("meta"))
    assert type(moved) is type(batch)
    for name, part in batch._asdict().items():
        if isinstance(part, torch.Tensor):
            assert getattr(moved, name).device.type == "meta"
        else:
            assert getattr(moved, name) == part


@pytest.mark.parametrize("batch", BATCHES, ids=["texts", "pairs"])
def test_batches_are_sent_between_processes(batch: Batch[list[str]] | PairBatch) -> None:
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is type(batch)
    assert str(again) == str(batch)


@given(st.integers(3, 60), st.integers(0, 5), st.data())
def test_held_out_samples_are_a_division(size: int, split_seed: int, data: st.DataObject) -> None:
    test_size = data.draw(st.integers(1, size - 2))
    val_size = data.draw(st.integers(1, size - test_size - 1))
    words = Words(size, val_size, test_size, split_seed=split_seed)
    words.setup()
    assert [len(words.splits[name]) for name in ("val", "test")] == [val_size, test_size]
    texts = flat([split.x for split in words.splits.values()])
    assert sorted(texts) == sorted(f"number {i}" for i in range(size))
    again = Words(size, val_size, test_size, split_seed=split_seed)
    again.setup("validate")
    assert again.splits["val"].x == words.splits["val"].x


def test_without_a_validation_size_the_test_samples_validate() -> None:
    words = Words(val_size=0)
    words.setup()
    assert words.splits["val"].x == words.splits["test"].x


def test_another_seed_divides_differently() -> None:
    first, other = Words(), Words(split_seed=1)
    first.setup("test")
    other.setup("test")
    assert first.splits["test"].x != other.splits["test"].x


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"val_size": -1}, "val_size must be at least 0, got -1"),
        ({"test_size": 0}, "test_size must be at least 1 where no test part is published, got 0"),
        ({"test_size": 30}, "41 samples for val and test leave none of the 41 to train on"),
        ({"size": 0}, "18 samples for val and test leave none of the 0 to train on"),
    ],
)
def test_sizes_that_leave_nothing_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Words(**sizes).setup()


@pytest.mark.parametrize("workers", [0, 1])
def test_training_goes_on_in_the_middle_of_an_epoch(tmp_path: Path, workers: int) -> None:
    def run(checkpoint: Path | None = None, **kwargs: Any) -> TextRecorder:
        model, data = TextRecorder(), Words(batch_size=4, eval_batch_size=4, seed=3, num_workers=workers)
        trainer(max_epochs=3, **kwargs).fit(model, data, ckpt_path=checkpoint, weights_only=bool(checkpoint) or None)
        return model

    path = tmp_path / "stop.ckpt"
    whole = run(callbacks=[Save("on_train_batch_end", 7, path)])
    rest = run(checkpoint=path)
    assert whole.trained[7:] == rest.trained
    assert sorted(whole.evaluated) == sorted(list(range(11)) * 3)
    assert whole.evaluated[-11:] == rest.evaluated[-11:]


def test_two_ranks_train_and_evaluate_what_one_does() -> None:
    """Without processes: the samplers are those of every datamodule, asked as two ranks would."""
    alone, ranks = Words(batch_size=4), [Words(batch_size=4), Words(batch_size=4)]
    for rank, data in enumerate(ranks):
        data._rank_and_world_size = lambda rank=rank: (rank, 2)  # type: ignore[method-assign]
    for data in (alone, *ranks):
        data.setup()
    for whole, *halves in zip(*(data.train_dataloader() for data in (alone, *ranks)), strict=True):
        assert sorted(whole.x) == sorted(halves[0].x + halves[1].x)
    seen = flat([batch.id.tolist() for data in ranks for batch in data.test_dataloader()])
    assert sorted(seen) == list(range(7))


@pytest.mark.parametrize(
    ("texts", "empty", "rows"),
    [(["a", " \t", "b", ""], "drop", [0, 2]), (["a", "", "b"], "keep", [0, 1, 2]), (["a", "b"], "error", [0, 1])],
)
def test_empty_texts_are_dropped_or_kept_as_wished(texts: list[str], empty: Any, rows: list[int]) -> None:
    assert nonempty_rows("file, line", texts, range(len(texts)), empty) == rows


def test_empty_texts_are_counted_and_the_first_named() -> None:
    texts = ["a" if i % 3 else " " for i in range(30)]
    with pytest.raises(DataError, match=r"10 empty texts in file, line 2, 5, 8, 11, 14, \.\.\.; set empty: drop"):
        nonempty_rows("file, line", texts, range(2, 32), "error")
    with pytest.raises(DataError, match="1 empty text in file, line 3; set"):
        nonempty_rows("file, line", ["a", ""], [2, 3], "error")
