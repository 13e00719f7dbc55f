"""Who may start in a run directory, and what continues from it."""

from pathlib import Path

import pytest

from scripts import run_directory


def test_a_directory_with_a_run_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step\n0\n")
    with pytest.raises(FileExistsError, match=r"already holds a run \(metrics.csv\).*--ckpt_path last.*--overwrite"):
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
