"""What the encoder of the mean makes of the data at each depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from callbacks.diffusion.base import DiffusionDiagnostic, first_samples
from callbacks.measure_at_validation import may_write
from callbacks.run.publishing import publish_figure, publish_table
from likeness.checks import require_positive
from likeness.diffusion.diagnostics.by_depth import DepthProfile, depth_profile, direction_at, mean_at, mean_change
from likeness.diffusion.model import DiffusionModel
from likeness.figures.diffusion import heat_maps, point_strips, profile_figure, strips
from likeness.figures.samples import is_image, is_point, pictures
from likeness.protocols import Diffuser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP = 0.1  # between s and t of a change
MAX_POINTS = 1000


class EncoderDiagnostics(DiffusionDiagnostic):
    """Draws how large y, dy/dgamma and x_t - x are by gamma, the counter-term's residual, and heat maps over depth.

    All on the first validation samples. ``figures/encoder_profile.{png,csv}``; of encoders that change images also
    ``encoder_change`` ((x_t - x_s) / (t - s) with s = t - 0.1, summed over channels: Nielsen et al. 2024, figure 2),
    ``encoder_direction`` ((x_t - x) / sigma_t^2), ``encoder_output`` (y) and ``encoder_mean`` (x_t itself).

    Args:
        every_n_validations: how often in training, each figure kept under its step; none is at the end alone.
        num_samples: validation samples of the profile.
        num_times: points of the profile.
        num_images: rows of the heat maps.
        change_times: times t of the heat maps, at least 0.1.
        mean_times: times at which x_t is shown; points in the plane are at 0 and at ``change_times``.
    """

    prefix: ClassVar[str] = "encoder"

    def __init__(
        self,
        every_n_validations: int | None = None,
        num_samples: int = 64,
        num_times: int = 25,
        num_images: int = 5,
        change_times: Sequence[float] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0),
        mean_times: Sequence[float] = (0.0, 0.7, 0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0),
    ) -> None:
        super().__init__(every_n_validations)
        require_positive(num_samples=num_samples, num_images=num_images)
        if num_times < 2:
            raise ValueError(f"num_times must be at least 2, got {num_times}")
        _require_times("change_times", change_times, STEP)
        _require_times("mean_times", mean_times, 0.0)
        self.num_samples, self.num_times, self.num_images = num_samples, num_times, num_images
        self.change_times, self.mean_times = tuple(change_times), tuple(mean_times)

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        if not may_write(trainer):
            return
        model, device = module.diffusion, trainer.strategy.root_device
        batch = first_samples(trainer.val_dataloaders, self.num_samples, device)
        t = torch.linspace(0, 1, self.num_times, dtype=model.dtype, device=device)
        profile = depth_profile(model, batch.x, t, module.seed, batch.y if module.class_conditional else None)
        publish_figure(trainer, profile_figure(profile), "encoder_profile", keep_history=not final)
        table = torch.stack([*profile], dim=1).tolist()
        publish_table(trainer, "encoder_profile", DepthProfile._fields, table)
        if profile.shift.any():  # VDM's encoder changes nothing
            for name, figure in self._mean_figures(trainer, module).items():
                publish_figure(trainer, figure, name, keep_history=not final)

    def _mean_figures(self, trainer: pl.Trainer, module: Diffuser) -> dict[str, Figure]:
        """By file name; none for data that are neither images nor points in the plane."""
        model = module.diffusion
        of_images, of_points = is_image(model.input_shape), is_point(model.input_shape)
        if not of_images and not of_points:
            return {}
        count = self.num_images if of_images else MAX_POINTS
        batch = first_samples(trainer.val_dataloaders, count, trainer.strategy.root_device)
        labels = batch.y if module.class_conditional else None
        times = self.mean_times if of_images else (0.0, *self.change_times)
        means = [mean_at(model, batch.x, t, labels) for t in times]
        if of_points:
            points = [mean.float().cpu().numpy() for mean in means]
            return {"encoder_mean": point_strips(points, times, "Means $x_t$ of points $x$")}
        shown = strips([pictures(mean) for mean in means], times, "Means $x_t$ of images $x$")
        return {"encoder_mean": shown} | self._heat_maps(model, batch.x, labels)

    def _heat_maps(self, model: DiffusionModel, images: Tensor, labels: Tensor | None) -> dict[str, Figure]:
        x, times = model.pixels(model.scale(images, model.dtype)), self.change_times
        directions = [direction_at(model, images, t, labels) for t in times]
        maps = {
            "encoder_change": (
                [mean_change(model, images, t - STEP, t, labels) for t in times],
                f"Change of the mean, $(x_t - x_s) / (t - s)$ with $s = t - {STEP}$",
            ),
            "encoder_direction": (directions, r"Direction of the mean, $(x_t - x) / \sigma_t^2$"),
            "encoder_output": ([x + direction for direction in directions], "Output $y(x, t)$ of the inner encoder"),
        }
        return {
            name: heat_maps(pictures(x), [values.sum(1).float().cpu().numpy() for values in tensors], times, title)
            for name, (tensors, title) in maps.items()
            if any(values.any() for values in tensors)  # the parameter-free encoder has no output
        }


def _require_times(name: str, times: Sequence[float], least: float) -> None:
    if not times or min(times) < least or max(times) > 1:
        raise ValueError(f"{name} must lie in [{least:g}, 1], got {[*times]}")
