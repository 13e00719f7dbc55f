"""How large the gradient of the diffusion loss is along the noise, while the model trains."""

from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from callbacks.diffusion_diagnostic import evaluating, require_diffuser
from callbacks.elbo_figures import gradient_figure
from callbacks.figures import publish_figure
from callbacks.measure_at_validation import may_write, require_positive
from callbacks.tables import publish_table
from likeness.batch import Batch
from likeness.diffusion.gradient_norms import gradient_norms
from likeness.protocols import Diffuser
from likeness.seeding import mix

GRADIENT_COLUMNS = ("step", "t", "gamma", "squared_gradient_norm")
_GRADIENTS = 3  # sets this noise apart from that of training and evaluation


class GradientNorms(pl.Callback):
    """Draws |grad|^2 of the diffusion loss in bins of time, with the weights that are being trained.

    ``figures/gradient_norms.png``, each also kept under its step, and ``figures/gradient_norms.csv`` with all that
    this process measured. Every bin takes a forward and a backward pass of its own over ``num_samples`` of the
    training batch on each rank, in evaluation mode; ranks' norms are averaged.

    Args:
        every_n_steps: how often, in optimiser steps.
        num_bins: of time.
        num_samples: of the batch, at most all of it.
    """

    def __init__(self, every_n_steps: int = 1000, num_bins: int = 20, num_samples: int = 32) -> None:
        super().__init__()
        for name, value in (("every_n_steps", every_n_steps), ("num_bins", num_bins), ("num_samples", num_samples)):
            require_positive(name, value)
        self.every_n_steps, self.num_bins, self.num_samples = every_n_steps, num_bins, num_samples
        self.rows: list[tuple[object, ...]] = []  # in the order of GRADIENT_COLUMNS
        self._measured_step = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_diffuser(self, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == 0 or step % self.every_n_steps or step == self._measured_step:
            return
        self._measured_step = step
        module = cast(Diffuser, pl_module)
        with evaluating(pl_module), isolate_rng(), trainer.precision_plugin.forward_context():
            norms = self._measure(trainer, module, batch)
        t = (torch.arange(self.num_bins, dtype=module.diffusion.dtype, device=norms.device) + 0.5) / self.num_bins
        with torch.no_grad():
            gamma = module.diffusion.schedule(t)
        if may_write(trainer):
            columns = (t.tolist(), gamma.tolist(), norms.tolist())
            self.rows += [(step, *row) for row in zip(*columns, strict=True)]
            figure = gradient_figure(gamma.float().cpu().numpy(), norms.cpu().numpy(), step)
            publish_figure(trainer, figure, "gradient_norms", keep_history=True)
            publish_table(trainer, "gradient_norms", GRADIENT_COLUMNS, self.rows)

    def _measure(self, trainer: pl.Trainer, module: Diffuser, batch: Batch) -> torch.Tensor:
        images, labels = batch.x[: self.num_samples], batch.y[: self.num_samples]
        seed = mix(module.seed, _GRADIENTS, trainer.global_step, trainer.global_rank)
        known = labels if module.class_conditional else None
        norms = gradient_norms(module.diffusion, images, self.num_bins, seed, known)
        averaged: torch.Tensor = trainer.strategy.reduce(norms, reduce_op="mean")
        return averaged
