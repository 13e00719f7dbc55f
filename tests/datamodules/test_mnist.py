"""MNIST from its idx files, with their checksums, and what happens where they are missing or damaged."""

import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets

from datamodules import MNIST, DataError
from datamodules import mnist as module
from tests.datamodules.files import images, md5, write_idx

TRAIN, TEST = images(30, 0, (28, 28)), images(12, 1, (28, 28))
TRAIN_LABELS, TEST_LABELS = (np.arange(30) % 10).astype(np.uint8), (np.arange(12) % 10).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four small idx files, which count as the published ones."""
    raw = tmp_path / "published"
    arrays = [TRAIN, TRAIN_LABELS, TEST, TEST_LABELS]
    for name, array in zip(module.MD5, arrays, strict=True):
        write_idx(raw / name, array)
        monkeypatch.setitem(module.MD5, name, md5(raw / name))
    archives = [(f"{name}.gz", md5(raw / f"{name}.gz")) for name in module.MD5]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", archives)
    return raw


@pytest.fixture
def mnist(folder: Path, tmp_path: Path) -> MNIST:
    data = MNIST(data_dir=str(tmp_path), download=False, val_size=5, batch_size=8)
    shutil.copytree(folder, data.folder)
    return data


def test_images_and_labels_come_back(mnist: MNIST) -> None:
    mnist.prepare_data()
    mnist.setup()
    np.testing.assert_array_equal(mnist.splits["test"].x[:, 0].numpy(), TEST)
    assert mnist.splits["test"].y.tolist() == TEST_LABELS.tolist()
    np.testing.assert_array_equal(mnist.splits["train"].x[:, 0].numpy(), TRAIN)
    batch = next(iter(mnist.train_dataloader()))
    assert batch.x.shape == (8, *mnist.input_shape)
    assert str(batch.x.dtype) == "torch.uint8"


def test_validation_is_held_out_of_training(mnist: MNIST) -> None:
    mnist.setup("fit")
    train, val = (set(mnist.splits[name].rows.tolist()) for name in ("train", "val"))
    assert len(val) == 5
    assert train | val == set(range(30))
    assert not train & val


def test_without_validation_samples_the_test_samples_validate(mnist: MNIST) -> None:
    mnist.val_size = 0
    mnist.setup("fit")
    assert len(mnist.splits["train"]) == 30
    np.testing.assert_array_equal(mnist.splits["val"].x[:, 0].numpy(), TEST)


def test_a_missing_file_is_named(mnist: MNIST) -> None:
    (mnist.folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is missing.*expected at .*download: true"):
        mnist.setup("test")


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + b"\0", lambda raw: b""])
def test_a_damaged_file_is_named_with_its_checksum(mnist: MNIST, damage: Any) -> None:
    path = mnist.folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"{path} is damaged: expected MD5 {module.MD5[path.name]}"):
        mnist.setup("fit")


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torchvision's retrieval, answered from the folder; the list says what was asked for."""
    asked: list[str] = []

    def retrieve(url: str, filename: str, chunk_size: int = 0) -> None:
        asked.append(url)
        shutil.copy(folder / Path(url).name, filename)

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", retrieve)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    return asked


def test_files_are_downloaded_once(tmp_path: Path, server: list[str]) -> None:
    data = MNIST(data_dir=str(tmp_path / "fresh"), val_size=5)
    data.prepare_data()
    data.setup()
    assert len(server) == 4
    data.prepare_data()
    assert len(server) == 4


def test_a_damaged_file_is_mended_from_its_archive(tmp_path: Path, server: list[str]) -> None:
    data = MNIST(data_dir=str(tmp_path / "fresh"), val_size=5)
    data.prepare_data()
    (data.folder / "train-images-idx3-ubyte").write_bytes(b"half")
    data.prepare_data()
    data.setup("fit")
    assert len(server) == 4


def test_a_half_downloaded_archive_is_not_taken_for_the_data(tmp_path: Path, folder: Path, server: list[str]) -> None:
    for archive in folder.glob("train-images*.gz"):
        archive.write_bytes(archive.read_bytes()[:100])
    data = MNIST(data_dir=str(tmp_path / "fresh"))
    with pytest.raises(DataError, match="could not be downloaded") as error:
        data.prepare_data()
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is missing"):
        data.setup("fit")


def test_without_a_network_one_line_says_what_to_fetch(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    data = MNIST(data_dir=str(tmp_path / "fresh"))
    with pytest.raises(DataError, match=r"idx files could not be .* no route to host.*fetch it from") as error:
        data.prepare_data()
    assert str(data.folder) in str(error.value)
    assert "\n" not in str(error.value)
