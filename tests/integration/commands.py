"""Commands run as a user runs them: from the repository root, in a process and a session of their own.

They are forks of a server that has imported what they need, torchrun and the ranks that it or Lightning starts
included, which spares the many seconds that imports take; everything else is as in a fresh process, ``sys.argv`` and
``__main__`` included. With ``fresh``, a command is started as a shell starts it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.integration import reserves

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
TIMEOUT = 300
PRELOADED = (
    *("scripts.cli.lightning_cli", "datamodules", "callbacks.representation_similarity", "likeness.networks"),
    *("lightning_modules.diffusion", "lightning_modules.sentence_encoder", "lightning_modules.sibling_classifiers"),
    *("lightning_modules.softmax_classifier", "tests.integration.recorder", "sklearn.datasets", "torchvision"),
    *("torch.distributed.run", "scripts.train", "omegaconf", "datamodules.digits", "sklearn.model_selection"),
    *("safetensors.torch", "transformers.modeling_utils"),
)
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__, *PRELOADED])


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status, below 0 the signal that killed it, and everything it printed."""

    status: int
    output: str


class Process:
    """``python ...`` while it runs, where the words begin with ``-m`` and a module or ``-c`` and code."""

    def __init__(
        self,
        *line: str,
        fresh: bool = False,
        prefix: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """``variables`` come on top of ``environment()``; ``before`` is called in the fork ahead of the command.

        ``prefix`` may be nohup, for a process that is ``fresh``.
        """
        descriptor, log = tempfile.mkstemp(prefix="likeness-", suffix=".log")
        self._log = Path(log)
        surroundings = {**environment(), **(variables or {})}
        self._process: BaseProcess | subprocess.Popen[bytes]
        if fresh:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, *line],
                cwd=ROOT,
                env=surroundings,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        else:
            self._process = _SERVER.Process(target=_run, args=(line, log, surroundings, before))
            self._process.start()
        os.close(descriptor)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._status() is None

    @property
    def output(self) -> str:
        return self._log.read_text()

    def signal(self, signum: int, *, group: bool = False) -> None:
        """To the process, or as a terminal's Ctrl-C to all that it has started, too."""
        if self.runs:
            (os.killpg if group else os.kill)(self.pid, signum)

    def left(self) -> list[int]:
        """Processes of its session that still run, itself included."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.pid]

    def wait(self, until: Callable[[], bool], pause: float = 0.005) -> None:
        """Until the condition holds, or the command has ended."""
        deadline = time.monotonic() + TIMEOUT
        while self.runs and not until():
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL, group=True)
                raise TimeoutError(f"waited for {TIMEOUT} s: {self.output}")
            time.sleep(pause)

    def end(self) -> Ended:
        """Wait for the end."""
        self.wait(lambda: False, pause=0.01)
        status = self._status()
        assert status is not None
        ended = Ended(status, self.output)
        self._log.unlink()
        return ended

    def _status(self) -> int | None:
        return self._process.poll() if isinstance(self._process, subprocess.Popen) else self._process.exitcode


class Command(Process):
    """``python -m scripts.<name> ...``; ``launcher`` may be ``-m``, torchrun and its options."""

    def __init__(self, name: str, *arguments: str, launcher: Sequence[str] = (), **how: Any) -> None:
        super().__init__(*launcher, "-m", f"scripts.{name}", *arguments, **how)


def _session(pid: int) -> int | None:
    """The session of a process; None where it has ended."""
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)


def environment() -> dict[str, str]:
    """One thread a process, and Python's own warnings left to the user's settings."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}


def command(name: str, *arguments: str, launcher: Sequence[str] = (), fresh: bool = False) -> Ended:
    """Run ``python -m scripts.<name> ...`` to its end."""
    return Command(name, *arguments, launcher=launcher, fresh=fresh).end()


def interrupted(name: str, *arguments: str, when: Callable[[], bool], signum: int = signal.SIGINT) -> Ended:
    """Run a command and send ``signum`` to its process group, as a terminal's Ctrl-C does, once ``when`` holds."""
    running = Command(name, *arguments)
    running.wait(when)
    running.signal(signum, group=True)
    return running.end()


def _run(line: Sequence[str], log: str, surroundings: dict[str, str], before: Callable[[], None] | None) -> None:
    """Become, in a fork of the server, the process that ``python`` with this line is; this does not return."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(ROOT)
    reserves.keep(reserves.needed_by(line))
    if before is not None:
        before()
    reserves.become(line, surroundings)
