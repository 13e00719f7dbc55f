"""What a command tells torchrun.sh when it leaves, and what it is told when it starts."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.cli import restarts
from scripts.cli.entry_point import Stopped, UsageError, run_command
from scripts.cli.watch import SIGNALS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(restarts.FOLDER, str(tmp_path))
    return tmp_path


def status_of(error: Exception | None) -> object:
    def main(arguments: Sequence[str]) -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as end:
        run_command(main, [])
    return end.value.code


def said(folder: Path) -> dict[str, int]:
    return {path.name: int(path.read_text()) for path in folder.iterdir()}


@pytest.mark.parametrize("status", [75, 130, 138, 143])
def test_a_stopped_run_ends_with_0_and_leaves_its_status(folder: Path, status: int) -> None:
    assert status_of(Stopped("stopped", status)) == 0
    assert said(folder) == {"stopped": status, "asked": status}  # whatever becomes of the other ranks


def test_a_wrong_option_is_not_tried_again(folder: Path) -> None:
    assert status_of(UsageError("wrong")) == 2
    assert said(folder) == {"asked": 2}
    assert status_of(AssertionError("never begun")) == 0
    assert said(folder) == {"asked": 2, "stopped": 2}


def test_an_error_is_tried_again_and_success_says_nothing(folder: Path) -> None:
    assert status_of(RuntimeError("a rank is gone")) == 1
    assert status_of(None) == 0
    assert said(folder) == {}


@pytest.mark.parametrize("signum", SIGNALS)
def test_only_the_launcher_says_that_sigterm_is_a_stop(folder: Path, signum: signal.Signals) -> None:
    """For torchrun sends it to all ranks that are left when one is dead, and means to start them again."""

    def main(arguments: Sequence[str]) -> None:
        signal.raise_signal(signum)

    before = signal.signal(signum, signal.SIG_DFL)  # where the tests run under nohup a lost terminal is ignored
    try:
        with pytest.raises(SystemExit) as end:
            run_command(main, [])
    finally:
        signal.signal(signum, before)
    assert end.value.code == 128 + signum
    assert said(folder) == ({} if signum == signal.SIGTERM else {"asked": 128 + signum})


def test_other_launchers_see_the_status_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(restarts.FOLDER, raising=False)
    assert status_of(Stopped("stopped", 143)) == 143
    assert status_of(UsageError("wrong")) == 2
