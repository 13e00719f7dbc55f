"""Stop in good order when asked to, or when the time is up: finish the batch, write a checkpoint, leave."""

import os
import re
import signal
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from callbacks.run.checkpoints import LastCheckpoint
from lightning_modules.checkpoint_files import LAST

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
OUT_OF_TIME = 75  # EX_TEMPFAIL: nothing is wrong, run the same command again
AGAIN = 0.5  # seconds: a terminal and a launcher that pass on the same Ctrl-C are faster than a second one
_STARTED = time.time()  # when this process did, nearly: what the scheduler's clock counts from
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Preempted(Exception):
    """The run was asked to stop and has written ``checkpoint``; ``status`` is the exit status that says why."""

    def __init__(self, status: int, checkpoint: Path, step: int) -> None:
        self.status = status
        self.reason = "the time budget" if status == OUT_OF_TIME else signal.Signals(status - 128).name
        super().__init__(f"stopped by {self.reason} after step {step}; continue with --ckpt_path last ({checkpoint})")


class Preemption(Callback):
    """On SIGINT, SIGTERM, SIGUSR1, SIGHUP or at the end of a time budget all ranks stop after the same batch.

    ``last.ckpt`` then holds everything up to that batch, and the process ends with 128 + the signal's number, or 75
    for the budget. Lightning's own handlers either save in the middle of an optimiser step or not at all. Here a
    handler only sets a flag, on which the ranks agree at the end of each batch; further signals change nothing. A
    validation that is running, or that follows the batch, is finished first; so is an epoch whose last batch it is.
    Only a second Ctrl-C in the same batch, no sooner than half a second after the first, goes to the handler that was
    there before, which stops at once and without a checkpoint, as with every signal outside of training.
    """

    def __init__(self, stop_after: str | None = None) -> None:
        """``stop_after``: time from the start of the process, or of torchrun.sh, as ``3h50m``, ``90s`` or ``1d12h``.

        Leave the scheduler's limit room for one batch, a validation and the checkpoint. Raises ValueError for
        another notation.
        """
        self._budget = None if stop_after is None else duration(stop_after).total_seconds()
        # torchrun.sh says when it began: processes that it starts again have no more time than the first.
        self._started = float(os.environ.get("LIKENESS_STARTED", _STARTED))
        self._asked = 0  # the exit status that a signal asks for, the highest of several
        self._asked_at: float | None = None
        self._pending: torch.Tensor | None = None  # what the ranks agreed on one batch ago
        self._leaving = 0
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Lightning's handler enters a collective operation in the midst of others, which hangs several ranks.
        trainer._signal_connector.register_signal_handlers = _leave_handlers  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked, self._asked_at, self._leaving, self._pending = 0, None, 0, None
        for signum in SIGNALS:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup wants it
                self._previous[signum] = signal.signal(signum, self._handle)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Preempted):  # else loggers are still to be closed, and signals must not break in
            self._restore_handlers()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Half-accumulated gradients are in no checkpoint: wait for the optimiser's step.
        if trainer.fit_loop._should_accumulate() or self._leaving or not (status := self._agreed(trainer)):
            return
        self._leaving = status
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.due = True

    # The checkpoint is written before these hooks, after all that belongs to the batch.
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._leave(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        if self._leaving:
            raise Preempted(self._leaving, last_checkpoint(trainer), trainer.global_step)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        status = 128 + signum
        again = self._asked_at is not None and time.monotonic() - self._asked_at >= AGAIN
        if signum == signal.SIGINT and self._asked == status and again and not self._leaving:
            self._restore_handlers()
            signal.raise_signal(signum)
            return
        self._asked = max(self._asked, status)
        self._asked_at = self._asked_at or time.monotonic()

    def _status(self) -> int:
        """The exit status that this rank would leave with, 0 if it would go on."""
        out_of_time = self._budget is not None and time.time() - self._started >= self._budget
        return self._asked or (OUT_OF_TIME if out_of_time else 0)

    def _agreed(self, trainer: pl.Trainer) -> int:
        """The largest status of any rank; of several ranks, that of one batch ago, which no GPU has to wait for."""
        if trainer.world_size == 1:
            return self._status()
        before = 0 if self._pending is None else int(self._pending)
        self._pending = torch.full((), self._status(), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(self._pending, op=torch.distributed.ReduceOp.MAX)
        return before

    def _restore_handlers(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def _leave_handlers() -> None:
    """The handlers stay as they are."""


def duration(text: str) -> timedelta:
    """``3h50m`` as a timedelta; days, hours, minutes and seconds, in this order. Raises ValueError otherwise."""
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise ValueError(f"stop_after must be a time like 3h50m, 90s or 1d12h, got {text!r}")
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def last_checkpoint(trainer: pl.Trainer) -> Path:
    """Where a run keeps its newest checkpoint."""
    return Path(trainer.default_root_dir, "checkpoints", LAST)
