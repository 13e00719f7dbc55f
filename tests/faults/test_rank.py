"""One rank of two is killed at a random moment: torchrun starts both again, and the end is the undisturbed run's.

The short run of this is in tests/integration/test_launch.py.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.runs import LINE
from tests.integration.launchers import ended, start
from tests.integration.test_resume import MODELS, RECORDER, Run, assert_same_run

RUNS, KILLS_A_RUN = 4, 5
TIMEOUT = 240


@pytest.mark.long
def test_torchrun_brings_a_killed_rank_back(tmp_path: Path, trial: Trial) -> None:
    whole, chance = tmp_path / "whole", random.Random(20)
    undisturbed = ended(start("torchrun.sh", *line(whole)))
    assert undisturbed.status == 0, undisturbed.output
    for number in range(RUNS):
        run_dir = tmp_path / f"run-{number}"
        launcher = start("torchrun.sh", *line(run_dir))
        killed = 0
        while killed < KILLS_A_RUN and (pids := two_ranks(run_dir, launcher)):
            if killed:  # the first kill of a run comes while it starts, the others while it trains
                wait_for_steps(run_dir, launcher, taken(run_dir) + chance.randint(1, 4))
            time.sleep(chance.uniform(0, 0.1 if killed else 4))
            killed += kill(pids[chance.randint(0, 1)])
        with trial("one rank of two killed", times=killed):
            finished = ended(launcher)
            assert finished.status == 0, finished.output
            assert_same_run(Run(run_dir), Run(whole), ranks=2)


def line(run_dir: Path) -> tuple[str, ...]:
    options = (*MODELS["classifier"], *LINE[: LINE.index("--auto_resume")], *LINE[LINE.index("--auto_resume") + 2 :])
    recorder = ("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(run_dir))
    launched = ("--cpus", "2", "--max_restarts", str(2 * KILLS_A_RUN), "--")
    return (*launched, *options, *recorder, "--run_dir", str(run_dir))


def two_ranks(run_dir: Path, launcher: subprocess.Popen[str]) -> list[int]:
    """The processes that train in ``run_dir``, by rank, once both have begun; none where the launcher has ended."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and launcher.poll() is None:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        found = {rank: pid for pid in pids if (rank := rank_of(pid, run_dir))}
        if found.keys() == {"0", "1"}:
            return [found["0"], found["1"]]
        time.sleep(0.05)
    return []


def wait_for_steps(run_dir: Path, launcher: subprocess.Popen[str], steps: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while taken(run_dir) < steps and time.monotonic() < deadline and launcher.poll() is None:
        time.sleep(0.005)


def taken(run_dir: Path) -> int:
    """The training steps that rank 0 has written down, repeated ones included."""
    record = run_dir / "steps-0.jsonl"
    return len(record.read_text().splitlines()) if record.exists() else 0


def rank_of(pid: int, run_dir: Path) -> str | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    except OSError:
        return None
    if str(run_dir) not in command or "torch.distributed.run" in command:
        return None
    return next((entry.removeprefix("RANK=") for entry in environment if entry.startswith("RANK=")), None)


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
