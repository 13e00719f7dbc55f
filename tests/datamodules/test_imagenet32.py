"""Both releases of ImageNet32 from tiny files in their published formats."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import DataError, ImageNet32
from datamodules import imagenet32 as files
from tests.datamodules.files import images, python2_pickle, sha256, write_png_tar

PER_BATCH, VAL = 3, 7
TRAIN = 10 * PER_BATCH


def labels(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, 1001, count).tolist()


def write_npz(path: Path, data: np.ndarray, classes: list[int]) -> None:
    np.savez_compressed(path.with_suffix(".npz"), data=data, labels=np.array(classes), mean=np.zeros(3072))


def write_pickle(path: Path, data: np.ndarray, classes: list[int]) -> None:
    path.write_bytes(pickle.dumps({"data": data, "labels": classes, "mean": np.zeros(3072)}))


def write_python2(path: Path, data: np.ndarray, classes: list[int]) -> None:
    path.write_bytes(python2_pickle({"data": data, "labels": classes}))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for release in ("new", "old"):
        monkeypatch.setitem(files.SIZES, (release, True), TRAIN)
        monkeypatch.setitem(files.SIZES, (release, False), VAL)


@pytest.fixture(params=[write_npz, write_pickle, write_python2], ids=["npz", "pickle", "python2"])
def new(request: pytest.FixtureRequest, tmp_path: Path, counts: None) -> ImageNet32:
    """The new release, each part in the folder that its archive unpacks to."""
    for part in ("Imagenet32_train", "Imagenet32_val"):
        (tmp_path / part).mkdir()
    for number in range(1, 11):
        path = tmp_path / "Imagenet32_train" / f"train_data_batch_{number}"
        request.param(path, images(PER_BATCH, number, (3072,)), labels(PER_BATCH, number))
    request.param(tmp_path / "Imagenet32_val" / "val_data", images(VAL, 0, (3072,)), labels(VAL, 0))
    return ImageNet32(str(tmp_path), val_size=4, batch_size=4)


@pytest.fixture
def old(tmp_path: Path, counts: None, monkeypatch: pytest.MonkeyPatch) -> ImageNet32:
    """The old release, in its two archives."""
    for train, count in ((True, TRAIN), (False, VAL)):
        path = tmp_path / files.ARCHIVES["old", train][0]
        write_png_tar(path, images(count, int(train), (3, 32, 32)))
        monkeypatch.setitem(files.ARCHIVES, ("old", train), (path.name, sha256(path)))
    return ImageNet32(str(tmp_path), release="old", val_size=4, batch_size=4)


def test_the_new_release_comes_back(new: ImageNet32) -> None:
    new.prepare_data()
    new.setup()
    train = np.concatenate([images(PER_BATCH, number, (3, 32, 32)) for number in range(1, 11)])
    np.testing.assert_array_equal(new.splits["train"].x.numpy(), train)
    np.testing.assert_array_equal(new.splits["test"].x.numpy(), images(VAL, 0, (3, 32, 32)))
    assert (new.splits["test"].y + 1).tolist() == labels(VAL, 0)
    batch = next(iter(new.train_dataloader()))
    assert batch.x.shape == (4, 3, 32, 32)
    assert batch.x.dtype == torch.uint8


def test_the_old_release_comes_back_without_labels(old: ImageNet32) -> None:
    old.prepare_data()
    old.setup()
    np.testing.assert_array_equal(old.splits["train"].x.numpy(), images(TRAIN, 1, (3, 32, 32)))
    np.testing.assert_array_equal(old.splits["test"].x.numpy(), images(VAL, 0, (3, 32, 32)))
    assert not old.splits["train"].y.any()
    assert old.num_classes == 1


def test_metrics_can_tell_the_releases_apart() -> None:
    assert ImageNet32(release="new").dataset_name == "imagenet32"
    assert ImageNet32(release="old").dataset_name == "imagenet32_old"


def test_train_and_val_share_one_memory_map_that_is_made_once(new: ImageNet32) -> None:
    new.prepare_data()
    for path in new.data_dir.glob("Imagenet32_*/*"):
        path.unlink()
    new.prepare_data()
    new.setup("fit")
    train, val = new.splits["train"], new.splits["val"]
    assert train.x.data_ptr() == val.x.data_ptr()
    assert isinstance(np.load(new.data_dir / "cache" / "imagenet32_train.npy", mmap_mode="r"), np.memmap)
    assert {path.name for path in (new.data_dir / "cache").iterdir()} == {
        f"imagenet32_{part}{kind}.npy" for part in ("train", "val") for kind in ("", "_labels")
    }


def test_a_missing_batch_is_named_and_nothing_is_left_behind(new: ImageNet32) -> None:
    next(new.data_dir.glob("*/train_data_batch_7*")).unlink()
    with pytest.raises(DataError, match=r"train_data_batch_7.npz is missing: expected at .*image-net.org") as error:
        new.prepare_data()
    assert files.ARCHIVES["new", True][1] in str(error.value)
    assert list(new.data_dir.glob("cache/*")) == []


def test_a_truncated_batch_is_named_and_nothing_is_left_behind(new: ImageNet32) -> None:
    path = next(new.data_dir.glob("*/train_data_batch_7*"))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=f"{path}.*damaged"):
        new.prepare_data()
    assert list(new.data_dir.glob("cache/*")) == []


def test_a_flipped_bit_in_an_npz_batch_is_found(tmp_path: Path, counts: None) -> None:
    write_npz(tmp_path / "val_data", images(VAL, 0, (3072,)), labels(VAL, 0))
    path = tmp_path / "val_data.npz"
    raw = bytearray(path.read_bytes())
    raw[5000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=f"{path} is damaged.*{files.ARCHIVES['new', False][1]}"):
        list(files.read_new(tmp_path, train=False))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val_data").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(DataError, match=r"val_data is refused or damaged: it names os\.system"):
        list(files.read_new(tmp_path, train=False))
    np.savez(tmp_path / "val_data.npz", data=np.array([{}], object), labels=np.ones(1))
    with pytest.raises(DataError, match=r"val_data\.npz is damaged"):
        list(files.read_new(tmp_path, train=False))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("data", "classes", "message"),
    [
        (images(2, 0, (12288,)), [1, 2], r"uint8 \[2, 3072\], got uint8 \[2, 12288\]"),
        (images(2, 0, (3072,)).astype(float), [1, 2], "got float64"),
        (images(2, 0, (3072,)), [1], r"\[1, 3072\], got uint8 \[2, 3072\]"),
    ],
)
def test_batches_of_another_kind_are_refused(
    tmp_path: Path, data: np.ndarray, classes: list[int], message: str
) -> None:
    write_pickle(tmp_path / "val_data", data, classes)
    with pytest.raises(DataError, match=message):
        list(files.read_new(tmp_path, train=False))


@pytest.mark.parametrize("count", [VAL - 1, VAL + 1])
def test_another_number_of_images_is_refused(tmp_path: Path, new: ImageNet32, count: int) -> None:
    for path in tmp_path.glob("Imagenet32_val/*"):
        path.unlink()
    write_npz(tmp_path / "val_data", images(count, 0, (3072,)), labels(count, 0))
    with pytest.raises(DataError, match=f"holds {count} images for imagenet32_val, expected {VAL}"):
        new.prepare_data()
    assert not list(tmp_path.glob("cache/*imagenet32_val*"))


def test_a_label_out_of_range_is_named(tmp_path: Path, new: ImageNet32) -> None:
    for path in tmp_path.glob("Imagenet32_val/*"):
        path.unlink()
    write_npz(tmp_path / "val_data", images(VAL, 0, (3072,)), [1, 2, 1001, 4, 5, 6, 7])
    new.prepare_data()
    with pytest.raises(DataError, match="test sample 2 has label 1000, expected 0 to 999"):
        new.setup("test")


def test_a_damaged_cache_is_named(new: ImageNet32) -> None:
    new.prepare_data()
    path = new.data_dir / "cache" / "imagenet32_val.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"{path} is damaged: expected {VAL} images; delete it"):
        new.setup("test")


def test_labels_that_are_gone_are_named_and_made_again(new: ImageNet32) -> None:
    new.prepare_data()
    labels = new.data_dir / "cache" / "imagenet32_val_labels.npy"
    content = labels.read_bytes()
    labels.unlink()
    with pytest.raises(DataError, match=f"{labels.name} is missing: .* prepare_data"):
        new.setup("test")
    new.prepare_data()
    assert labels.read_bytes() == content


def test_a_setup_without_prepare_data_says_so(new: ImageNet32) -> None:
    with pytest.raises(DataError, match=r"imagenet32_val.npy is missing.*prepare_data"):
        new.setup("test")


def test_a_missing_or_damaged_archive_is_named_with_its_checksum(old: ImageNet32) -> None:
    name, checksum = files.ARCHIVES["old", False]
    path = old.data_dir / name
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=f"{path} is damaged: expected SHA-256 {checksum}"):
        old.prepare_data()
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing: expected at .*SHA-256 {checksum}"):
        old.prepare_data()


def test_the_old_release_is_not_taken_for_the_new_one(old: ImageNet32) -> None:
    with pytest.raises(DataError, match=r"the folder has train_32x32.tar, the old release: set release: old"):
        ImageNet32(str(old.data_dir)).prepare_data()


def test_a_full_disk_leaves_nothing_behind(new: ImageNet32, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        new.prepare_data()
    assert list(new.data_dir.glob("cache/*")) == []
