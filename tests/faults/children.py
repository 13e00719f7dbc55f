"""Training commands in forked processes: what a fresh process does without the seconds that imports take.

Everything a run needs is imported once by a server that never trains; each command is a fork of it, with its own
memory, files and signals, and can be killed as any process can.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.cli.entry_point import run_command
from scripts.train import main
from tests.integration.commands import Ended

TIMEOUT = 240
CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("tests.faults.children", "lightning_modules", "datamodules", "likeness.networks"),
        *("callbacks.representation_similarity", "tests.integration.recorder", "sklearn.datasets", "torchvision"),
    ]
)


class Child:
    """A training; with ``die_at_change``, one that kills itself before that change of a file in ``run_dir``."""

    def __init__(self, arguments: Sequence[str], run_dir: Path, die_at_change: int = 0) -> None:
        self._log = run_dir.with_name(f"{run_dir.name}-{time.monotonic_ns()}.log")
        self._process = _FORKS.Process(target=_train, args=(list(arguments), self._log, run_dir, die_at_change))
        self._process.start()

    @property
    def runs(self) -> bool:
        return self._process.is_alive()

    def signal(self, signum: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signum)

    def wait(self, until: Callable[[], bool], pause: float = 0.005) -> None:
        """Until the condition holds, or the command has ended."""
        deadline = time.monotonic() + TIMEOUT
        while self.runs and not until():
            assert time.monotonic() < deadline, f"waited for {TIMEOUT} s: {self._log.read_text()}"
            time.sleep(pause)

    def end(self) -> Ended:
        """Wait for the end; a status below 0 is the signal that killed it."""
        self._process.join(TIMEOUT)
        if self.runs:
            self._process.kill()
            raise TimeoutError(self._log.read_text())
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, self._log.read_text())


def _train(arguments: Sequence[str], log: Path, run_dir: Path, die_at_change: int) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    if die_at_change:
        _die_at(die_at_change, str(run_dir))
    run_command(main, arguments)


def _die_at(change: int, folder: str) -> None:
    """Kill this process just before it opens for writing, renames or removes a file in ``folder``, the n-th time."""
    left = change

    def hook(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        opened = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in CHANGING) and str(details[0]).startswith(folder):
            left -= 1
            if not left:
                os.kill(os.getpid(), 9)

    sys.addaudithook(hook)
