"""Launchers with several processes: stopped, killed and started again, a run ends as the undisturbed one.

More of this is in tests/faults/test_launchers.py.
"""

import os
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest

from callbacks.run.segments import read_segments
from scripts.cli.watch import LOOK
from tests.integration.commands import TIMEOUT, command
from tests.integration.launchers import Slurm, ended, start
from tests.integration.preloaded import python
from tests.integration.test_resume import BASE, EPOCHS, MODELS, RECORDER, Run, assert_same_run
from tests.integration.test_torchrun import TWO

MISHAP = "tests.integration.mishap.Mishap"


def options(run_dir: Path, *, wait_at_step: int = -1) -> tuple[str, ...]:
    """What follows ``--`` in a launcher's line."""
    return (
        *("--", *MODELS["classifier"], *BASE, "--run_dir", str(run_dir), "--trainer.max_epochs", str(EPOCHS)),
        *("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(run_dir)),
        *("--trainer.callbacks.wait_at_step", str(wait_at_step)),
    )


def mishap(run_dir: Path, signum: int, step: int, rank: int = -1) -> tuple[str, ...]:
    return (
        *("--trainer.callbacks+", MISHAP, "--trainer.callbacks.directory", str(run_dir)),
        *("--trainer.callbacks.signum", str(int(signum)), "--trainer.callbacks.step", str(step)),
        *("--trainer.callbacks.rank", str(rank)),
    )


def reasons(run_dir: Path) -> list[str]:
    """Why each segment of a run ended."""
    return [segment["why"] for segment in read_segments(run_dir)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run of two processes."""
    run_dir = tmp_path_factory.mktemp("whole")
    finished = command("train", "fit", *options(run_dir)[1:], launcher=TWO)
    assert finished.status == 0, finished.output
    (segment,) = read_segments(run_dir)
    assert (segment["world_size"], segment["why"]) == (2, "finished")
    return Run(run_dir)


@pytest.mark.long
def test_torchrun_starts_again_after_a_killed_rank(tmp_path: Path, whole: Run) -> None:
    run_dir = tmp_path / "run"
    line = ("--cpus", "2", *options(run_dir), *mishap(run_dir, signal.SIGKILL, step=13, rank=1))
    finished = ended(start("torchrun.sh", *line, PYTHON=python(tmp_path)))
    assert finished.status == 0, finished.output
    assert_same_run(Run(run_dir), whole, ranks=2)
    assert [segment["first_step"] for segment in read_segments(run_dir)] == [0, 10]


@pytest.mark.parametrize("killed", [pytest.param(name, marks=pytest.mark.long) for name in ("torchrun", "its script")])
def test_nothing_is_left_of_a_killed_launcher(killed: str, tmp_path: Path, whole: Run) -> None:
    run_dir, mark = tmp_path / "run", {"LIKENESS_TEST": uuid4().hex}
    line = ("--cpus", "2", *options(run_dir, wait_at_step=13), "--allow_changes", "true")
    run_dir.mkdir()
    (run_dir / "hold").touch()  # or a fast run ends before its processes look for the launcher
    launcher = start("torchrun.sh", *line, PYTHON=python(tmp_path), **mark)
    deadline = time.monotonic() + TIMEOUT
    while not (run_dir / "waiting").exists():
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (torchrun,) = children(launcher.pid)
    os.kill(torchrun if killed == "torchrun" else launcher.pid, signal.SIGKILL)
    time.sleep(2 * LOOK)
    (run_dir / "hold").unlink()
    output = ended(launcher)
    assert "continue with --ckpt_path last" in output.output  # its processes wrote the last of it
    if killed == "torchrun":
        assert output.status == 143
        assert "likeness: error: torchrun was killed by SIGKILL" in output.output
    while left := marked(**mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert reasons(run_dir) == ["stopped by SIGTERM"]
    finished = command("train", "fit", "--auto_resume", "true", *line[3:], launcher=TWO)
    assert finished.status == 0, finished.output
    assert_same_run(Run(run_dir), whole, ranks=2)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def marked(**variables: str) -> list[int]:
    """Processes with these variables in their environment."""
    ((name, value),) = variables.items()
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if f"{name}={value}" in _environment(pid)]


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        return []


@pytest.mark.long
def test_slurm_puts_a_job_back_once_and_it_goes_on(tmp_path: Path, whole: Run) -> None:
    slurm, run_dir = Slurm(tmp_path, nodes=2, per_node=1), tmp_path / "run"
    line = (*options(run_dir), *mishap(run_dir, signal.SIGUSR1, step=7))
    first = slurm.run(*line)
    assert first.status == 138, first.output
    assert slurm.requests == [f"requeue {slurm.job}"]
    second = slurm.run(*line, SLURM_RESTART_COUNT="1")
    assert second.status == 0, second.output
    assert slurm.requests == [f"requeue {slurm.job}"]
    assert_same_run(Run(run_dir), whole, ranks=2)
    assert reasons(run_dir) == ["stopped by SIGUSR1", "finished"]
    assert {segment["num_nodes"] for segment in read_segments(run_dir)} == {2}
