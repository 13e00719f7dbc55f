"""The noise schedule, and the variances of the generative steps beside the best ones."""

from typing import ClassVar

import pytorch_lightning as pl
import torch

from callbacks.diffusion_diagnostic import DiffusionDiagnostic
from callbacks.elbo_figures import ratio_figure, schedule_figure
from callbacks.figures import publish_figure
from callbacks.measure_at_validation import may_write, require_positive
from callbacks.probe_samples import spread_samples, with_noise
from callbacks.tables import publish_table
from likeness.diffusion.ratio_profile import ratio_profile
from likeness.protocols import Diffuser

POINTS = 257  # of the curve


class ScheduleDiagnostics(DiffusionDiagnostic):
    """Draws gamma(t), its derivative and the signal-to-noise ratio; in finite depth also the variance ratio.

    ``figures/schedule.png``, and ``figures/variance_ratio.{png,csv}``: rho = log(sigma_P^2 / sigma_Q^2) of the model
    (0 without a ratio) next to the optimum log(1 + 2 E[q] / d), with q measured on training samples.

    Args:
        every_n_validations: how often in training, each figure kept under its step; none is at the end alone.
        num_samples: training samples on which q is measured.
    """

    prefix: ClassVar[str] = "schedule"

    def __init__(self, every_n_validations: int | None = None, num_samples: int = 512) -> None:
        super().__init__(every_n_validations)
        require_positive("num_samples", num_samples)
        self.num_samples = num_samples

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if not may_write(trainer):
            return
        model, device = module.diffusion, trainer.strategy.root_device
        t = torch.linspace(0, 1, POINTS, dtype=model.dtype, device=device)
        gamma, slope = (values.float().cpu().numpy() for values in model.schedule.with_derivative(t))
        publish_figure(trainer, schedule_figure(gamma, slope), "schedule", keep_history=not final)
        if model.num_steps is not None:
            samples = spread_samples(trainer.train_dataloader, self.num_samples, device)
            profile = ratio_profile(model, with_noise(module, samples))
            figure = ratio_figure(profile, model.num_steps, own=model.ratio is not None)
            publish_figure(trainer, figure, "variance_ratio", keep_history=not final)
            publish_table(trainer, "variance_ratio", profile._fields, torch.stack([*profile], dim=1).tolist())
