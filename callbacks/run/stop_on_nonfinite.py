"""A run whose loss is not finite ends there, with its last good checkpoint intact."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from likeness.checks import require_positive
from likeness.diffusion.elbo import AnyTerms


class NonFiniteError(ArithmeticError):
    """A loss or a weight became NaN or infinite."""


class StopOnNonFinite(Callback):
    """Raise ``NonFiniteError`` naming the tensor, the step and the value.

    Of a diffusion model, whose training step answers its ELBO terms and times, also which terms are not finite and at
    what time: that of the first sample that is not finite, or of the largest loss where each by itself is.

    On a GPU reading the loss waits for the device, so there it is read every ``every_n_steps``; weights and loss
    are always read before a validation and before a checkpoint is written, which keeps a poisoned state from
    replacing a good one.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        require_positive(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._loss: Tensor | None = None
        self._terms: AnyTerms | None = None
        self._t: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._loss = loss.detach() if isinstance(loss, Tensor) else None
        known = outputs if isinstance(outputs, Mapping) and "terms" in outputs and "t" in outputs else {}
        self._terms, self._t = known.get("terms"), known.get("t")
        if pl_module.device.type == "cpu" or batch_idx % self.every_n_steps == 0:
            self._check_loss(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._check_loss(trainer)
        _check_weights(trainer, checkpoint["state_dict"])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Before any measure of the validation stumbles over them, without knowing where they come from.
        if trainer.state.fn == TrainerFn.FITTING:
            self._check_loss(trainer)
            _check_weights(trainer, pl_module.state_dict())

    def _check_loss(self, trainer: pl.Trainer) -> None:
        if self._loss is not None and not math.isfinite(value := self._loss.item()):
            cause = "" if self._terms is None or self._t is None else f": {worst_term(self._terms, self._t)}"
            raise NonFiniteError(f"train/loss is {value} at step {trainer.global_step}{cause}")


def _check_weights(trainer: pl.Trainer, weights: Mapping[str, Tensor]) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise NonFiniteError(f"weight {name} is not finite at step {trainer.global_step}: no checkpoint written")


def worst_term(terms: AnyTerms, t: Tensor) -> str:
    """Names the terms [B] that are not finite, and the worst of the times [B] at which they were estimated."""
    losses = {name: term.detach().double() for name, term in terms._asdict().items()}
    wrong = [name for name, loss in losses.items() if not loss.isfinite().all()]
    total = torch.stack([losses[name] for name in wrong or losses]).sum(0)
    worst = int(total.nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf).argmax())
    where = f"at t = {float(t[worst]):.4f}"
    if wrong:
        verb = "term is" if len(wrong) == 1 else "terms are"
        return f"the {' and '.join(wrong)} {verb} not finite, first {where}"
    largest = max(losses, key=lambda name: float(losses[name][worst]))
    return f"each term is finite, the largest is the {largest} term, {float(losses[largest][worst]):.3g} nats {where}"
