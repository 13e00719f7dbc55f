"""Arrays in every format against the arrays that were written, and what is refused by name."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from datamodules import Arrays, DataError
from datamodules.errors import OptionError
from datamodules.own.array_files import StoredArray
from datamodules.own.samples import SampleError
from tests.datamodules.files import images
from tests.datamodules.own.toys import picture, png, write_npz

CIFAR = Path(os.environ.get("REAL_DATA", "~/.cache/likeness-real")).expanduser() / "cifar10.npz"
X = images(30, 0, (6, 5, 3))
Y = np.arange(30) % 3


def all_of(data: Arrays, part: str = "train") -> tuple[np.ndarray, list[int]]:
    """All inputs and classes of a part, in the order of the file."""
    split = Arrays.load(data, part)
    whole = split[torch.arange(len(split))]
    return whole.x.numpy(), whole.y.tolist()


def whole(**options: Any) -> Arrays:
    """Everything is trained on."""
    return Arrays(**{"val_fraction": 0, "test_fraction": 0} | options)


def write(folder: Path, suffix: str, x: np.ndarray = X, y: np.ndarray | None = Y) -> dict[str, Any]:
    """The options that read what was written."""
    path = folder / f"data{suffix}"
    labels = {} if y is None else {"y": y}
    if suffix == ".npy":
        np.save(path, x)
        np.save(folder / "labels.npy", Y)
        return {"file": str(path), "labels_file": str(folder / "labels.npy")}
    if suffix == ".safetensors":
        save_file({name: torch.from_numpy(array) for name, array in {"x": x, **labels}.items()}, path)
    elif suffix == ".packed.npz":
        np.savez_compressed(path, x=x, **labels)
    else:
        np.savez(path, x=x, **labels)
    return {"file": str(path)}


@pytest.mark.parametrize("suffix", [".npz", ".packed.npz", ".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16", "int64", "bool"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str, dtype: str) -> None:
    x = X > 127 if dtype == "bool" else X.astype(dtype) / (1 if "int" in dtype else 7)
    data = whole(**write(tmp_path, suffix, x.astype(dtype)))
    found, classes = all_of(data)
    real = dtype.startswith("float")
    assert found.dtype == (np.float32 if real else np.uint8)
    assert np.array_equal(found, x.astype(dtype).astype(found.dtype).transpose(0, 3, 1, 2))
    assert classes == Y.tolist()
    assert (data.input_shape, data.num_classes, data.levels) == ((3, 6, 5), 3, None if real else 256)
    assert data.input_scale == [1.0 if real else 127.5] * 3


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((30, 6, 5), "auto", (1, 6, 5)),
        ((30, 6, 5, 3), "auto", (3, 6, 5)),
        ((30, 1, 6, 5), "auto", (1, 6, 5)),
        ((30, 7, 6, 5), "chw", (7, 6, 5)),
        ((30, 7, 6, 5), "hwc", (5, 7, 6)),
        ((30, 3, 6, 3), "chw", (3, 6, 3)),
        ((30, 12), "auto", (12,)),
    ],
)
def test_axes(tmp_path: Path, shape: tuple[int, ...], layout: Any, expected: tuple[int, ...]) -> None:
    x = images(shape[0], 1, shape[1:])
    data = whole(**write(tmp_path, ".npz", x), layout=layout)
    assert data.input_shape == expected
    channels_last = len(shape) == 4 and expected == (shape[3], *shape[1:3])
    assert np.array_equal(all_of(data)[0], (x.transpose(0, 3, 1, 2) if channels_last else x).reshape(30, *expected))


def test_parts_by_keys_by_files_and_by_a_column(tmp_path: Path) -> None:
    one = write_npz(tmp_path / "one.npz", {"train": 9, "valid": 5, "test": 4})
    by_key = Arrays(str(one), "x_{part}", "y_{part}", part_names={"val": "valid"})
    with np.load(one) as file:
        arrays = dict(file)
    for part, name in {"train": "train", "val": "valid", "test": "test"}.items():
        assert np.array_equal(all_of(by_key, part)[0], arrays[f"x_{name}"].transpose(0, 3, 1, 2))
        np.save(tmp_path / f"{part}.npy", arrays[f"x_{name}"])
        np.save(tmp_path / f"{part}_y.npy", arrays[f"y_{name}"])
    by_file = Arrays(str(tmp_path / "{part}.npy"), labels_file=str(tmp_path / "{part}_y.npy"))
    column = np.repeat(["train", "val", "test"], (9, 5, 4))
    everything = [np.concatenate([arrays[f"{key}_{name}"] for name in ("train", "valid", "test")]) for key in "xy"]
    np.savez(tmp_path / "column.npz", x=everything[0], y=everything[1], part=column)
    by_column = Arrays(str(tmp_path / "column.npz"), split_key="part")
    for part in ("train", "val", "test"):
        for data in (by_file, by_column):
            assert all(np.array_equal(a, b) for a, b in zip(all_of(data, part), all_of(by_key, part), strict=True))


def test_for_the_test_no_training_file_is_needed(tmp_path: Path) -> None:
    np.save(tmp_path / "test.npy", X)
    np.save(tmp_path / "test_y.npy", Y)
    data = Arrays(str(tmp_path / "{part}.npy"), labels_file=str(tmp_path / "{part}_y.npy"), dataset_name="mine")
    data.setup("test")
    assert (len(data.splits["test"]), data.num_classes, data.input_shape) == (30, 3, (3, 6, 5))
    with pytest.raises(DataError, match="mine has no train part for the train split, but test"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("labels", "options", "names", "classes"),
    [
        (np.array(["b", "a", "b"]), {}, ("a", "b"), [1, 0, 1]),
        (np.array([10, 2, 10]), {}, ("2", "10"), [1, 0, 1]),
        (np.array([10, 2, 10]), {"class_names": 11}, tuple(map(str, range(11))), [10, 2, 10]),
        (np.array([[1], [0], [1]]), {}, ("0", "1"), [1, 0, 1]),
        (np.array([1.0, 0.0, 1.0]), {}, ("0", "1"), [1, 0, 1]),
        (np.array([True, False, True]), {}, ("False", "True"), [1, 0, 1]),
    ],
)
def test_labels(tmp_path: Path, labels: np.ndarray, options: dict[str, Any], names: Any, classes: list[int]) -> None:
    data = whole(**write(tmp_path, ".npz", X[:3], labels), **options)
    assert (data.class_names, all_of(data)[1]) == (names, classes)


def test_data_without_labels_and_their_levels(tmp_path: Path) -> None:
    data = whole(**write(tmp_path, ".npz", X // 16, None), y_key=None, levels=16)
    assert (data.num_classes, data.class_names, all_of(data)[1]) == (1, (), [0] * 30)
    assert (data.levels, data.input_shift) == (16, [7.5] * 3)
    shifted = whole(**write(tmp_path, ".npz", X, None), y_key=None, input_shift=[1.0, 2.0, 3.0], input_scale=[4.0])
    assert (shifted.input_shift, shifted.input_scale) == ([1.0, 2.0, 3.0], [4.0] * 3)


def test_the_archive_is_mapped_where_it_is_not_compressed(tmp_path: Path) -> None:
    for suffix, mapped in ((".npz", True), (".packed.npz", False), (".npy", True)):
        array = StoredArray(Path(write(tmp_path, suffix)["file"]), "" if suffix == ".npy" else "x")
        assert isinstance(array.content, np.memmap) == mapped
        assert len(pickle.dumps(array)) < 1000
        again = pickle.loads(pickle.dumps(array))
        assert np.array_equal(again.rows(torch.tensor([3, 1])).numpy(), X[[3, 1]])
    fortran = tmp_path / "fortran.npz"
    np.savez(fortran, x=np.asfortranarray(X), big=X.astype(">f8"))
    assert np.array_equal(StoredArray(fortran, "x").rows(torch.arange(30)).numpy(), X)
    assert np.array_equal(StoredArray(fortran, "big").rows(torch.arange(30)).numpy(), X)


def write_parquet(path: Path, count: int = 12, **columns: list[Any]) -> Path:
    import pyarrow
    from pyarrow import parquet

    cells = [{"bytes": png(picture(row)), "path": f"{row}.png"} for row in range(count)]
    usual = {
        "image": cells,
        "label": ["cat", "dog", "eel"] * (count // 3),
        "point": [[float(row), 0.5] for row in range(count)],
        "part": ["train"] * (count - 4) + ["val"] * 2 + ["test"] * 2,
    }
    parquet.write_table(pyarrow.table(usual | columns), path, row_group_size=5)
    return path


def test_parquet_with_encoded_pictures_and_with_points(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write_parquet(tmp_path / "data.parquet")
    data = Arrays(str(path), "image", "label", split_key="part", cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    (written,) = (tmp_path / "cache").iterdir()
    assert data.class_names == ("cat", "dog", "eel")
    assert {part: len(all_of(data, part)[0]) for part in ("train", "val", "test")} == {"train": 8, "val": 2, "test": 2}
    expected = np.stack([picture(row) for row in (8, 9)]).transpose(0, 3, 1, 2)
    assert np.array_equal(all_of(data, "val")[0], expected)
    assert all_of(data, "val")[1] == [2, 0]
    assert [*(tmp_path / "cache").iterdir()] == [written]
    points = whole(file=str(path), x_key="point", y_key="label", cache_dir=str(tmp_path / "cache"))
    assert (points.input_shape, points.levels) == ((2,), None)
    assert all_of(points)[0].tolist() == [[float(row), 0.5] for row in range(12)]
    raw = write_parquet(tmp_path / "raw.parquet", image=[png(picture(row)) for row in range(12)])
    assert np.array_equal(
        all_of(whole(file=str(raw), x_key="image", y_key="label"))[0][0], picture(0).transpose(2, 0, 1)
    )


def test_what_cannot_be_read_in_parquet_is_named_or_skipped(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    cells = [png(picture(row)) for row in range(12)]
    cells[3], cells[7] = b"", None
    path = write_parquet(tmp_path / "data.parquet", image=cells)
    data = whole(file=str(path), x_key="image", y_key="label")
    with pytest.raises(SampleError, match=r"data.parquet, row 4, column 'image' holds no bytes"):
        all_of(data)
    skipping = whole(file=str(path), x_key="image", y_key="label", skip_corrupt=True)
    assert all_of(skipping)[1] == [0, 1, 2, 1, 2, 0, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"x_key": "z"}, r"data.npz has no array 'z', but: 'x', 'y'"),
        ({}, {"y_key": "z"}, r"data.npz has no array 'z', but: 'x', 'y'"),
        ({"y": Y[:-1]}, {}, r"data.npz\[x\] has 30 rows, but there are 29 labels"),
        ({"y": np.eye(30)}, {}, r"data.npz\[y\], row 0: labels are \[30, 30\]: one label a sample"),
        ({"x": X[:, :3]}, {}, r"which axis of \S+data.npz\[x\], \[30, 3, 5, 3\], are the channels\? Set layout"),
        ({"x": X[None]}, {}, r"is \[1, 30, 6, 5, 3\], where inputs are \[N, D\]"),
        ({"x": X.astype(str)}, {}, r"holds <U3, not real numbers"),
        ({"x": X.astype(np.int32) * 300}, {}, r"data.npz\[x\], row \d+ has an input of \d+, expected 0 to 255"),
        ({"x": np.where(X == 0, np.inf, X)}, {}, r"data.npz\[x\], row \d+ has an input of inf, expected a finite"),
        (
            {"x": np.where(X == 0, 1e300, X)},
            {},
            r"row \d+ has an input of 1e\+300, expected a finite number in float32",
        ),
        ({"x": X[:0], "y": Y[:0]}, {}, "the train part of arrays is empty"),
        ({}, {"split_key": "y"}, r"data.npz\[y\] says 0, which is none of train, val, test: see part_names"),
        ({}, {"file": "missing.npz"}, "missing.npz is missing"),
        ({}, {"file": "{part}.npz"}, "train.npz is missing: .* none of train.npz"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{"x": X, "y": Y} | change)
    with pytest.raises((DataError, OptionError), match=message) as error:
        all_of(whole(**{"file": str(path)} | options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.npz", b"PK no archive", "data.npz is not a readable .npz file"),
        ("data.npy", b"no array", "data.npy cannot be read"),
        ("data.safetensors", b"no tensors", "data.safetensors is not a readable safetensors file"),
        ("data.parquet", b"PAR1 no table", "data.parquet is no Parquet file that can be read"),
        ("data.mat", b"something", "data.mat is none of .npz, .npy, .safetensors, .parquet"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        all_of(whole(file=str(path), y_key=None))


def test_an_array_file_alone_has_no_labels_by_accident(tmp_path: Path) -> None:
    path = write(tmp_path, ".npy")["file"]
    with pytest.raises(DataError, match=r"data.npy is one array: name the labels_file, or set y_key: null"):
        all_of(whole(file=path))
    assert whole(file=path, y_key=None).num_classes == 1
    with pytest.raises(ValueError, match=r"split_key y and {part} in file or x_key both divide"):
        Arrays("{part}.npy", split_key="y")


@pytest.mark.skipif(not CIFAR.is_file(), reason=f"no {CIFAR}; real_data/get lays it out there")
def test_cifar10() -> None:
    """The counts of Krizhevsky 2009, and the channel statistics of the training images that everybody quotes."""
    data = Arrays(str(CIFAR), "x_{part}", "y_{part}", eval_batch_size=10_000)
    data.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert (data.input_shape, data.num_classes, data.levels) == ((3, 32, 32), 10, 256)
    whole = data.source("train").read(torch.arange(50_000)).double() / 255
    assert whole.mean((0, 2, 3)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    assert whole.std((0, 2, 3)).tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=5e-5)
    (test,) = data.test_dataloader()
    assert test.y.bincount().tolist() == [1000] * 10
    assert data.splits["val"].y[data.splits["val"].rows].bincount().tolist() == [500] * 10
