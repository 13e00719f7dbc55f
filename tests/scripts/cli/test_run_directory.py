"""Who may start in a run directory, and what continues from it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks.run.checkpoints import AtomicCheckpointIO
from lightning_modules.checkpoint_files import CheckpointError
from scripts.cli import run_directory


def test_a_directory_with_a_run_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step\n0\n")
    with pytest.raises(FileExistsError, match=r"already holds a run \(metrics.csv\).*--auto_resume.*--overwrite"):
        run_directory.claim(tmp_path, overwrite=False)
    assert (tmp_path / "metrics.csv").read_text() == "step\n0\n"


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "notes.txt").write_text("mine")
    run_directory.claim(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"run_dir .*file/run cannot be written"):
        run_directory.ensure_writable(tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["last", "best", "nowhere.ckpt"])
def test_a_missing_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=name):
        run_directory.checkpoint_path(tmp_path, name)


def _run(folder: Path, *names: str) -> Path:
    for age, name in enumerate(names):
        AtomicCheckpointIO().save_checkpoint({"pytorch-lightning_version": "2", "state_dict": {}}, folder / name)
        os.utime(folder / name, (age, age))
    return folder


def test_the_newest_whole_checkpoint_stands_in_for_a_damaged_one(tmp_path: Path, capsys: Any) -> None:
    folder = _run(tmp_path / "checkpoints", "best.ckpt", "last.ckpt", "previous.ckpt")
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "last.ckpt"
    assert capsys.readouterr().err == ""
    (folder / "last.ckpt").unlink()
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "previous.ckpt"
    assert (
        f"there is no checkpoint {folder}/last.ckpt; continuing from {folder}/previous.ckpt" in capsys.readouterr().err
    )
    (folder / "previous.ckpt").write_bytes(b"PK")
    assert run_directory.checkpoint_path(tmp_path, "last") == folder / "best.ckpt"
    assert "previous.ckpt is refused" in capsys.readouterr().err
    (folder / "best.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*last\.ckpt; (.*(previous|best)\.ckpt is ){2}"):
        run_directory.checkpoint_path(tmp_path, "last")


def test_a_directory_in_use_is_refused_until_its_process_ends(tmp_path: Path) -> None:
    code = (
        f"import pathlib; from scripts.cli import run_directory; run_directory.lock(pathlib.Path({str(tmp_path)!r})); "
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(
            BlockingIOError, match=rf"run_dir .* is in use: process {holder.pid} on .* is training there"
        ):
            run_directory.lock(tmp_path)
        holder.kill()
    run_directory.lock(tmp_path)
