"""The closed-form variance ratio of a model, fitted on training data."""

from collections.abc import Iterable

import torch
from torch import Tensor

from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast
from likeness.diffusion.schedules import gamma_grid
from likeness.diffusion.variance_ratio import FittedRatio


def fit_ratio(
    model: DiffusionModel,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    generator: torch.Generator,
    dims: tuple[int, ...] | None = None,
) -> FittedRatio:
    """The best ratio of each of the model's steps on these batches of grey levels [B, ...] and labels, if any.

    Every sample is seen at every step, with one draw of noise from ``generator``, on the images' device. ``dims``
    asks for a ratio of each dimension. Give the model the answer with ``model.ratio = ...``.

    Raises ValueError for a model in infinite depth and for no data.
    """
    if model.num_steps is None:
        raise ValueError("a variance ratio needs finite depth, got num_steps=None: set num_steps")
    edges, ratio = gamma_grid(model.schedule, model.num_steps).flip(0), None
    for images, labels in batches:
        x = model.scale(images, model.dtype)
        if ratio is None:
            ratio = FittedRatio(model.num_steps, dims).to(x.device)
            ratio.edges.copy_(edges)
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        observe_steps(model, ratio, x, eps, labels)
    if ratio is None:
        raise ValueError("a variance ratio needs at least one batch to be fitted on, got none")
    return ratio


@torch.no_grad()
def observe_steps(
    model: DiffusionModel, ratio: FittedRatio, x: Tensor, eps: Tensor, labels: Tensor | None = None
) -> None:
    """Show ``ratio`` every step of the model on scaled data x with the noise eps, both [B, ...]."""
    assert model.num_steps is not None
    for number in range(1, model.num_steps + 1):
        step = model.step_error(x, x.new_full((len(x),), (number - 0.5) / model.num_steps), eps, labels)
        squared = 0.5 * torch.expm1(broadcast(step.dgamma, x)) * step.error.square()
        ratio.observe(step.gamma_s, step.gamma_t, squared)
