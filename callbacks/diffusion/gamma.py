"""Looks along the noise: where the diffusion loss and its gradient are, the schedule, the variances of the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from callbacks.diffusion.base import DiffusionDiagnostic, evaluating, require_diffuser, spread_samples, with_noise
from callbacks.measure_at_validation import may_write
from callbacks.run.publishing import publish_figure, publish_table
from likeness.batch import Batch
from likeness.checks import require_positive
from likeness.diffusion.diagnostics.bound_profiles import (
    GammaProfile,
    RatioProfile,
    VolatilityProfile,
    gamma_edges,
    ratio_profile,
    volatility_profile,
)
from likeness.diffusion.diagnostics.by_depth import gradient_norms
from likeness.diffusion.diagnostics.metric import GammaBins, on_device
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.encoders import IdentityEncoder
from likeness.diffusion.process import mean_over_dimensions
from likeness.figures.diffusion import (
    gradient_figure,
    loss_figure,
    ratio_figure,
    schedule_figure,
    volatility_figure,
)
from likeness.protocols import Diffuser
from likeness.seeding import mix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BIN_COLUMNS = ("step", "split", "gamma", "samples", "loss", "variance", "share", "integrand", "integrand_se")
GRADIENT_COLUMNS = ("step", "t", "gamma", "squared_gradient_norm")
POINTS = 257  # of the schedule's curve
_GRADIENTS = 3  # sets this noise apart from that of training and evaluation


class LossByGamma(DiffusionDiagnostic):
    """Draws the diffusion loss, its variance and its share of the total in bins of gamma = -log SNR.

    ``figures/loss_by_gamma.png`` has the integrand too, the loss per unit of gamma, whose area is the diffusion term;
    ``figures/loss_by_gamma.csv`` has the numbers. Training losses are those of the batches since the last validation,
    with the weights and dropout of each step; validation losses are those of all samples. Both come from what the
    training computes anyway. Of a multivariate schedule gamma is its mean over dimensions, here and below.

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
        self.values: dict[str, GammaProfile] = {}  # what was measured last, by split
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
        t, rate = (outputs[name].flatten() for name in ("t", "rate"))
        gamma, dgamma_dt = cast(Diffuser, pl_module).diffusion.schedule.of_no_sample().with_derivative(t)
        self._bins[split].update(gamma, dgamma_dt, bits_per_dim(rate, batch.x[0].numel()))

    def _publish(self, trainer: pl.Trainer, *, final: bool) -> None:
        known = {split: bins for split, bins in self.values.items() if bins.samples.any()}
        if not known or not may_write(trainer):
            return
        publish_figure(trainer, loss_figure(known), "loss_by_gamma", keep_history=not final)
        rows = [row for split, bins in known.items() for row in _rows(trainer.global_step, split, bins)]
        publish_table(trainer, "loss_by_gamma", BIN_COLUMNS, rows)


def _rows(step: int, split: str, bins: GammaProfile) -> list[tuple[object, ...]]:
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
        require_positive(every_n_steps=every_n_steps, num_bins=num_bins, num_samples=num_samples)
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
            gamma = mean_over_dimensions(module.diffusion.schedule.of_no_sample()(t))
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


class ScheduleDiagnostics(DiffusionDiagnostic):
    """Draws gamma(t), its derivative and the signal-to-noise ratio, and what the variances of the steps could be.

    ``figures/schedule.png``, of a multivariate one its mean and range over dimensions. In finite depth
    ``figures/variance_ratio.{png,csv}``: rho = log(sigma_P^2 / sigma_Q^2) of the model (0 without a ratio) next to the
    optimum log(1 + 2 E[q] / d), with q measured on training samples. Where the encoder moves the mean, or there is a
    volatility, ``figures/volatility.{png,csv}``: the model's kappa next to the best one on those samples and to
    1 + 2 sigma^2.

    Args:
        every_n_validations: how often in training, each figure kept under its step; none is at the end alone.
        num_samples: training samples on which the optima are measured.
    """

    prefix: ClassVar[str] = "schedule"

    def __init__(self, every_n_validations: int | None = None, num_samples: int = 512) -> None:
        super().__init__(every_n_validations)
        require_positive(num_samples=num_samples)
        self.num_samples = num_samples

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if not may_write(trainer):
            return
        model, device = module.diffusion, trainer.strategy.root_device
        t = torch.linspace(0, 1, POINTS, dtype=model.dtype, device=device)
        found = model.schedule.of_no_sample().with_derivative(t)
        gamma, slope = (values.reshape(POINTS, -1).float().cpu().numpy() for values in found)
        publish_figure(trainer, schedule_figure(gamma, slope), "schedule", keep_history=not final)
        samples = spread_samples(trainer.train_dataloader, self.num_samples, device)
        if model.num_steps is not None:
            profile = ratio_profile(model, with_noise(module, samples))
            figure = ratio_figure(profile, model.num_steps, own=model.ratio is not None)
            _publish_profile(trainer, "variance_ratio", profile, figure, final=final)
        if model.volatility is not None or not isinstance(model.encoder, IdentityEncoder):
            volatility = volatility_profile(model, with_noise(module, samples))
            figure = volatility_figure(volatility, own=model.volatility is not None)
            _publish_profile(trainer, "volatility", volatility, figure, final=final)


def _publish_profile(
    trainer: pl.Trainer, name: str, profile: RatioProfile | VolatilityProfile, figure: Figure, *, final: bool
) -> None:
    publish_figure(trainer, figure, name, keep_history=not final)
    publish_table(trainer, name, profile._fields, torch.stack([*profile], dim=1).tolist())
