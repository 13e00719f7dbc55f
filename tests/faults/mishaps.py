"""Callbacks that do harm once in the life of a run, at a given step; a file beside the run tells that it is done."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

BALLAST = "ballast"
BLOCK = 4096


class Once(Callback):
    """Harm at the start of the batch after ``step`` steps."""

    def __init__(self, directory: str, step: int) -> None:
        self.directory = Path(directory)
        self.step = step

    def due(self, trainer: pl.Trainer) -> bool:
        done = self.directory.with_name(f"{self.directory.name}-{type(self).__name__}")
        if trainer.global_step != self.step or done.exists():
            return False
        done.touch()
        return True


class FillDisk(Once):
    """Leaves no byte free on the file system of the run directory."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if not self.due(trainer):
            return
        with (self.directory / BALLAST).open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * BLOCK):
                pass


class PoisonWeight(Once):
    """Makes one number of the model's first weight NaN, and so the next loss."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        if self.due(trainer):
            next(pl_module.parameters()).data.view(-1)[0] = float("nan")


class PoisonGradient(Once):
    """Makes one gradient NaN: the loss of the step is finite, what the step makes of the weights is not."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        gradient = next(pl_module.parameters()).grad
        if gradient is not None and self.due(trainer):
            gradient.view(-1)[0] = float("nan")
