"""The bound while a model trains: its terms on training and validation data, the gap between them, other depths T."""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.diffusion.base import DiffusionDiagnostic, first_samples, rows, spread_samples, with_noise
from callbacks.measure_at_validation import may_write
from callbacks.run.publishing import publish_figure, publish_table
from lightning_modules.metrics import BoundMetric
from likeness.batch import Batch
from likeness.checks import require_positive
from likeness.diffusion.diagnostics.bound_profiles import DepthPoint, depth_curve
from likeness.diffusion.diagnostics.metric import on_device
from likeness.diffusion.elbo import AnyTerms, mapped
from likeness.figures.diffusion import depth_figure
from likeness.protocols import Diffuser

FIT_DRAW = 1  # so that the noise of the fit is not that of the evaluation


class ElboDiagnostics(DiffusionDiagnostic):
    """Logs the negative ELBO's terms and their sum, in bits per dimension.

    ``elbo/train/{reconstruction,latent,diffusion,bpd}``, and ``context`` of a model that has one, are means over the
    batches since the last logging, which the training computed anyway; ``<key>_se`` is their standard error, from the
    spread of the batches' means.
    ``elbo/val/...`` are means over the validation samples, with the standard error over samples, ``<key>_sample_se``,
    and over draws of the noise, ``<key>_draw_se``, where ``eval_draws`` is two or more. Evaluation times are spread
    evenly over samples, so the error over samples is an upper limit of the error of the estimate.
    ``elbo/gap`` is the validation's bpd less that of training samples with the same weights, noise and layers in
    evaluation mode, and ``elbo/gap_se`` its error over samples; ``elbo/gamma_0`` and ``elbo/gamma_1`` are the ends of
    the schedule.

    Args:
        gap_every_n_validations: how often the gap is measured; none is never.
        gap_samples: training samples on which it is, spread evenly over the training data.
    """

    prefix: ClassVar[str] = "elbo"
    looks_at_end: ClassVar[bool] = False

    def __init__(self, gap_every_n_validations: int | None = 5, gap_samples: int = 256) -> None:
        require_positive(gap_every_n_validations=gap_every_n_validations, gap_samples=gap_samples)
        super().__init__(gap_every_n_validations)
        self.gap_samples = gap_samples
        self._train = BoundMetric()
        self._val: BoundMetric | None = None
        self._on_training_data: BoundMetric | None = None
        self._ends: tuple[Tensor, Tensor] | None = None
        self._logged_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        kind = cast(Diffuser, pl_module).diffusion.terms_kind
        self._train = on_device(BoundMetric(kind=kind), pl_module.device)
        self._logged_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        with self._clock():
            # times are stratified over a batch: its mean is one observation
            kind = self._train.total.dtype
            mean = mapped(lambda term: term.mean(dtype=kind)[None, None], outputs["terms"])
            self._train.update(mean, batch.x[0].numel())
            if not _is_logged(trainer) or trainer.global_step == self._logged_step:
                return
            for name, value in self._train.compute().items():
                key = f"elbo/train/{name}".replace("_sample_se", "_se")
                pl_module.log(key, value.float(), on_step=True, on_epoch=False, batch_size=1)
            self._train.reset()
            self._logged_step = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._val = self._on_training_data = None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.sanity_checking or dataloader_idx > 0:
            return
        with self._clock():
            terms: AnyTerms = outputs["terms"]  # [K, B] each
            if self._val is None:
                self._val = on_device(BoundMetric(len(terms.diffusion), type(terms)), pl_module.device)
                model = cast(Diffuser, pl_module).diffusion
                self._ends = model.schedule.ends(torch.empty((), dtype=model.dtype, device=pl_module.device))
            self._val.update(terms, batch.x[0].numel())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or self._val is None or self._ends is None:
            return
        with self._clock():
            val = self._val.compute()
            values = {f"val/{name}": value.float() for name, value in val.items()}
            values |= dict(zip(("gamma_0", "gamma_1"), self._ends, strict=True))
            if self._on_training_data is not None:
                train = self._on_training_data.compute()
                values["gap"] = (val["bpd"] - train["bpd"]).float()
                if "bpd_sample_se" in val and "bpd_sample_se" in train:
                    values["gap_se"] = torch.hypot(val["bpd_sample_se"], train["bpd_sample_se"]).float()
        self._log_at_validation(pl_module, values)
        super().on_validation_epoch_end(trainer, pl_module)

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        """Evaluate training samples as validation samples are; each rank its share."""
        device = trainer.strategy.root_device
        samples = spread_samples(trainer.train_dataloader, self.gap_samples, device)
        self._on_training_data = on_device(BoundMetric(kind=module.diffusion.terms_kind), device)
        for part in with_noise(module, rows(samples, trainer.global_rank, trainer.world_size)):
            terms = part.terms(module.diffusion)
            self._on_training_data.update(mapped(lambda term: term[None], terms), part.dims)


def _is_logged(trainer: pl.Trainer) -> bool:
    """Whether Lightning passes on to the loggers what this training step logs."""
    cadence = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(cadence) and trainer.global_step % cadence == 0


class DepthCurve(DiffusionDiagnostic):
    """Evaluates the model in several depths T, with equal variances and with the ratio in closed form.

    ``figures/depth_curve.{png,csv}``. The ratio is fitted on training samples and evaluated on validation samples. It
    takes 2 (F + 1) passes of the networks over ``num_samples``, with F finite depths, on rank 0 alone.

    Args:
        depths: the finite Ts; the limit of infinite depth is always drawn too.
        num_samples: of each of the two splits.
        every_n_validations: how often in training, each figure kept under its step; none is at the end alone.
    """

    prefix: ClassVar[str] = "depth_curve"

    def __init__(
        self,
        depths: Sequence[int] = (10, 30, 100, 300, 1000),
        num_samples: int = 512,
        every_n_validations: int | None = None,
    ) -> None:
        super().__init__(every_n_validations)
        require_positive(num_samples=num_samples)
        if not depths or min(depths) < 1:
            raise ValueError(f"depths must be numbers of steps, at least 1, got {[*depths]}")
        self.depths = tuple(sorted(depths))
        self.num_samples = num_samples
        self.points: list[DepthPoint] = []  # what was measured last

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if not may_write(trainer):
            return
        device = trainer.strategy.root_device
        fit_on = spread_samples(trainer.train_dataloader, self.num_samples, device)
        evaluate_on = first_samples(trainer.val_dataloaders, self.num_samples, device)
        self.points = depth_curve(
            module.diffusion,
            self.depths,
            list(with_noise(module, fit_on, FIT_DRAW)),
            list(with_noise(module, evaluate_on)),
        )
        publish_figure(trainer, depth_figure(self.points), "depth_curve", keep_history=not final)
        rows = [["inf" if point.num_steps is None else point.num_steps, *point[1:]] for point in self.points]
        publish_table(trainer, "depth_curve", DepthPoint._fields, rows)
