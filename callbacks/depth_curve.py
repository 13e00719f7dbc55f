"""The bound of the model at other depths than the one that it is trained in."""

from collections.abc import Sequence
from typing import ClassVar

import pytorch_lightning as pl

from callbacks.diffusion_diagnostic import DiffusionDiagnostic
from callbacks.elbo_figures import depth_figure
from callbacks.figures import publish_figure
from callbacks.measure_at_validation import may_write, require_positive
from callbacks.probe_samples import first_samples, spread_samples, with_noise
from callbacks.tables import publish_table
from likeness.diffusion.depth_curve import DepthPoint, depth_curve
from likeness.protocols import Diffuser

FIT_DRAW = 1  # so that the noise of the fit is not that of the evaluation


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
        require_positive("num_samples", num_samples)
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
