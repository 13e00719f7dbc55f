"""likeness data: what it says is what was written, and the configuration that it writes reads just that."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from scripts.cli.entry_point import run_command
from scripts.data import main
from scripts.inputs import load_data
from tests.datamodules.own.toys import picture, png, save, write_classes, write_dataset, write_npz, write_parts


class Command:
    """Runs the command, and keeps what it printed and the data config that it wrote."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.out = folder / "out" / "data.yaml"
        self.capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            run_command(main, [*words, "--out", str(self.out)])
        printed = self.capsys.readouterr()
        assert end.value.code == status, printed.err
        return " ".join((printed.err if status else printed.out).split())

    @property
    def options(self) -> dict[str, Any]:
        return yaml.safe_load(self.out.read_text())["data"]["init_args"]

    def sizes(self) -> dict[str, int]:
        """The splits' sizes, by the config that was written; a batch of each can be read."""
        data: Any = load_data(self.out)
        data.prepare_data()
        data.setup()
        for name, split in data.splits.items():
            assert len(split[torch.arange(2)].x) == 2, name
        return {name: len(split) for name, split in data.splits.items()}


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def test_a_folder_of_pictures_with_everything_that_can_be_wrong(command: Command, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "My pets", {"train": 10, "test": 4})
    train, test = folder / "train", folder / "test"
    save(train / "cat" / "wide.png", picture(99, 30, 60))
    for copy in (train / "cat" / "copy.png", test / "dog" / "leak.png", train / "dog" / "other.png"):
        copy.write_bytes((train / "cat" / "0000.png").read_bytes())
    (train / "cat" / "empty.jpg").write_bytes(b"")
    (test / "cat" / "notes.txt").write_text("nothing to see")
    printed = command(str(folder))
    for said in (
        "pictures in folders, for datamodules.ImageFolder",
        "samples 34",
        "[3, 12, 10] (31), [3, 30, 60] (1)",
        "cannot be read 2 see below",
        "empty.jpg holds no bytes",
        "notes.txt is no picture",
        "in train and in test 1",
        "the same input under different labels 4",
    ):
        assert said in printed, printed
    assert command.options | {"data_dir": ""} == {
        "dataset_name": "my_pets",
        "data_dir": "",
        "val_fraction": 0.1,
        "image_size": 8,
        "skip_corrupt": True,
        "batch_size": command.options["batch_size"],
        "eval_batch_size": 256,
        "num_workers": 4,
    }
    assert command.sizes() == {"train": 21, "val": 2, "test": 9}  # of 23 and 9 that can be read


def test_duplicates_within_a_split_are_counted_without_the_first(command: Command, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "pets", {"train": 3, "val": 3, "test": 3})
    for number in range(4):
        save(folder / "val" / "dog" / f"again{number}.png", picture(1000))  # which is val/cat/1000.png
    printed = command(str(folder))
    assert "exact duplicates within val 4" in printed
    assert "the same input under different labels 5" in printed
    assert "in train and" not in printed


def test_grey_pictures_and_few_levels(command: Command, tmp_path: Path) -> None:
    write_classes(tmp_path / "grey", {"a": 10, "b": 10}, lambda seed: picture(seed)[..., 0] // 16)
    assert "range 0 to 15 levels 16" in command(str(tmp_path / "grey"))
    assert (command.options["channels"], command.options["levels"]) == (1, 16)
    assert command.sizes() == {"train": 16, "val": 2, "test": 2}


def test_a_validation_part_serves_as_test_where_there_is_none(command: Command, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "pets", {"train": 3, "val": 2})
    assert "test 4 the val part" in command(str(folder), "--name", "pets2", "--samples", "2")
    assert (command.options["dataset_name"], command.options["test_fraction"]) == ("pets2", 0.0)
    assert command.sizes() == {"train": 6, "val": 4, "test": 4}


def test_arrays_by_their_keys(command: Command, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "one.npz", {"train": 30, "valid": 9, "test": 6})
    printed = command(str(path))
    assert printed.startswith("arrays in .npz, for datamodules.Arrays")
    assert "samples 45" in printed
    keys = {name: command.options[name] for name in ("x_key", "y_key", "part_names")}
    assert keys == {"x_key": "x_{part}", "y_key": "y_{part}", "part_names": {"val": "valid"}}
    assert command.sizes() == {"train": 30, "val": 9, "test": 6}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"train_images": (9, 4, 4), "train_labels": (9, 1), "test_images": (3, 4, 4), "test_labels": (3, 1)},
         ("{part}_images", "{part}_labels")),
        ({"features": (9, 5), "label": (9,)}, ("features", "label")),
        ({"points": (9, 5), "a": (9,), "b": (9,)}, ("points", None)),
        ({"data": (9, 6, 6, 3), "mask": (9, 6, 6), "target": (9,)}, ("data", "target")),
    ],
)  # fmt: skip
def test_keys_that_are_called_otherwise(
    command: Command, tmp_path: Path, arrays: dict[str, tuple[int, ...]], expected: tuple[str, str | None]
) -> None:
    content = {
        name: np.arange(np.prod(shape)).reshape(shape) % (2 if shape[1:] in ((), (1,)) else 256)
        for name, shape in arrays.items()
    }
    np.savez(tmp_path / "data.npz", **{name: array.astype(np.uint8) for name, array in content.items()})
    command(str(tmp_path / "data.npz"))
    assert (command.options["x_key"], command.options["y_key"]) == expected


def test_channels_that_could_be_first_or_last_are_asked_for(command: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(480).reshape(10, 4, 4, 3).astype(np.uint8))
    assert "are the channels? Set layout: chw, or layout: hwc" in command(str(tmp_path / "data.npz"), status=1)
    command(str(tmp_path / "data.npz"), "--layout", "hwc")
    assert command.options["layout"] == "hwc"


def test_array_files_alone_and_beside_their_labels(command: Command, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3)))
    printed = command(str(tmp_path / "x.npy"))
    assert "levels real values" in printed
    assert "none: there are no labels" in printed
    assert command.options["y_key"] is None
    np.save(tmp_path / "labels.npy", np.arange(40) % 4)
    assert "classes 4" in command(str(tmp_path / "x.npy"))
    assert command.sizes() == {"train": 32, "val": 4, "test": 4}


def test_parquet_with_pictures(command: Command, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [{"bytes": png(picture(row)), "path": ""} for row in range(20)]
    parquet.write_table(pyarrow.table({"image": cells, "label": ["a", "b"] * 10}), tmp_path / "x.parquet")
    assert "encoded pictures in Parquet" in command(str(tmp_path / "x.parquet"))
    assert command.sizes() == {"train": 16, "val": 2, "test": 2}


def test_hugging_face_data_sets(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    folder = write_dataset(tmp_path / "set", {"train": 20, "validation": 4, "test": 6})
    assert "pictures in a Hugging Face data set" in command(str(folder))
    assert (command.options["input_column"], command.options["label_column"]) == ("image", "label")
    assert command.sizes() == {"train": 20, "val": 4, "test": 6}
    command(str(folder / "train"))
    assert command.options["split_column"] == "part"
    assert command.sizes() == {"train": 7, "val": 7, "test": 6}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere is missing"),
        ("texts.csv", "texts.csv is a table of texts, which datamodules.Sentences reads"),
        ("notes.md", "notes.md is none of .npz"),
        ("broken.npz", "broken.npz is not a readable .npz file"),
        ("folder", "folder holds files of arrays: name one of them, a.npy perhaps"),
        ("empty", "the train part of empty is empty"),
        ("flat.npz", "flat.npz holds no array of inputs with two or more axes, but: a [3]"),
    ],
)
def test_what_is_no_data_is_said_in_one_line(command: Command, tmp_path: Path, name: str, message: str) -> None:
    for file in ("texts.csv", "notes.md", "broken.npz"):
        (tmp_path / file).write_text("a,b\n")
    for folder in ("folder", "empty"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "folder" / "a.npy", np.zeros(3))
    np.savez(tmp_path / "flat.npz", a=np.zeros(3))
    printed = command(str(tmp_path / name), status=2)
    assert printed.startswith("likeness: error: ")
    assert message in printed
    assert not command.out.exists()


def test_options_that_cannot_be_meant(command: Command, tmp_path: Path) -> None:
    assert "samples must be at least 1, got 0" in command(str(tmp_path), "--samples", "0", status=1)
