"""CIFAR from its pickled batches, with their checksums, and augmentation as a function of seed and position."""

import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets

from datamodules import CIFAR10, CIFAR100, DataError
from tests.datamodules.files import images, md5, python2_pickle
from tests.datamodules.toys import Recorder, Save, trainer

PER_BATCH = 6
KINDS = {
    CIFAR10: (torchvision.datasets.CIFAR10, [f"data_batch_{n}" for n in range(1, 6)], "test_batch", "labels"),
    CIFAR100: (torchvision.datasets.CIFAR100, ["train"], "test", "fine_labels"),
}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.dataset_name)
def cifar(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CIFAR10:
    """A datamodule over small batches, which count as the published ones."""
    files, train, test, key = KINDS[request.param]
    folder = tmp_path / files.base_folder
    folder.mkdir()
    for seed, name in enumerate([*train, test]):
        data = images(PER_BATCH, seed, (3072,))
        labels = [(seed + n) % 10 for n in range(PER_BATCH)]
        (folder / name).write_bytes(python2_pickle({"data": data, key: labels, "batch_label": name}))
    meta = files.meta | {"md5": ""}
    (folder / meta["filename"]).write_bytes(python2_pickle({meta["key"]: []}))
    meta["md5"] = md5(folder / meta["filename"])
    monkeypatch.setattr(files, "train_list", [[name, md5(folder / name)] for name in train])
    monkeypatch.setattr(files, "test_list", [[test, md5(folder / test)]])
    monkeypatch.setattr(files, "meta", meta)
    return request.param(data_dir=str(tmp_path), download=False, val_size=2, batch_size=2)


def folder(data: CIFAR10) -> Path:
    return data.data_dir / data.files.base_folder


def test_images_and_labels_come_back(cifar: CIFAR10) -> None:
    cifar.prepare_data()
    cifar.setup()
    parts = len(cifar.files.train_list)
    train = np.concatenate([images(PER_BATCH, seed, (3, 32, 32)) for seed in range(parts)])
    np.testing.assert_array_equal(cifar.splits["train"].x.numpy(), train)
    np.testing.assert_array_equal(cifar.splits["test"].x.numpy(), images(PER_BATCH, parts, (3, 32, 32)))
    assert cifar.splits["test"].y.tolist() == [(parts + n) % 10 for n in range(PER_BATCH)]
    assert len(cifar.splits["train"]) + len(cifar.splits["val"]) == PER_BATCH * parts


def test_a_missing_file_is_named(cifar: CIFAR10) -> None:
    name = cifar.files.test_list[0][0]
    (folder(cifar) / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing: expected at .*{cifar.files.url}"):
        cifar.setup("test")


@pytest.mark.parametrize("which", ["train_list", "test_list", "meta"])
def test_a_damaged_file_is_named_with_its_checksum_and_not_unpickled(
    cifar: CIFAR10, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = getattr(cifar.files, which)
    name, checksum = (entry["filename"], entry["md5"]) if which == "meta" else entry[0]
    path = folder(cifar) / name
    path.write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    with pytest.raises(DataError, match=f"{path} is damaged: expected MD5 {checksum}"):
        cifar.setup("test")
    assert not Path("executed").exists()


def test_the_archive_is_fetched_where_a_batch_is_damaged(
    cifar: CIFAR10, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "published.tar.gz"
    with tarfile.open(published, "w:gz") as archive:
        archive.add(folder(cifar), cifar.files.base_folder)
    monkeypatch.setattr(cifar.files, "tgz_md5", md5(published))
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(
        "torchvision.datasets.utils._urlretrieve", lambda url, filename: shutil.copy(published, filename)
    )
    (folder(cifar) / cifar.files.test_list[0][0]).write_bytes(b"half")
    cifar.download = True
    cifar.prepare_data()
    cifar.setup()


def test_without_a_network_one_line_says_what_to_fetch(
    cifar: CIFAR10, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    data = type(cifar)(data_dir=str(tmp_path / "fresh"))
    with pytest.raises(DataError, match=f"{data.files.filename} could not be .* no route to host") as error:
        data.prepare_data()
    assert data.files.url in str(error.value)
    assert "\n" not in str(error.value)


def augmented(cifar: CIFAR10, seed: int = 0, checkpoint: Path | None = None, **kwargs: Any) -> list[torch.Tensor]:
    data = type(cifar)(
        data_dir=str(cifar.data_dir), download=False, val_size=2, batch_size=2, flip=True, crop_padding=4, seed=seed
    )
    model = Recorder()
    run = trainer(max_epochs=2, limit_train_batches=2, **kwargs)
    run.fit(model, data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return model.inputs


def test_augmentation_is_a_function_of_seed_epoch_and_batch(cifar: CIFAR10) -> None:
    torch.manual_seed(0)
    first = augmented(cifar, seed=0)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, augmented(cifar, seed=0)))
    assert not any(map(torch.equal, first, augmented(cifar, seed=1)))


def test_augmentation_goes_on_where_training_stopped(cifar: CIFAR10, tmp_path: Path) -> None:
    path = tmp_path / "stop.ckpt"
    whole = augmented(cifar, callbacks=[Save("on_train_batch_end", 3, path)])
    assert len(whole) == 4
    assert torch.equal(augmented(cifar, checkpoint=path)[0], whole[3])


def test_evaluation_is_not_augmented(cifar: CIFAR10) -> None:
    cifar.setup("test")
    model = Recorder()
    cifar.flip, cifar.crop_padding = True, 4
    seen: list[torch.Tensor] = []
    model.test_step = lambda batch, batch_idx: seen.append(batch.x)  # type: ignore[method-assign]
    trainer().test(model, cifar, verbose=False)
    assert torch.equal(torch.cat(seen), cifar.splits["test"].x)
