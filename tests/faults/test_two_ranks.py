"""Two ranks that Lightning starts: every signal, at every moment, to one or to both ends both in time, and rightly.

The run then goes on, and ends as the undisturbed one. The same below torchrun and SLURM is in test_launchers.py.
"""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Trial
from tests.faults.moments import MOMENTS
from tests.integration.commands import Command, Ended
from tests.integration.test_resume import BASE, EPOCHS, MODELS, RECORDER, Run, assert_same_run

LIMIT = 30  # seconds, as docs/how-to/clusters.md promises; the tests allow a busy machine five times as many
SLACK = 5
IN_TRAINING = ("step", "validation", "figures", "save")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
TARGETS = ((0,), (1,), (0, 1))
TWO = ("--trainer.strategy", "ddp", "--trainer.devices", "2", "--auto_resume", "true", "--allow_changes", "true")


class Pair:
    """A run of two ranks that wait at ``moment``, both or only ``rank``, which leaves the other in a collective."""

    def __init__(self, folder: Path, moment: str, rank: int = -1) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.waiting = [0, 1] if rank == -1 else [rank]
        hold = ("tests.faults.moments.Hold", "--trainer.callbacks.directory", str(folder))
        self.line = (
            *("fit", *MODELS["classifier"], *BASE, *TWO, "--trainer.max_epochs", str(EPOCHS)),
            *("--run_dir", str(self.run_dir), "--trainer.num_sanity_val_steps", "2"),
            *("--trainer.callbacks+", RECORDER, "--trainer.callbacks.directory", str(self.run_dir)),
            *("--trainer.callbacks+", *hold, "--trainer.callbacks.moment", moment),
            *("--trainer.callbacks.rank", str(rank)),
        )

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    def start(self) -> Command:
        """The command, once the ranks wait."""
        self.hold.touch()
        command = Command("train", *self.line)
        files = [*(self.folder / f"at-{rank}" for rank in self.waiting), *map(self.pid_file, (0, 1))]
        command.wait(lambda: all(file.exists() for file in files), pause=0.02)
        assert command.runs, command.output
        return command

    def pid_file(self, rank: int) -> Path:
        return self.folder / f"pid-{rank}"

    def strike(self, ranks: tuple[int, ...], signum: int, let_go: bool) -> Ended:
        """The signal to the ranks, which wait on unless ``let_go``; all processes must end in time."""
        command = self.start()
        for rank in ranks:
            os.kill(int(self.pid_file(rank).read_text()), signum)
        if let_go:
            self.hold.unlink()
        deadline = time.monotonic() + SLACK * LIMIT
        while left := command.left():
            if time.monotonic() > deadline:
                command.signal(signal.SIGKILL, group=True)
                raise AssertionError(f"{left} still run after {SLACK * LIMIT} s: {command.output}")
            time.sleep(0.05)
        return command.end()

    def go_on(self) -> None:
        """Continue to the end, without a disturbance."""
        self.hold.unlink(missing_ok=True)
        finished = Command("train", *self.line).end()
        assert finished.status == 0, finished.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run."""
    pair = Pair(tmp_path_factory.mktemp("whole"), "never")
    pair.go_on()
    return Run(pair.run_dir)


def said(ended: Ended) -> list[str]:
    """The lines of the project itself, after the first, which names the run directory."""
    assert "Traceback" not in ended.output
    assert "terminate called" not in ended.output
    return [line for line in ended.output.splitlines() if line.startswith("likeness: ")][1:]


@pytest.mark.parametrize(
    ("moment", "ranks", "signum"),
    [
        ("setup", (0,), signal.SIGINT),
        pytest.param("sanity check", (1,), signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("sanity check", (0, 1), signal.SIGTERM, marks=pytest.mark.long),
        ("validation", (1,), signal.SIGUSR1),
        pytest.param("teardown", (0,), signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_a_signal_ends_both(
    moment: str, ranks: tuple[int, ...], signum: signal.Signals, tmp_path: Path, trial: Trial
) -> None:
    require_stop(Pair(tmp_path, moment), ranks, signum, trial)


@pytest.mark.long
def test_a_signal_to_a_rank_that_waits_for_the_other_ends_both(tmp_path: Path, trial: Trial) -> None:
    require_stop(Pair(tmp_path, "sanity check", rank=0), (1,), signal.SIGTERM, trial)


@pytest.mark.long
@pytest.mark.parametrize("waiting", [-1, 0, 1])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("ranks", TARGETS)
@pytest.mark.parametrize("signum", SIGNALS)
def test_every_signal_at_every_moment_ends_both(
    moment: str, waiting: int, ranks: tuple[int, ...], signum: signal.Signals, tmp_path: Path, trial: Trial
) -> None:
    require_stop(Pair(tmp_path, moment, waiting), ranks, signum, trial)


def require_stop(pair: Pair, ranks: tuple[int, ...], signum: signal.Signals, trial: Trial) -> None:
    moment = pair.line[pair.line.index("--trainer.callbacks.moment") + 1]
    with trial(f"{signum.name} to {len(ranks)} of two ranks, {moment}"):
        ended = pair.strike(ranks, signum, let_go=moment in (*IN_TRAINING, "last batch"))
        if moment == "last batch":  # it is over before the ranks can agree
            assert (ended.status, said(ended)) == (0, [])
            return
        assert ended.status == 128 + signum, ended.output
        (line,) = said(ended)
        assert line.startswith(f"likeness: stopped by {signum.name}")
        assert ("continue with --ckpt_path last" in line) == (moment in IN_TRAINING)


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_killed_rank_takes_the_other_along(rank: int, tmp_path: Path, whole: Run, trial: Trial) -> None:
    require_end(Pair(tmp_path, "step", rank=1 - rank), rank, whole, trial)


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("waiting", [-1, 0, 1])
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_rank_killed_at_any_moment_takes_the_other_along(
    moment: str, waiting: int, rank: int, tmp_path: Path, whole: Run, trial: Trial
) -> None:
    require_end(Pair(tmp_path, moment, waiting), rank, whole, trial)


def require_end(pair: Pair, rank: int, whole: Run, trial: Trial) -> None:
    with trial(f"rank {rank} of two killed"):
        ended = pair.strike((rank,), signal.SIGKILL, let_go=False)
        process = f"(process {pair.pid_file(rank).read_text()})"
        if rank == 0:
            assert ended.status == -signal.SIGKILL
            assert f"likeness: error (rank 1): rank 0 {process} is gone" in ended.output
        else:
            assert ended.status == 128 + signal.SIGKILL
            assert said(ended) == [f"likeness: error: rank 1 {process} was killed by SIGKILL"]
        pair.go_on()
        assert_same_run(Run(pair.run_dir), whole, ranks=2)
