"""The record of a run's life in its directory: one entry for each time it was started."""

import json
import os
import platform
import socket
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

import likeness
from callbacks.measure_at_validation import may_write
from callbacks.run.preemption import Preempted
from callbacks.run.run_files import SEGMENTS, note
from likeness.files.writing import replacing

RUNNING = "running"
FINISHED = "finished"
UNKNOWN = "ended without a word: killed, or the machine went down"
Segment = dict[str, Any]


class RunSegments(Callback):
    """Keeps ``segments.json``: host, world size, versions, git state, first and last step, start, end and its reason.

    An entry that still says it is running when the next segment starts is one that was killed. Where the last step had
    been done before, and the start only completes the files, its entry has no steps.
    """

    def __init__(self) -> None:
        self._begun = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        mine = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).name
        if mine != (first := trainer.strategy.broadcast(mine)):
            raise ValueError(
                f"rank {trainer.global_rank} would continue from {mine}, rank 0 from {first}: "
                "the run directory must be on a file system that all nodes share"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end(trainer, FINISHED)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._begun:
            self._begin(trainer)
            self._end(trainer, FINISHED)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        with suppress(OSError):  # a full disk, most likely: the exception is what the user must hear of
            self._end(trainer, _reason(exception))

    def _begin(self, trainer: pl.Trainer) -> None:
        self._begun = True
        if not may_write(trainer):
            return
        segments = [_ended(segment) for segment in read_segments(Path(trainer.default_root_dir))]
        segments.append(_begun(trainer))
        _write(trainer, segments)

    def _end(self, trainer: pl.Trainer, why: str) -> None:
        if trainer.state.fn != TrainerFn.FITTING or not may_write(trainer):
            return
        segments = read_segments(Path(trainer.default_root_dir))
        if segments and segments[-1]["why"] == RUNNING:
            segments[-1] |= {"last_step": trainer.global_step, "end": _now(), "why": why}
            _write(trainer, segments)


def read_segments(run_dir: Path) -> list[Segment]:
    """The entries of a run, oldest first; none where it has left none."""
    path = run_dir / SEGMENTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _reason(exception: BaseException) -> str:
    if isinstance(exception, Preempted):
        return f"stopped by {exception.reason}"
    if isinstance(exception, KeyboardInterrupt):
        return "interrupted"
    return f"{type(exception).__name__}: {exception}"


def _begun(trainer: pl.Trainer) -> Segment:
    return {
        "start": _now(),
        "end": None,
        "why": RUNNING,
        "first_step": trainer.global_step,
        "last_step": None,
        "host": socket.gethostname(),
        "world_size": trainer.world_size,
        "num_nodes": trainer.num_nodes,
        "device": _device(trainer),
        "versions": {
            "likeness": likeness.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch_lightning": pl.__version__,
        },
        "git": _git_state(),
    }


def _ended(segment: Segment) -> Segment:
    return {**segment, "why": UNKNOWN} if segment["why"] == RUNNING else segment


def _device(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _git_state() -> str | None:
    """The commit of the code, with ``+changes`` where files differ from it; None outside a repository."""
    root = Path(__file__).resolve().parents[2]
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root:
            return None  # installed into somebody's environment, which lies in a repository of another project
        commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if status else "")


def _git(root: Path, *command: str) -> str:
    git = ["git", "--no-optional-locks", "-C", str(root)]  # nothing is written into the repository
    answer = subprocess.run([*git, *command], capture_output=True, check=True, timeout=10)
    return os.fsdecode(answer.stdout).strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(trainer: pl.Trainer, segments: list[Segment]) -> None:
    with replacing(note(Path(trainer.default_root_dir, SEGMENTS))) as temporary:
        temporary.write_text(json.dumps(segments, indent=2) + "\n", encoding="utf-8")
