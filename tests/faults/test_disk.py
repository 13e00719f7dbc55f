"""A disk that is full, or that cannot be written: one clear line, and nothing lost of what was there."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightning_modules.checkpoint_files import read_checkpoint
from tests.faults.conftest import Trial
from tests.faults.mishaps import BALLAST
from tests.faults.runs import Victim


@contextmanager
def mounted(folder: Path, size: str = "4m") -> Iterator[None]:
    """A file system of its own, in memory, at ``folder``."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_a_classifier_clearly(tmp_path: Path, trial: Trial) -> None:
    require_survival("classifier", 6, tmp_path, trial)


@pytest.mark.long
@pytest.mark.parametrize("model", ["classifier", "siblings", "diffenc"])
@pytest.mark.parametrize("step", [1, 9, 10, 29])
def test_a_full_disk_ends_all_clearly(model: str, step: int, tmp_path: Path, trial: Trial) -> None:
    require_survival(model, step, tmp_path, trial)


def test_a_read_only_directory_is_one_line(tmp_path: Path, trial: Trial) -> None:
    victim = Victim("classifier", tmp_path / "run")
    with mounted(victim.run_dir), trial("a run directory that cannot be written"):
        subprocess.run(["mount", "-o", "remount,ro", str(victim.run_dir)], check=True)
        ended = victim.go()
        assert ended.status == 1, ended.output
        assert ended.output.splitlines() == [
            f"likeness: run directory {victim.run_dir}",
            f"likeness: error: run_dir {victim.run_dir} cannot be written: Read-only file system",
        ]


def require_survival(model: str, step: int, tmp_path: Path, trial: Trial) -> None:
    run_dir = tmp_path / "run"
    fill = ("--trainer.callbacks+", "tests.faults.mishaps.FillDisk", "--trainer.callbacks.step", str(step))
    victim = Victim(model, run_dir, *fill, "--trainer.callbacks.directory", str(run_dir), records=tmp_path / "steps")
    with mounted(run_dir), trial("a full disk"):
        ended = victim.go()
        assert ended.status == 1, ended.output
        errors = [line for line in ended.output.splitlines() if line.startswith("likeness: error")]
        assert len(errors) == 1
        assert "could not be written" in errors[0]
        assert "No space left on device" in errors[0]
        assert "Traceback" not in ended.output
        assert read_checkpoint(victim.last)["global_step"] == step
        (run_dir / BALLAST).unlink()
        victim.require_finished(victim.go())
