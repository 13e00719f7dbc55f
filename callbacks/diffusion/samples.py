"""Samples of a diffusion model while it trains, and the path that leads to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.diffusion.base import DiffusionDiagnostic, first_samples
from callbacks.measure_at_validation import may_write
from callbacks.run.publishing import publish_figure
from likeness.checks import require_positive
from likeness.diffusion.process import scaled
from likeness.diffusion.sampling import Method, Samples, State, sample
from likeness.diffusion.schedules import Spacing, gamma_grid
from likeness.figures.samples import image_path, is_image, is_point, point_path, point_scatter, sample_grid
from likeness.protocols import Diffuser
from likeness.seeding import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SAMPLES = 4  # sets this noise apart from that of training and evaluation


class SampleFigures(DiffusionDiagnostic):
    """Draws samples in ``figures/samples.png``, and in ``figures/sample_path.png`` how a few of them came about.

    The noise is a function of the model's seed, so that pictures at different steps of a training compare. Images
    make a grid, and their path shows z_t and the prediction x_hat; points in the plane are scattered beside as many
    validation samples. A class-conditional model is given the labels of the first validation samples.

    Args:
        num_samples: how many; for points 1,000 make a good picture.
        num_steps: of the sampler; their number is the cost, in passes of the score network over all samples.
        method: ancestral, the generative steps, or flow, without noise in the steps.
        spacing: whether steps are equal in t or in gamma.
        clip_quantile: dynamic thresholding of x_hat.
        path_samples: whose path is drawn, for images.
        path_length: how many states of it.
        every_n_validations: how often in training, each figure kept under its step; none is at the end alone.
    """

    prefix: ClassVar[str] = "samples"

    def __init__(
        self,
        num_samples: int = 36,
        num_steps: int = 250,
        method: Method = "ancestral",
        spacing: Spacing = "t",
        clip_quantile: float | None = None,
        path_samples: int = 4,
        path_length: int = 10,
        every_n_validations: int | None = None,
    ) -> None:
        super().__init__(every_n_validations)
        require_positive(num_samples=num_samples, num_steps=num_steps)
        require_positive(path_samples=path_samples, path_length=path_length)
        self.num_samples, self.num_steps = num_samples, num_steps
        self.method: Method = method
        self.spacing: Spacing = spacing
        self.clip_quantile = clip_quantile
        self.path_samples, self.path_length = path_samples, path_length

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if not may_write(trainer):
            return
        beside = first_samples(trainer.val_dataloaders, self.num_samples, trainer.strategy.root_device)
        samples = self._draw(module, beside.y)
        for name, figure in self._figures(module, samples, beside.x).items():
            publish_figure(trainer, figure, name, keep_history=not final)

    def _draw(self, module: Diffuser, labels: Tensor) -> Samples:
        source = generator(module.seed, _SAMPLES, device=labels.device)
        model = module.diffusion.from_prior(self.num_samples, source)
        places = torch.arange(self.num_samples, device=labels.device) % len(labels)
        return sample(
            model,
            self.num_samples,
            gamma_grid(model.schedule, self.num_steps, self.spacing),
            source,
            self.method,
            labels[places] if module.class_conditional else None,
            self.clip_quantile,
            keep_every=max(1, self.num_steps // self.path_length),
        )

    def _figures(self, module: Diffuser, samples: Samples, data: Tensor) -> dict[str, Figure]:
        """By file name; none for data that are neither images nor points in the plane."""
        model = module.diffusion
        x, data = (scaled(levels, model.levels).cpu() for levels in (samples.levels, data))
        title = f"{self.num_steps} {self.method} steps"
        if is_image(model.input_shape):
            few = self.path_samples
            path = [State(state.gamma, state.z[:few], state.x_hat[:few]) for state in samples.path]
            return {
                "samples": sample_grid(x, f"Samples, {title}"),
                "sample_path": image_path(path, x[:few], f"Paths, {title}"),
            }
        if is_point(model.input_shape):
            return {
                "samples": point_scatter(x, data, f"Samples, {title}"),
                "sample_path": point_path(samples.path, f"Paths, {title}"),
            }
        return {}
