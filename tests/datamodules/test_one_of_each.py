"""One sample, one label, a batch of one: it works, or one line says what it takes."""

from pathlib import Path

import pytest
import torch

from datamodules import PhotoPatches, ResumableDataModule, SentencePairs, Sentences, Swirl
from datamodules.errors import OptionError
from tests.datamodules.text_toys import write_lines


def batches(data: ResumableDataModule) -> dict[str, list[int]]:
    """The sizes of the batches of each split."""
    data.prepare_data()
    data.setup()
    loaders = {"train": data.train_dataloader(), "val": data.val_dataloader(), "test": data.test_dataloader()}
    return {name: [len(batch.id) for batch in loader] for name, loader in loaders.items()}


def test_texts_of_one_label_with_one_text_in_each_split(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", "text,label", "one,a", "two,a", "three,a")
    data = Sentences(path, val_size=1, test_size=1, batch_size=1)
    assert batches(data) == {"train": [1], "val": [1], "test": [1]}
    assert (data.num_classes, data.class_names) == (1, ("a",))


def test_one_text(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", "text,label", "one,a")
    assert batches(Sentences(path, test_file=path, batch_size=1)) == {"train": [1], "val": [1], "test": [1]}
    data = Sentences(path, test_file=path)
    data.setup("fit")
    with pytest.raises(OptionError, match="batch_size 128 exceeds the 1 training samples: not one full batch"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="1 samples for val and test leave none of the 1 to train on"):
        batches(Sentences(path, test_size=1))


def test_one_pair(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t.csv", "sentence1,sentence2,score", "one,two,5")
    assert batches(SentencePairs(path, test_file=path, batch_size=1)) == {"train": [1], "val": [1], "test": [1]}


@pytest.mark.parametrize("data", [Swirl(size=1, batch_size=1), PhotoPatches(train_size=1, eval_size=1, batch_size=1)])
def test_one_tensor(data: ResumableDataModule) -> None:
    assert batches(data) == {"train": [1], "val": [1], "test": [1]}
    (batch,) = data.test_dataloader()
    assert batch.x.dtype == torch.uint8


@pytest.mark.parametrize("size", [0, -1])
def test_none(size: int) -> None:
    with pytest.raises(ValueError, match=f"size must be at least 1, got {size}"):
        Swirl(size=size)
