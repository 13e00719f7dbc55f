"""Where along the noise the diffusion loss is, and how uncertain it is there."""

from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.diffusion_diagnostic import DiffusionDiagnostic
from callbacks.elbo_figures import loss_figure
from callbacks.elbo_metrics import GammaBins, on_device
from callbacks.figures import publish_figure
from callbacks.measure_at_validation import may_write
from callbacks.tables import publish_table
from likeness.batch import Batch
from likeness.diffusion.elbo import ElboTerms, bits_per_dim
from likeness.diffusion.loss_by_gamma import LossByGamma as BinnedLoss
from likeness.diffusion.loss_by_gamma import gamma_edges
from likeness.protocols import Diffuser

BIN_COLUMNS = ("step", "split", "gamma", "samples", "loss", "variance", "share", "integrand", "integrand_se")


class LossByGamma(DiffusionDiagnostic):
    """Draws the diffusion loss, its variance and its share of the total in bins of gamma = -log SNR.

    ``figures/loss_by_gamma.png`` has the integrand too, the loss per unit of gamma, whose area is the diffusion term;
    ``figures/loss_by_gamma.csv`` has the numbers. Training losses are those of the batches since the last validation,
    with the weights and dropout of each step; validation losses are those of all samples. Both come from what the
    training computes anyway.

    Args:
        num_bins: of gamma, between the ends of the schedule.
        every_n_validations: how often the figure is drawn in training, each kept under its step; none is at the end
            of training alone.
    """

    prefix: ClassVar[str] = "loss_by_gamma"

    def __init__(self, num_bins: int = 30, every_n_validations: int | None = None) -> None:
        super().__init__(every_n_validations)
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}")
        self.num_bins = num_bins
        self.values: dict[str, BinnedLoss] = {}  # what was measured last, by split
        self._bins: dict[str, GammaBins] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._bins = {split: on_device(GammaBins(self.num_bins), pl_module.device) for split in ("train", "val")}
        self._restart("train", pl_module)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        with self._clock():
            self._add("train", pl_module, outputs, batch)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._bins and batch_idx == 0 and dataloader_idx == 0:
            self._restart("val", pl_module)
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._bins and dataloader_idx == 0:
            with self._clock():
                self._add("val", pl_module, outputs, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._bins and not trainer.sanity_checking:
            with self._clock():
                self.values = {split: bins.compute() for split, bins in self._bins.items() if bins.update_called}
                self._restart("train", pl_module)
                if self._due:
                    self._publish(trainer, final=False)
        super().on_validation_epoch_end(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if final:
            self._publish(trainer, final=True)

    def _restart(self, split: str, pl_module: pl.LightningModule) -> None:
        """Empty the bins, between the ends that the schedule has now."""
        model, bins = cast(Diffuser, pl_module).diffusion, self._bins[split]
        bins.reset()
        with torch.no_grad():
            ends = model.schedule.ends(torch.empty((), dtype=model.dtype, device=pl_module.device))
            bins.edges = gamma_edges(*ends, self.num_bins)

    def _add(self, split: str, pl_module: pl.LightningModule, outputs: Any, batch: Batch) -> None:
        terms: ElboTerms = outputs["terms"]
        t: Tensor = outputs["t"].flatten()
        gamma, dgamma_dt = cast(Diffuser, pl_module).diffusion.schedule.with_derivative(t)
        self._bins[split].update(gamma, dgamma_dt, bits_per_dim(terms.diffusion.flatten(), batch.x[0].numel()))

    def _publish(self, trainer: pl.Trainer, *, final: bool) -> None:
        known = {split: bins for split, bins in self.values.items() if bins.samples.any()}
        if not known or not may_write(trainer):
            return
        publish_figure(trainer, loss_figure(known), "loss_by_gamma", keep_history=not final)
        rows = [row for split, bins in known.items() for row in _rows(trainer.global_step, split, bins)]
        publish_table(trainer, "loss_by_gamma", BIN_COLUMNS, rows)


def _rows(step: int, split: str, bins: BinnedLoss) -> list[tuple[object, ...]]:
    columns = (
        bins.centre,
        bins.samples.long(),
        bins.loss,
        bins.variance,
        bins.share,
        bins.integrand,
        bins.integrand_se,
    )
    return [(step, split, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]
