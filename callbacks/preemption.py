"""Stop in good order when asked to: finish the batch, write a checkpoint, leave."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class Preempted(Exception):
    """The run was asked to stop and has written ``checkpoint``; ``signum`` is the signal that asked."""

    def __init__(self, signum: int, checkpoint: Path, step: int) -> None:
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after step {step}; continue with --ckpt_path last ({checkpoint})")
        self.signum = signum


class Preemption(Callback):
    """On SIGINT or SIGTERM, every rank stops after the same batch and ``last.ckpt`` holds everything up to it.

    Lightning's own handlers either save in the middle of an optimiser step or not at all. Here the handler only
    sets a flag; the ranks agree on it at the end of each batch. A second Ctrl-C stops at once, without saving.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._leaving = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._asked = self._leaving = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._handle)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore_handlers()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore_handlers()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Half-accumulated gradients are in no checkpoint: wait for the optimiser's step.
        if trainer.fit_loop._should_accumulate() or not (signum := self._agreed(trainer)):
            return
        if not self._leaving:
            trainer.save_checkpoint(last_checkpoint(trainer), weights_only=False)
        self._leaving = signum

    # The batch just saved is logged after on_train_batch_end, so the run is left at whichever hook comes next.
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._leave(trainer)

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._leave(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        if self._leaving:
            raise Preempted(self._leaving, last_checkpoint(trainer), trainer.global_step)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._asked == signal.SIGINT and not self._leaving:
            raise KeyboardInterrupt
        self._asked = signum

    def _agreed(self, trainer: pl.Trainer) -> int:
        if trainer.world_size == 1:
            return self._asked
        flag = torch.tensor(self._asked, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(flag, reduce_op="max"))

    def _restore_handlers(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def last_checkpoint(trainer: pl.Trainer) -> Path:
    """Where a run keeps its newest checkpoint."""
    return Path(trainer.default_root_dir, "checkpoints", "last.ckpt")
