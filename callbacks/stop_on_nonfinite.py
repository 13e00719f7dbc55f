"""A run whose loss is not finite ends there, with its last good checkpoint intact."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


class NonFiniteError(ArithmeticError):
    """A loss or a weight became NaN or infinite."""


class StopOnNonFinite(Callback):
    """Raise ``NonFiniteError`` naming the tensor, the step and the value.

    On a GPU reading the loss waits for the device, so there it is read every ``every_n_steps``; weights and loss
    are always read before a checkpoint is written, which keeps a poisoned state from replacing a good one.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._loss: torch.Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._loss = loss.detach() if isinstance(loss, torch.Tensor) else None
        if pl_module.device.type == "cpu" or batch_idx % self.every_n_steps == 0:
            self._check_loss(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check_loss(trainer)
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise NonFiniteError(
                    f"weight {name} is not finite at step {trainer.global_step}: no checkpoint written"
                )

    def _check_loss(self, trainer: pl.Trainer) -> None:
        if self._loss is not None and not math.isfinite(value := self._loss.item()):
            raise NonFiniteError(f"train/loss is {value} at step {trainer.global_step}")
