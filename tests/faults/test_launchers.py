"""Launchers stopped by every signal, on one machine and on two, and what they do not start again.

Killed ranks are in tests/faults/test_rank.py, the short run of all this in tests/integration/test_launch.py.
"""

import signal
import time
from itertools import chain
from pathlib import Path

import pytest

from callbacks.run.segments import read_segments
from tests.faults.conftest import Trial
from tests.integration.launchers import Slurm, ended, free_port, signalled, start
from tests.integration.recorder import steps
from tests.integration.test_launch import mishap, options, reasons
from tests.integration.test_resume import EPOCHS, STEPS_PER_EPOCH, Run, assert_same_run

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run of two processes."""
    run_dir = tmp_path_factory.mktemp("whole")
    finished = ended(start("local.sh", "--cpus", "2", *options(run_dir)))
    assert finished.status == 0, finished.output
    return Run(run_dir)


@pytest.mark.parametrize("launcher", ["local.sh", "torchrun.sh"])
def test_each_signal_stops_and_the_same_line_goes_on(launcher: str, tmp_path: Path, whole: Run, trial: Trial) -> None:
    run_dir = tmp_path / "run"
    signals = {3: signal.SIGTERM, 13: signal.SIGUSR1, 23: signal.SIGINT}
    for step, signum in signals.items():
        with trial(f"a signal to {launcher}, two ranks"):
            (run_dir / "waiting").unlink(missing_ok=True)
            process = start(launcher, "--cpus", "2", *options(run_dir, wait_at_step=step), "--allow_changes", "true")
            stopped = signalled(process, signum, when=(run_dir / "waiting").exists)
            assert stopped.status == 128 + signum, stopped.output
            assert stopped.output.count("continue with --ckpt_path last") == 1
    finished = ended(start(launcher, "--cpus", "2", *options(run_dir), "--allow_changes", "true"))
    assert finished.status == 0, finished.output
    assert_same_run(Run(run_dir), whole, ranks=2)
    assert reasons(run_dir) == [*(f"stopped by {signum.name}" for signum in signals.values()), "finished"]


def test_two_machines_restart_and_stop_together(tmp_path: Path, whole: Run, trial: Trial) -> None:
    run_dir = tmp_path / "run"
    line = (*options(run_dir, wait_at_step=23), *mishap(run_dir, signal.SIGKILL, step=13, rank=1))
    with trial("a rank killed on one of two machines"):
        machine = ("--nodes", "2", "--master", f"localhost:{free_port()}", "--cpus", "1", *line)
        first, second = (start("torchrun.sh", *machine) for _ in range(2))
        stopped = signalled(first, signal.SIGTERM, when=(run_dir / "waiting").exists)  # it alone is told
        assert [stopped.status, ended(second).status] == [143, 143], stopped.output
        again = ("--nodes", "2", "--master", f"localhost:{free_port()}", "--cpus", "1", *line)
        machines = [ended(process) for process in [start("torchrun.sh", *again) for _ in range(2)]]
        assert [machine.status for machine in machines] == [0, 0], machines
        assert_same_run(Run(run_dir), whole, ranks=2)
        assert reasons(run_dir)[-2:] == ["stopped by SIGTERM", "finished"]
        assert {(s["world_size"], s["num_nodes"]) for s in read_segments(run_dir)} == {(2, 2)}


def test_a_slurm_job_comes_back_after_sigterm_and_out_of_time(tmp_path: Path, whole: Run, trial: Trial) -> None:
    slurm, run_dir = Slurm(tmp_path, nodes=1, per_node=2), tmp_path / "run"
    line = (*options(run_dir), *mishap(run_dir, signal.SIGTERM, step=7, rank=1))  # one task is told, all stop
    with trial("a SLURM job stopped", times=2):
        assert slurm.run(*line).status == 143
        assert slurm.requests == [f"requeue {slurm.job}"]
        assert slurm.run(*line, "--stop_after", "1s").status == 75
        assert slurm.requests == [f"requeue {slurm.job}"] * 2
        finished = slurm.run(*line)
        assert finished.status == 0, finished.output
        assert slurm.requests == [f"requeue {slurm.job}"] * 2
        assert_same_run(Run(run_dir), whole, ranks=2)
        assert reasons(run_dir) == ["stopped by SIGTERM", "stopped by the time budget", "finished"]


def test_four_processes_go_on_with_the_batches_of_two(tmp_path: Path, whole: Run) -> None:
    run_dir = tmp_path / "run"
    line = (*options(run_dir, wait_at_step=5), "--allow_changes", "true")
    stopped = signalled(start("torchrun.sh", "--cpus", "2", *line), signal.SIGTERM, when=(run_dir / "waiting").exists)
    assert stopped.status == 143, stopped.output
    finished = ended(start("torchrun.sh", "--cpus", "4", *line))
    assert finished.status == 0, finished.output
    together = [steps(run_dir, rank) for rank in range(4)]
    for step in range(1, EPOCHS * STEPS_PER_EPOCH + 1):
        shares = [rank[step]["ids"] for rank in together if step in rank]
        assert len(shares) == (4 if step in together[3] else 2)
        assert len({len(share) for share in shares}) == 1
        expected = [rank[step]["ids"] for rank in (steps(whole.directory, 0), steps(whole.directory, 1))]
        assert sorted(chain(*shares)) == sorted(chain(*expected))
    assert 5 < min(together[3]) <= STEPS_PER_EPOCH  # in the middle of the epoch


@pytest.mark.parametrize(
    ("mistake", "named"),
    [(("--data.batch_size", "9"), "does not divide by the world size 2"), (("--model.widht", "3"), "widht")],
)
def test_a_wrong_option_is_not_started_again(
    mistake: tuple[str, str], named: str, tmp_path: Path, trial: Trial
) -> None:
    with trial("a wrong option under torchrun"):
        refused = ended(start("torchrun.sh", "--cpus", "2", *options(tmp_path / "run"), *mistake))
        assert refused.status == 2, refused.output
        assert 1 <= refused.output.count(named) <= 2  # by each rank, once


def test_a_signal_before_training_is_not_answered_by_a_restart(tmp_path: Path, trial: Trial) -> None:
    run_dir = tmp_path / "run"
    with trial("a signal to torchrun.sh before training"):
        process = start("torchrun.sh", "--cpus", "2", *options(run_dir))
        begun = time.monotonic()
        stopped = signalled(process, signal.SIGTERM, when=lambda: time.monotonic() - begun > 6)
        assert stopped.status == 143, stopped.output
        assert not (run_dir / "checkpoints").exists()


def test_a_killed_rank_ends_local_with_an_error(tmp_path: Path, whole: Run, trial: Trial) -> None:
    run_dir = tmp_path / "run"
    line = ("--cpus", "2", *options(run_dir), *mishap(run_dir, signal.SIGKILL, step=13, rank=1))
    with trial("one rank of local.sh killed"):
        assert ended(start("local.sh", *line)).status not in (0, 75, 130, 138, 143)
        finished = ended(start("local.sh", *line))
        assert finished.status == 0, finished.output
        assert_same_run(Run(run_dir), whole, ranks=2)
