"""Folders of pictures: what the samples, classes and parts are, and what is said of files that are none."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms import v2

from datamodules import DataError, ImageFolder
from datamodules.errors import OptionError
from datamodules.own.samples import SampleError
from datamodules.splits import SplitName
from tests.datamodules.own.toys import picture, save, write_classes, write_parts

SIZES = {"batch_size": 2, "eval_batch_size": 3}


def split(data: ImageFolder, name: SplitName) -> tuple[torch.Tensor, torch.Tensor]:
    """All inputs and classes of a split."""
    data.setup({"train": "fit", "val": "validate"}.get(name, name))
    whole = data.splits[name][torch.arange(len(data.splits[name]))]
    return whole.x, whole.y


def test_parts_by_folders_hold_what_torchvision_reads(tmp_path: Path) -> None:
    write_parts(tmp_path, {"train": 5, "valid": 2, "test": 3})
    data = ImageFolder(str(tmp_path), **SIZES)
    assert (data.input_shape, data.num_classes, data.levels) == ((3, 12, 10), 2, 256)
    assert data.class_names == ("cat", "dog")
    assert (data.input_shift, data.input_scale) == ([127.5] * 3, [127.5] * 3)
    for name, folder in {"train": "train", "val": "valid", "test": "test"}.items():
        x, y = split(data, name)
        theirs = TorchvisionFolder(str(tmp_path / folder), transform=v2.PILToTensor())
        assert torch.equal(x, torch.stack([image for image, _ in theirs]))
        assert y.tolist() == theirs.targets


def test_a_folder_of_classes_is_divided_in_their_proportions(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 20, "dog": 10})
    data = ImageFolder(str(tmp_path), val_fraction=0.2, test_fraction=0.1, **SIZES)
    parts = {name: split(data, name) for name in ("train", "val", "test")}
    assert {name: y.bincount().tolist() for name, (_, y) in parts.items()} == {
        "train": [14, 7],
        "val": [4, 2],
        "test": [2, 1],
    }
    everything = torch.cat([x for x, _ in parts.values()]).flatten(1)
    assert len(everything.unique(dim=0)) == 30
    again = ImageFolder(str(tmp_path), val_fraction=0.2, test_fraction=0.1, **SIZES)
    other = ImageFolder(str(tmp_path), val_fraction=0.2, test_fraction=0.1, split_seed=1, **SIZES)
    assert torch.equal(split(again, "val")[0], parts["val"][0])
    assert not torch.equal(split(other, "val")[0], parts["val"][0])


@pytest.mark.parametrize(
    ("there", "fractions", "sizes"),
    [
        (("train", "test"), (0.25, 0.25), (6, 2, 8)),
        (("train", "test"), (0.0, 0.25), (8, 8, 8)),  # validated on the test samples
        (("train", "val"), (0.0, 0.25), (6, 8, 2)),
        (("train", "val"), (0.0, 0.0), (8, 8, 8)),  # tested on the validation samples
        (("train",), (0.0, 0.25), (6, 2, 2)),
        (("train",), (0.25, 0.0), (6, 2, 2)),
        (("train", "val", "test"), (0.4, 0.4), (8, 8, 8)),
    ],
)
def test_a_part_that_is_not_there_is_held_out_or_another_stands_in(
    tmp_path: Path, there: tuple[str, ...], fractions: tuple[float, float], sizes: tuple[int, int, int]
) -> None:
    write_parts(tmp_path, dict.fromkeys(there, 4))
    data = ImageFolder(str(tmp_path), val_fraction=fractions[0], test_fraction=fractions[1], **SIZES)
    data.setup()
    assert tuple(len(data.splits[name]) for name in ("train", "val", "test")) == sizes


def test_what_is_not_needed_is_not_asked_for(tmp_path: Path) -> None:
    write_parts(tmp_path, {"test": 2})
    data = ImageFolder(str(tmp_path), **SIZES)
    data.setup("test")
    assert [len(batch.id) for batch in data.test_dataloader()] == [3, 1]
    with pytest.raises(DataError, match="image_folder has no train part for the val split, but test"):
        data.setup("validate")


def test_for_the_test_no_training_picture_is_listed(tmp_path: Path) -> None:
    write_parts(tmp_path, {"train": 1, "test": 2})
    (tmp_path / "train" / "eel").mkdir()  # a class, of whose emptiness a training would complain
    data = ImageFolder(str(tmp_path), **SIZES)
    data.setup("test")
    assert (data.num_classes, len(data.splits["test"])) == (3, 4)
    with pytest.raises(DataError, match="train/eel is a class without a file in it"):
        data.setup("fit")


def test_without_class_folders_there_are_no_labels(tmp_path: Path) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", picture(number))
    data = ImageFolder(str(tmp_path), **SIZES)
    x, y = split(data, "train")
    assert (len(x), data.num_classes, data.class_names) == (8, 1, ())
    assert y.tolist() == [0] * 8


def test_numbers_are_ordered_as_numbers_and_named_classes_as_named(tmp_path: Path) -> None:
    write_classes(tmp_path, {"2": 1, "10": 1, "1": 1})
    assert ImageFolder(str(tmp_path)).class_names == ("1", "2", "10")
    data = ImageFolder(str(tmp_path), class_names=("10", "1", "2", "3"), val_fraction=0, test_fraction=0, **SIZES)
    assert (data.num_classes, data.source("train").names) == (4, ("1", "2", "10"))
    assert data.load("train").y.tolist() == [1, 2, 0]
    few = ImageFolder(str(tmp_path), class_names=("1", "2"), **SIZES)
    with pytest.raises(DataError, match=r"10/0001.png: label '10' is none of the 2 classes 1, 2"):
        few.load("train")


def test_a_class_that_training_does_not_know_is_named(tmp_path: Path) -> None:
    write_parts(tmp_path, {"train": 2})
    write_classes(tmp_path / "test", {"fox": 1})
    with pytest.raises(DataError, match=r"test/fox/0000.png: label 'fox' is none of the 2 classes cat, dog"):
        ImageFolder(str(tmp_path)).setup("test")


def test_files_that_are_no_samples_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parts(tmp_path, {"train": 2, "extras": 1})
    (tmp_path / "train" / "README.txt").write_text("about them")
    (tmp_path / "train" / "cat" / ".DS_Store").write_text("litter")
    with caplog.at_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero"):
        assert len(ImageFolder(str(tmp_path)).source("train")) == 4
    assert "beside the class folders of" in caplog.text
    assert "README.txt" in caplog.text
    assert "no part of the data: extras" in caplog.text


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Ten cats, of which one is empty, one cut short and one is no picture."""
    write_classes(tmp_path / "train", {"cat": 10})
    write_classes(tmp_path / "test", {"cat": 2})
    cats = tmp_path / "train" / "cat"
    (cats / "0000.png").write_bytes(b"")
    (cats / "0004.png").write_bytes((cats / "0004.png").read_bytes()[:200])
    (cats / "notes.txt").write_text("a text file among them")
    return tmp_path


def test_what_cannot_be_read_is_an_error_that_names_it(damaged: Path) -> None:
    data = ImageFolder(str(damaged), val_fraction=0, **SIZES)
    data.setup("fit")
    with pytest.raises(SampleError, match=r"^\S+cat/(0000.png holds no bytes|0004.png cannot be|notes.txt is no pict)"):
        list(data.train_dataloader())


def test_a_worker_names_it_in_one_line_too(damaged: Path) -> None:
    data = ImageFolder(str(damaged), val_fraction=0, num_workers=1, **SIZES)
    data.setup("fit")
    with pytest.raises(SampleError, match=r"^\S+cat/\S+ (holds no bytes|cannot be decoded|is no picture)[^\n]*$"):
        list(data.train_dataloader())


def test_it_is_skipped_only_if_asked_counted_and_said(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ImageFolder(str(damaged), val_fraction=0, skip_corrupt=True, **SIZES)
    with caplog.at_level(logging.INFO, logger="pytorch_lightning.utilities.rank_zero"):
        x, _ = split(data, "train")
    assert torch.equal(
        x, torch.from_numpy(np.stack([picture(n) for n in (1, 2, 3, 5, 6, 7, 8, 9)])).permute(0, 3, 1, 2)
    )
    assert "skipped 3 of 11 samples of train: " in caplog.text
    for name in ("0000.png holds no bytes", "0004.png cannot be decoded", "notes.txt is no picture"):
        assert name in caplog.text


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"cat": 3})
    save(tmp_path / "train" / "cat" / "large.png", picture(9, 40, 30))
    whole = ImageFolder(str(tmp_path), val_fraction=0, test_fraction=0).load("train")
    with pytest.raises(SampleError, match=r"large.png is uint8 \[3, 40, 30\] once prepared.* \[3, 12, 10\]: set image"):
        whole[torch.arange(4)]
    fitted = ImageFolder(str(tmp_path), image_size=8, **SIZES)
    assert fitted.input_shape == (3, 8, 8)
    assert fitted.source("train").names == ("cat",)
    own = ImageFolder(str(tmp_path), transform=[v2.Resize((6, 7)), v2.ToDtype(torch.float32, scale=True)], **SIZES)
    assert (own.input_shape, own.levels, own.input_scale) == ((3, 6, 7), None, [1.0] * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 8, "transform": [v2.Resize(8)]}, "image_size and transform both decide"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"val_fraction": 1.5}, r"val_fraction must lie in \[0, 1\), got 1.5"),
        ({"part_names": {"dev": "x"}}, "part_names may name train, val and test, got 'dev'"),
        ({"on_device": True, "augment": [v2.RandomHorizontalFlip()]}, "on_device keeps samples"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder("nowhere", **options)


def test_what_the_data_cannot_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is missing"):
        ImageFolder(str(tmp_path / "nowhere")).setup()
    write_parts(tmp_path, {"train": 2, "val": 1, "dev": 1})
    with pytest.raises(DataError, match=r"val and \S+dev could both be the val part: say which by part_names"):
        ImageFolder(str(tmp_path)).setup()
    assert len(ImageFolder(str(tmp_path), part_names={"val": "dev"}).load("val")) == 2
    with pytest.raises(OptionError, match="val_fraction leaves no sample of 4 for the val split"):
        ImageFolder(str(tmp_path), part_names={"val": "x", "test": "y"}, val_fraction=0, test_fraction=0).load("val")
    with pytest.raises(OptionError, match=r"input_shift has 2 numbers for inputs of shape \[3, 12, 10\]"):
        _ = ImageFolder(str(tmp_path), part_names={"val": "dev"}, input_shift=[0.0, 1.0]).input_shift


def test_the_device_holds_what_the_folder_does(tmp_path: Path) -> None:
    write_parts(tmp_path, {"train": 3})
    data = ImageFolder(str(tmp_path), **SIZES)
    data.setup()
    stored, held = data.splits["train"], data.splits["train"].to("cpu")
    ids = torch.arange(len(stored))
    assert all(torch.equal(a, b) for a, b in zip(stored[ids], held[ids], strict=True))
