"""Launchers run as a user runs them, and as much of SLURM as they need: srun starts processes, scontrol takes notes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.integration.commands import ROOT, TIMEOUT, Ended, environment

LAUNCHERS = ROOT / "scripts" / "launch"
SRUN = f"""#!/bin/sh
exec {sys.executable} -m tests.integration.srun "$@"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >>"$FAKE_SCONTROL" || exit
if [[ $1 == show ]]; then echo "JobId=$3 JobState=${FAKE_JOB_STATE:-RUNNING}"; fi
"""


class Slurm:
    """A cluster of one machine: jobs of ``nodes`` x ``per_node`` tasks, and what was asked of scontrol."""

    def __init__(self, folder: Path, nodes: int, per_node: int, srun: str = SRUN) -> None:
        self.notes = folder / "scontrol.txt"
        commands = folder / "bin"
        commands.mkdir(parents=True)
        for name, content in (("srun", srun), ("scontrol", SCONTROL)):
            (commands / name).write_text(content)
            (commands / name).chmod(0o755)
        self.job = f"7{free_port(15000, 25000) - 15000:04}"  # Lightning's port: 15000 and the last four digits
        self.environment = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "FAKE_SCONTROL": str(self.notes),
            "SLURM_JOB_ID": self.job,
            "SLURM_JOB_NAME": "likeness",
            "SLURM_NODELIST": "127.0.0.1",
            "SLURM_NNODES": str(nodes),
            "SLURM_NTASKS": str(nodes * per_node),
            "SLURM_NTASKS_PER_NODE": str(per_node),
        }

    def run(self, *options: str, **variables: str) -> Ended:
        """The batch script from the start to the end of one run of the job."""
        return ended(start("slurm.sbatch", *options, **{**self.environment, **variables}))

    @property
    def requests(self) -> list[str]:
        return [note for note in self._noted() if not note.startswith("show ")]

    @property
    def questions(self) -> list[str]:
        return [note for note in self._noted() if note.startswith("show ")]

    def _noted(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []


def start(launcher: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A launcher in a session of its own, with ``variables`` added to its environment."""
    return subprocess.Popen(
        ["bash", str(LAUNCHERS / launcher), *arguments],
        cwd=ROOT,
        env={**environment(), "PYTHON": sys.executable, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # what it started is not in its group: it passes this on
        raise
    return Ended(process.returncode, output)


def signalled(process: subprocess.Popen[str], signum: int, when: Callable[[], bool]) -> Ended:
    """Send ``signum`` to the launcher's group, as a terminal does, once ``when`` holds, and wait for its end."""
    deadline = time.monotonic() + TIMEOUT
    while not when() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signum)
    return ended(process)


def free_port(low: int = 0, high: int = 65536) -> int:
    """A port of this machine that nothing listens on, in [low, high)."""
    candidates: Sequence[int] = range(low, high) if low else (0,)
    for candidate in candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
            return port
    raise OSError(f"no free port in [{low}, {high})")
