"""Commands run as a user runs them: in a fresh process, from the repository root."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
TIMEOUT = 240


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and everything it printed."""

    status: int
    output: str


def environment() -> dict[str, str]:
    """One thread a process, and Python's own warnings left to the user's settings."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


def command(name: str, *arguments: str, launcher: Sequence[str] = ()) -> Ended:
    """Run ``python -m scripts.<name> ...`` to its end; ``launcher`` may be torchrun and its options."""
    return _end(_start(*launcher, "-m", f"scripts.{name}", *arguments))


def interrupted(name: str, *arguments: str, when: Callable[[], bool], signum: int = signal.SIGINT) -> Ended:
    """Run a command and send ``signum`` to its process group, as a terminal's Ctrl-C does, once ``when`` holds."""
    process = _start("-m", f"scripts.{name}", *arguments)
    deadline = time.monotonic() + TIMEOUT
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signum)
    return _end(process)


def _start(*command: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment(), text=True, start_new_session=True, **pipes
    )


def _end(process: subprocess.Popen[str]) -> Ended:
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ended(process.returncode, output)
