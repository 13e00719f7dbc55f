"""Hugging Face data sets from disk, against what was written; names of the hub without a network."""

import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import DataError, HuggingFaceDataset
from datamodules.language.documents import Reading, open_documents
from datamodules.own.huggingface import may_be_hub_name, open_dataset
from datamodules.own.samples import SampleError
from tests.datamodules.own.toys import picture, png, write_dataset

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("hf"), {"train": 12, "validation": 3, "test": 6})


def all_of(data: HuggingFaceDataset, part: Any) -> tuple[Any, list[int]]:
    split = data.load(part)
    whole = split[torch.arange(len(split))]
    return whole.x, whole.y.tolist()


def test_splits_of_pictures(folder: Path) -> None:
    data = HuggingFaceDataset(str(folder))
    assert (data.input_shape, data.num_classes, data.class_names) == ((3, 12, 10), 2, ("cat", "dog"))
    for index, (part, size) in enumerate({"train": 12, "val": 3, "test": 6}.items()):
        x, y = all_of(data, part)
        expected = np.stack([picture(100 * index + row) for row in range(size)]).transpose(0, 3, 1, 2)
        assert np.array_equal(x.numpy(), expected)
        assert y == [row % 2 for row in range(size)]


def test_texts_have_no_shape_and_take_no_augmentation(folder: Path) -> None:
    data = HuggingFaceDataset(str(folder), input_column="text", eval_batch_size=4)
    data.setup("test")
    assert [text for batch in data.test_dataloader() for text in batch.x] == [f"test {row}" for row in range(6)]
    assert not any(hasattr(data, name) for name in ("input_shape", "levels", "input_shift", "input_scale"))
    assert data.num_classes == 2
    with pytest.raises(ValueError, match="hf_dataset holds texts, which take no image_size"):
        HuggingFaceDataset(str(folder), input_column="text", image_size=8).setup("test")


def test_points_and_other_labels(folder: Path) -> None:
    data = HuggingFaceDataset(str(folder), input_column="point", label_column="part")
    x, y = all_of(data, "test")
    assert x.tolist() == [[float(row), -float(row)] for row in range(6)]
    assert (data.class_names, y) == (("test", "train", "val"), [1, 2, 0, 1, 2, 0])
    assert HuggingFaceDataset(str(folder), label_column=None).num_classes == 1


def test_one_split_is_divided_by_fractions_or_by_a_column(folder: Path) -> None:
    one = str(folder / "train")
    by_column = HuggingFaceDataset(one, "text", split_column="part")
    assert all_of(by_column, "val")[0] == [f"train {row}" for row in (1, 4, 7, 10)]
    by_fraction = HuggingFaceDataset(one, "text", val_fraction=0.25, test_fraction=0.25)
    parts = [all_of(by_fraction, part)[0] for part in ("train", "val", "test")]
    assert list(map(len, parts)) == [6, 3, 3]
    assert sorted(chain(*parts)) == sorted(f"train {row}" for row in range(12))


def test_for_the_test_the_other_splits_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_ = HuggingFaceDataset.open

    def watched(self: HuggingFaceDataset, part: Any) -> Any:
        opened.append(part)
        return open_(self, part)

    monkeypatch.setattr(HuggingFaceDataset, "open", watched)
    HuggingFaceDataset(str(folder), class_names=("cat", "dog")).setup("test")
    assert opened == ["test"]


def write_cells(folder: Path, cells: list[Any], labels: list[int]) -> str:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    datasets.Dataset.from_dict({"image": cells, "label": labels}, features=features).save_to_disk(str(folder))
    return str(folder)


def test_what_cannot_be_read_is_named_or_skipped(tmp_path: Path) -> None:
    cells = [{"bytes": png(picture(row)), "path": None} for row in range(5)]
    cells[2], cells[3] = {"bytes": b"no picture", "path": None}, None
    path = write_cells(tmp_path / "set", cells, [0, 1, 0, 1, 1])
    options = {"val_fraction": 0, "test_fraction": 0}
    with pytest.raises(SampleError, match=r"set, train, row 2, column 'image' is no picture"):
        all_of(HuggingFaceDataset(path, **options), "train")
    assert all_of(HuggingFaceDataset(path, skip_corrupt=True, **options), "train")[1] == [0, 1, 1]


def test_a_label_that_is_withheld_is_no_class(tmp_path: Path) -> None:
    path = write_cells(tmp_path / "set", [{"bytes": png(picture(0)), "path": None}], [-1])
    with pytest.raises(DataError, match=r"train, row 0, column 'label': -1 is no class: set label_column: null"):
        HuggingFaceDataset(path).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_column": "picture"}, "train has no column 'picture', but: image, label, text, point, part"),
        ({"label_column": "class"}, "train has no column 'class', but: image, label"),
        ({"split_column": "part"}, "has the splits train, validation, test already: leave out split_column"),
        (
            {"part_names": {p: p.upper() for p in ("train", "val", "test")}},
            "has the splits train, validation, test: name",
        ),
    ],
)
def test_what_is_not_there_is_named(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HuggingFaceDataset(str(folder), **options).setup("fit")


def test_two_splits_that_could_be_one_part_are_named(tmp_path: Path) -> None:
    both = write_dataset(tmp_path / "both", {"train": 4, "validation": 2, "dev": 2})
    with pytest.raises(DataError, match=r"the splits validation and dev .* both be the val part: say which by part_n"):
        HuggingFaceDataset(str(both)).setup("fit")
    data = HuggingFaceDataset(str(both), part_names={"val": "dev"})
    assert all_of(data, "val")[0].shape == (2, 3, 12, 10)
    with pytest.raises(DataError, match=r"the splits validation and dev .* both be the val part"):
        open_documents(str(both), Reading(column="text"))


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} is no folder that save_to_disk wrote"):
        open_dataset(str(tmp_path))


def test_a_name_of_the_hub_without_a_network_is_one_line_at_once() -> None:
    start = time.perf_counter()
    with pytest.raises(
        DataError, match=r"nobody/nothing is no folder, .* local cache .*load_dataset\('nobody/nothing'\)"
    ):
        open_dataset("nobody/nothing")
    assert time.perf_counter() - start < 10
    assert not datasets.config.HF_HUB_OFFLINE


def test_names_of_the_hub_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    names = ["mnist", "ylecun/mnist", "owner/corpus-v1.5", "owner/corpus.v2", "a.b/c_d"]
    paths = ["texts/part", "corpus.txt", "absent/corpus.txt", "./mnist", "../a/mnist", "/mnist", "a/b/c", "~/mnist", ""]
    assert [name for name in names + paths if may_be_hub_name(name)] == names


def test_a_name_of_the_hub_is_found_in_the_local_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``load_dataset`` leaves it there: files of Arrow below owner, configuration, version and hash."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    where = tmp_path / "somebody___something" / "default" / "0.0.0" / "0123456789abcdef"
    where.mkdir(parents=True)
    dataset = datasets.load_from_disk(str(folder))
    for part in dataset:
        part_file = next(Path(folder, part).glob("*.arrow"))
        (where / f"something-{part}.arrow").write_bytes(part_file.read_bytes())
    info = dataset["train"].info.copy()
    info.builder_name, info.dataset_name, info.config_name, info.version = "parquet", "something", "default", "0.0.0"
    info.splits = datasets.SplitDict.from_split_dict(
        {p: {"name": p, "num_examples": len(d), "dataset_name": "something"} for p, d in dataset.items()}
    )
    info.write_to_directory(str(where))
    assert all_of(HuggingFaceDataset("somebody/something"), "val")[1] == [0, 1, 0]
