"""A command ends in bounded time, with the right status and one line, whatever it is doing when it is asked to."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from scripts.cli.watch import LAUNCHER, RANK_0, SIGNALS
from tests.integration.commands import TIMEOUT, Process

PREAMBLE = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
{first}
from scripts.cli import entry_point, watch

watch.GRACE = 1.0

def wait_inside_c():
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    begun.touch()
    libc.pthread_mutex_lock(mutex)  # no signal handler of Python runs from here on

def wait_in_python():
    begun.touch()
    while True:
        time.sleep(0.01)

def main(arguments):
    {body}

begun = Path(sys.argv.pop(1))
entry_point.run_command(main)
"""
WAITS = ("wait_inside_c", "wait_in_python")


def script(body: str, first: str = "") -> str:
    """A command whose ``main`` is ``body``; ``first`` runs before any import of ours."""
    return PREAMBLE.replace("{first}", first).replace("{body}", body.replace("\n", "\n    "))


class Script:
    """A command that does ``body``, once it has begun; a fork, or with ``prefix`` or ``first`` a process of its own."""

    def __init__(
        self, body: str, folder: Path, variables: dict[str, str], prefix: tuple[str, ...] = (), first: str = ""
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.begun = folder / "begun"
        line = ("-c", script(body, first), str(self.begun))
        self.process = Process(*line, variables=variables, fresh=bool(prefix or first), prefix=prefix)
        self.pid = self.process.pid

    def stays(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        time.sleep(seconds)
        return self.process.runs

    def end(self, *signals: int) -> tuple[int, str]:
        """Send the signals and wait: the status and what was said."""
        self.process.wait(self.begun.exists)
        for signum in signals:
            self.process.signal(signum)
        ended = self.process.end()
        return ended.status, ended.output


def ended(folder: Path, body: str, *signals: int, **variables: str) -> tuple[int, str]:
    return Script(body, folder, variables).end(*signals)


@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_ends_it_with_its_status_and_one_line(wait: str, tmp_path: Path) -> None:
    running = {signum: Script(f"{wait}()", tmp_path / signum.name, {}) for signum in SIGNALS}
    for signum, command in running.items():
        assert command.end(signum) == (128 + signum, f"likeness: stopped by {signum.name}\n")


def test_what_is_left_to_do_is_done_and_once(tmp_path: Path) -> None:
    body = "try:\n    wait_in_python()\nfinally:\n    time.sleep(0.2)\n    print('closed', flush=True)"
    possible = {
        128 + signum: f"closed\nlikeness: stopped by {signum.name}\n" for signum in (signal.SIGTERM, signal.SIGINT)
    }
    status, output = ended(tmp_path, body, signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
    assert possible[status] == output


def test_an_except_clause_does_not_swallow_it(tmp_path: Path) -> None:
    body = "while True:\n    try:\n        wait_in_python()\n    except Exception:\n        pass"
    assert ended(tmp_path, body, signal.SIGUSR1)[0] == 138


def test_an_end_that_hangs_is_ended_with_the_status_that_was_decided(tmp_path: Path) -> None:
    body = "import atexit\natexit.register(wait_inside_c)"
    assert ended(tmp_path, body, signal.SIGTERM) == (0, "")


def test_where_a_callback_stops_the_run_only_a_second_interrupt_counts(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGINT, lambda *_: None)\nwait_inside_c()"
    command = Script(body, tmp_path, {})
    command.process.wait(command.begun.exists)
    command.process.signal(signal.SIGINT)
    assert command.stays(2.5)
    assert command.end(signal.SIGINT) == (130, "likeness: stopped by SIGINT\n")


def test_nohup_keeps_a_lost_terminal_without_effect(tmp_path: Path) -> None:
    command = Script("wait_in_python()", tmp_path, {}, prefix=("nohup",))
    command.process.wait(command.begun.exists)
    command.process.signal(signal.SIGHUP)
    status, output = command.end(signal.SIGTERM)
    assert (status, output.splitlines()[-1]) == (143, "likeness: stopped by SIGTERM")


RANK = "watch.look_after([subprocess.Popen([sys.executable, '-c', {code!r}])])\n"


LOST = [
    ("import os; os.kill(os.getpid(), 9)", 137, r"likeness: error: rank 1 (process *) was killed by SIGKILL"),
    ("import os; os.kill(os.getpid(), 11)", 139, r"likeness: error: rank 1 (process *) was killed by SIGSEGV"),
    ("import sys; sys.exit(1)", 1, "likeness: error: rank 1 (process *) ended with status 1"),
    ("import sys; sys.exit(143)", 143, "likeness: stopped by SIGTERM"),
    ("import os; os.kill(os.getpid(), 15)", 143, "likeness: stopped by SIGTERM"),
]


@pytest.mark.parametrize("then", [*WAITS, "lose", "finish"])
def test_a_lost_rank_ends_rank_0(then: str, tmp_path: Path) -> None:
    after = {"lose": "raise RuntimeError('[gloo/pair.cc] Connection closed by peer [127.0.0.1]:1')", "finish": "pass"}
    bodies = [RANK.format(code=code) + after.get(then, f"{then}()") for code, _, _ in LOST]
    running = [Script(body, tmp_path / str(number), {}) for number, body in enumerate(bodies)]
    for command, (code, status, line) in zip(running, LOST, strict=True):
        found, output = command.end()
        assert found == status, (code, output)
        before, _, rest = line.partition("*")
        assert output.startswith(before), code
        assert output.endswith(f"{rest}\n"), code
        assert output.count("\n") == 1, code


def test_a_rank_that_ends_well_is_not_missed(tmp_path: Path) -> None:
    body = RANK.format(code="pass") + "watch._current.ranks[0].wait()\nwait_in_python()"
    command = Script(body, tmp_path, {})
    command.process.wait(command.begun.exists)
    assert command.stays(2)
    assert command.end(signal.SIGTERM)[0] == 143


@pytest.mark.parametrize("wait", WAITS)
def test_ranks_that_do_not_hear_are_killed_with_rank_0(wait: str, tmp_path: Path) -> None:
    said = f"pathlib.Path({str(tmp_path / 'deaf')!r}).touch()"
    deaf = f"import signal, pathlib, time; signal.signal(15, signal.SIG_IGN); {said}; time.sleep(600)"
    body = RANK.format(code=deaf) + f"(begun.parent / 'rank').write_text(str(watch._current.ranks[0].pid))\n{wait}()"
    command = Script(body, tmp_path, {})
    command.process.wait((tmp_path / "deaf").exists)
    assert command.end(signal.SIGTERM) == (143, "likeness: stopped by SIGTERM\n")
    assert not runs(int((tmp_path / "rank").read_text()))


@pytest.mark.parametrize("wait", WAITS)
def test_a_rank_does_not_outlive_rank_0(wait: str, tmp_path: Path) -> None:
    rank_1 = script(f"{wait}()")
    body = (
        f"os.environ[watch.RANK_0], os.environ['LOCAL_RANK'] = str(os.getpid()), '1'\n"
        f"rank = subprocess.Popen([sys.executable, '-c', {rank_1!r}, str(begun)])\n"
        "(begun.parent / 'rank').write_text(str(rank.pid))\nrank.wait()"
    )
    command = Script(body, tmp_path, {})
    command.process.wait(command.begun.exists)
    command.process.signal(signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT
    while command.process.left():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    status, output = command.end()
    assert status == -signal.SIGKILL
    assert output == f"likeness: error (rank 1): rank 0 (process {command.pid}) is gone\n"


def test_a_rank_that_starts_after_the_death_of_rank_0_ends(tmp_path: Path) -> None:
    status, output = ended(tmp_path, "wait_in_python()", **{RANK_0: "1", "LOCAL_RANK": "1"})
    assert (status, output) == (1, "likeness: error (rank 1): rank 0 (process 1) is gone\n")


@pytest.mark.parametrize("asked_how", [True, False])
def test_ranks_below_torchrun_stop_when_its_script_is_gone(asked_how: bool, tmp_path: Path) -> None:
    over = subprocess.Popen(["true"])
    if asked_how:
        over.wait()  # else a zombie is left of it
    rank = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", LAUNCHER: str(over.pid)}
    assert ended(tmp_path, "wait_in_python()", **rank) == (143, "likeness: stopped by SIGTERM\n")
    over.wait()


def test_a_fork_leaves_signals_to_its_parent(tmp_path: Path) -> None:
    body = (
        "if (worker := os.fork()) == 0:\n    time.sleep(600)\n"
        "for signum in watch.SIGNALS:\n    os.kill(worker, signum)\n"
        "time.sleep(1)\nassert os.waitpid(worker, os.WNOHANG) == (0, 0)\nos.kill(worker, 9)\nos.waitpid(worker, 0)"
    )
    assert ended(tmp_path, body) == (0, "")


def test_a_signal_to_a_fork_at_its_very_beginning_is_not_its_parents(tmp_path: Path) -> None:
    first = "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))"
    body = "if (worker := os.fork()) == 0:\n    os._exit(0)\nassert os.waitpid(worker, 0)[1] == 0\ntime.sleep(2)"
    assert Script(body, tmp_path, {}, first=first).end() == (0, "")


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
