"""Data of every kind come as the same batches."""

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from likeness.adapters.batches import DataKindError, batches, count
from likeness.batch import Batch

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10) % 3
Pair = namedtuple("Pair", "x y id")


class Samples(Dataset[Any]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index >= 10:
            raise IndexError
        return {"image": X[index], "label": int(Y[index])}


class OfNumbers(Samples):
    """Vectors as lists, as data sets of Hugging Face have them."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        return sample | {"image": sample["image"].tolist()}


class Ragged(Samples):
    """Token ids that nobody has padded."""

    def __getitem__(self, index: int) -> Any:
        return {"input_ids": [7] * (1 + index)}


class Stream(IterableDataset[Any]):
    """Samples whose number nobody knows."""

    def __iter__(self) -> Any:
        return iter(zip(X, Y, strict=True))


class Module(pl.LightningDataModule):
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(X, Y), batch_size=4)


class WithTestSplit(Module):
    def test_dataloader(self) -> Any:
        return [DataLoader(TensorDataset(-X, Y), batch_size=4)]


KINDS: dict[str, Any] = {
    "tensor": X,
    "array": X.numpy(),
    "array backwards": X.flip(0).numpy()[::-1],
    "arrays": list(np.split(X.numpy(), 2)),
    "pairs": [(X[:6], Y[:6]), [X[6:], Y[6:]]],
    "generator": lambda: (part for part in X.split(4)),
    "dictionaries": [{"pixel_values": X[:6], "labels": Y[:6]}, {"pixel_values": X[6:], "labels": Y[6:]}],
    "named": [Batch(X[:6], Y[:6], torch.arange(6)), Pair(X[6:], Y[6:], torch.arange(6, 10))],
    "loader": DataLoader(TensorDataset(X, Y), batch_size=3),
    "dataset": TensorDataset(X, Y),
    "samples": Samples(),
    "lists": OfNumbers(),
    "stream": Stream(),
    "loader of a stream": DataLoader(Stream(), batch_size=4),
    "datamodule": Module(),
}


WITHOUT_LABELS = ("tensor", "array", "array backwards", "arrays", "generator")
OF_UNKNOWN_LENGTH = ("stream", "loader of a stream")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_inputs_in_their_order(kind: str) -> None:
    data = KINDS[kind]
    found = list(batches(data() if callable(data) and kind == "generator" else data, batch_size=4))
    assert torch.equal(torch.cat([batch.x for batch in found]), X)
    assert torch.equal(torch.cat([batch.ids for batch in found]), torch.arange(10))
    assert [batch.start for batch in found] == [0, *np.cumsum([batch.size for batch in found])[:-1]]
    if kind not in WITHOUT_LABELS:
        assert torch.equal(torch.cat([batch.y for batch in found if batch.y is not None]), Y)
    if kind != "generator":
        assert count(data, 4) == (None if kind in OF_UNKNOWN_LENGTH else len(found))


def test_a_memory_mapped_array_is_read_batch_by_batch(tmp_path: Path) -> None:
    """Without torch's warning of memory that must not be written to."""
    np.save(tmp_path / "x.npy", X.numpy())
    found = list(batches(np.load(tmp_path / "x.npy", mmap_mode="r"), batch_size=4))
    assert torch.equal(torch.cat([batch.x for batch in found]), X)


def test_a_datamodule_gives_its_test_split() -> None:
    assert torch.equal(torch.cat([batch.x for batch in batches(WithTestSplit())]), -X)


def test_tokens_are_handed_on_by_name() -> None:
    batch = {"input_ids": X.long(), "attention_mask": X.long(), "labels": Y}
    (found,) = batches([batch])
    assert list(found.x) == ["input_ids", "attention_mask"]
    assert found.y is not None


def test_texts_stay_texts() -> None:
    found = list(batches([["a", "b"], ["c"]]))
    assert [batch.x for batch in found] == [["a", "b"], ["c"]]


def test_targets_that_are_no_classes_are_no_labels() -> None:
    (found,) = batches([(X, torch.randn(10))])
    assert found.y is None


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([], ValueError, "the data, a list, yield nothing"),
        ("runs/demo", DataKindError, "got 'runs/demo'"),
        ([{"a": X, "b": Y}], DataKindError, "no inputs are found in a batch with the keys a, b"),
        ([torch.tensor(3.0)], DataKindError, "a batch holds a Tensor where its inputs should be"),
        ([None], DataKindError, "a batch holds a NoneType"),
        (7, DataKindError, "got 7"),
        (np.array(["a", "b"]), DataKindError, "an array of <U1, and not of numbers"),
        (Ragged(), DataKindError, "lists of 1 and 10 numbers"),
    ],
)
def test_what_holds_no_inputs_is_named(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(batches(data))
