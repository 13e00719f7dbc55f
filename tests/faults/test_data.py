"""A damaged data file ends every command in one line that names it, before anything is trained."""

import random
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import torchvision.datasets
from pyarrow import parquet

from datamodules import mnist
from scripts.cli.entry_point import run_command
from scripts.train import main
from tests.datamodules.files import images, md5, python2_pickle, write_idx
from tests.datamodules.text_toys import write_csv
from tests.faults.conftest import Trial
from tests.faults.test_damage import cut, flipped
from tests.integration.test_resume import BASE

IMAGES = ("fit", "--config", "configs/experiment/digits_classifier.yaml", *BASE, "--data")
PAIRS = ("fit", "--config", "tests/integration/sentence.yaml", *BASE, "--data", "datamodules.SentencePairs")
EACH = 10  # damages of a file
Prepared = tuple[Path, tuple[str, ...]]


def mnist_files(folder: Path, patch: pytest.MonkeyPatch) -> Prepared:
    """Four small files that count as the published ones; the one to damage, and the options to read them."""
    raw = folder / "MNIST" / "raw"
    for seed, name in enumerate(mnist.MD5):
        write_idx(raw / name, images(40, seed, (28, 28) if "images" in name else ()) % 10)
    patch.setattr(mnist, "MD5", {name: md5(raw / name) for name in mnist.MD5})
    options = ("datamodules.MNIST", "--data.data_dir", str(folder), "--data.download", "false")
    return raw / "train-images-idx3-ubyte", (*IMAGES, *options)


def cifar_files(folder: Path, patch: pytest.MonkeyPatch) -> Prepared:
    files = torchvision.datasets.CIFAR10
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"]
    (folder / files.base_folder).mkdir()
    for seed, name in enumerate(names):
        entry = {"label_names": []} if "meta" in name else {"data": images(6, seed, (3072,)), "labels": [0] * 6}
        (folder / files.base_folder / name).write_bytes(python2_pickle(entry))
    sums = [[name, md5(folder / files.base_folder / name)] for name in names]
    patch.setattr(files, "train_list", sums[:5])
    patch.setattr(files, "test_list", sums[5:6])
    patch.setattr(files, "meta", files.meta | {"md5": sums[6][1]})
    options = ("datamodules.CIFAR10", "--data.data_dir", str(folder), "--data.download", "false")
    return folder / files.base_folder / "data_batch_3", (*IMAGES, *options)


def parquet_files(folder: Path, patch: pytest.MonkeyPatch) -> Prepared:
    path = folder / "pairs.parquet"
    columns = {"sentence1": ["a b"] * 60, "sentence2": ["c d"] * 60, "score": [float(n % 6) for n in range(60)]}
    parquet.write_table(pyarrow.table(columns), path)
    return path, (*PAIRS, "--data.train_file", str(path), "--data.val_size", "10", "--data.test_size", "10")


def csv_files(folder: Path, patch: pytest.MonkeyPatch) -> Prepared:
    path = folder / "pairs.csv"
    write_csv(path, [("sentence1", "sentence2", "score"), *(("a b", "c d", n % 6) for n in range(60))])
    return path, (*PAIRS, "--data.train_file", str(path), "--data.val_size", "10", "--data.test_size", "10")


def bad_byte(raw: bytes, place: float) -> bytes:
    """A byte that no UTF-8 text has, for a format without a checksum."""
    at = int(place * len(raw))
    return raw[:at] + b"\xff" + raw[at + 1 :]


def in_a_row(raw: bytes, place: float) -> bytes:
    """Cut in the middle of a row, where a text file can be told from a shorter one."""
    rows = raw.splitlines(keepends=True)
    return b"".join(rows[: 1 + int(place * (len(rows) - 1))]) + b"a b,c"


FORMATS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], Prepared], tuple[Callable[[bytes, float], bytes], ...]]]
FORMATS = {
    "MNIST": (mnist_files, (cut, flipped)),
    "CIFAR-10": (cifar_files, (cut, flipped)),
    "Parquet": (parquet_files, (cut,)),
    "CSV": (csv_files, (bad_byte, in_a_row)),
}


@pytest.mark.parametrize("each", [1, pytest.param(EACH, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_named(
    kind: str,
    each: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trial: Trial,
) -> None:
    prepare, damages = FORMATS[kind]
    path, options = prepare(tmp_path, monkeypatch)
    whole, chance = path.read_bytes(), random.Random(f"{kind} {each}")
    for number in range(each):
        path.write_bytes(damages[number % len(damages)](whole, chance.random()))
        with trial("a damaged data file"):
            with pytest.raises(SystemExit) as end:
                run_command(main, [*options, "--run_dir", str(tmp_path / "run"), "--overwrite", "true"])
            errors = capsys.readouterr().err
            assert end.value.code in (1, 2), errors
            assert path.name in errors.strip().splitlines()[-1]
            assert "Traceback" not in errors
