"""The variances of a trained model's generative steps, in closed form from training data.

Both answers make a valid bound of other data: neither sees the sample that it is used for.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, mean_over_dimensions, stratified
from likeness.diffusion.schedules import gamma_grid
from likeness.diffusion.variance_ratio import FittedRatio
from likeness.diffusion.volatility import HIGHEST, LOWEST, FittedVolatility

Batches = Iterable[tuple[Tensor, Tensor | None]]
"""Of grey levels [B, ...] and labels [B], if any."""
BINS = 32  # of t, in which the volatility of infinite depth is fitted


def fit_ratio(
    model: DiffusionModel, batches: Batches, generator: torch.Generator, dims: tuple[int, ...] | None = None
) -> FittedRatio:
    """The best ratio of each of the model's steps on these batches.

    Every sample is seen at every step, with one draw of noise from ``generator``, on the images' device. ``dims``
    asks for a ratio of each dimension. Give the model the answer with ``model.ratio = ...``.

    Raises ValueError for a model in infinite depth and for no data.
    """
    if model.num_steps is None:
        raise ValueError("a variance ratio needs finite depth, got num_steps=None: set num_steps")
    edges, ratio = mean_over_dimensions(gamma_grid(model.schedule.of_no_sample(), model.num_steps)).flip(0), None
    for images, labels in batches:
        x = model.scale(images, model.dtype)
        given, _ = model.for_data(x, model.context_noise(len(x), generator))
        if ratio is None:
            ratio = FittedRatio(model.num_steps, dims).to(x.device)
            ratio.edges.copy_(edges)
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        observe_steps(given, ratio, x, eps, labels)
    if ratio is None:
        raise ValueError("a variance ratio needs at least one batch to be fitted on, got none")
    return ratio


@torch.no_grad()
def observe_steps(model: Hierarchy, ratio: FittedRatio, x: Tensor, eps: Tensor, labels: Tensor | None = None) -> None:
    """Show ``ratio`` every step of the model on scaled data x with the noise eps, both [B, ...]."""
    assert model.num_steps is not None
    for number in range(1, model.num_steps + 1):
        step = model.step_error(x, x.new_full((len(x),), (number - 0.5) / model.num_steps), eps, labels)
        squared = 0.5 * torch.expm1(broadcast(step.dgamma, x)) * step.error.square()
        ratio.observe(step.gamma_s, step.gamma_t, squared)


def require_fittable(model: DiffusionModel, num_steps: int | None) -> None:
    """Raise ValueError where no volatility can be fitted: of finite steps that are others for each sample."""
    if num_steps is not None and model.schedule.context_size is not None:
        name = type(model.schedule).__name__
        raise ValueError(
            f"a volatility of finite depth, num_steps={num_steps}, cannot be fitted where {name} gives each sample "
            "steps of its own"
        )


@torch.no_grad()
def fit_volatility(
    model: DiffusionModel, batches: Batches, generator: torch.Generator, dims: tuple[int, ...] | None = None
) -> FittedVolatility:
    """The best kappa of each of the model's steps, or in infinite depth of :data:`BINS` equal bins of t.

    In infinite depth the loss at a time is dgamma/dt |a + kappa b|^2 / (2 kappa) with a = e / 2 + shift and b = e / 2:
    it is least at sqrt(E |a|^2 / E |b|^2). In a step, with h = exp(-dgamma / 2) and s = exp(-kappa dgamma / 2), it is
    |(1 - h s) e + r shift|^2 / (2 h^2 (1 - s^2)), a quadratic in s over 1 - s^2, which is least at
    kappa = (4 / dgamma) asinh(sqrt(E |(1 - h) e + r shift|^2 / (4 h E [e (e + r shift)]))). VDM has no shift, and 1.

    Every sample is seen in every bin, with noise from ``generator``, on the images' device. ``dims`` asks for a kappa
    of each dimension. kappa is kept between 0.001 and 1000. Give the model the answer by ``model.volatility = ...``.
    In steps of a multivariate schedule it is always that: one for all has no closed form where dgamma differs.

    Raises ValueError for no data, and for steps of a schedule that is a function of a context.
    """
    steps, fitted = model.num_steps, None
    require_fittable(model, steps)
    count, parts = (BINS, _rate_parts) if steps is None else (steps, _step_parts)
    dims = model.input_shape if steps is not None and model.schedule.multivariate else dims
    grid = gamma_grid(model.schedule.of_no_sample(), count).flip(0)
    for images, labels in batches:
        x = model.scale(images, model.dtype)
        if fitted is None:
            fitted = FittedVolatility(count, dims).to(x.device)
            fitted.edges.copy_(mean_over_dimensions(grid))
            total = torch.zeros(2, *fitted.kappa.shape, dtype=torch.float64, device=x.device)
        given, _ = model.for_data(x, model.context_noise(len(x), generator))
        for index in range(count):
            found = torch.stack(parts(given, x, index, generator, labels)).double().sum(1)
            total[:, index] += found.flatten(1).sum(1) if dims is None else found
    if fitted is None:
        raise ValueError("a volatility needs at least one batch to be fitted on, got none")
    kappa = (total[0] / total[1].clamp(min=0)).sqrt()
    if steps is not None:
        kappa = 4 * torch.asinh(kappa) / broadcast(grid.diff(dim=0).to(kappa), kappa)
    fitted.kappa.copy_(kappa.nan_to_num(nan=1.0).clamp(LOWEST, HIGHEST))
    return fitted


def _rate_parts(
    model: Hierarchy, x: Tensor, index: int, generator: torch.Generator, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """|e / 2 + shift|^2 and |e / 2|^2 of each dimension, [B, ...], at times in one of the bins, by dgamma/dt."""
    offset = torch.rand((), generator=generator, device=x.device, dtype=x.dtype)
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    rate = model.rate(x, (index + stratified(offset, len(x))) / BINS, eps, labels)
    half, weight = 0.5 * rate.noise_error, broadcast(rate.dgamma_dt, x)
    return weight * (half + rate.shift).square(), weight * half.square()


def _step_parts(
    model: Hierarchy, x: Tensor, index: int, generator: torch.Generator, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """|(1 - h) e + r shift|^2 and 4 h e (e + r shift) of each dimension, [B, ...], in one of the steps."""
    assert model.num_steps is not None
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    step = model.step(x, x.new_full((len(x),), (index + 0.5) / model.num_steps), eps, labels)
    error, dgamma = step.noise_error, broadcast(step.dgamma, x)
    moved = -torch.expm1(-dgamma) * step.shift
    drift = (moved - torch.expm1(-0.5 * dgamma) * error).square()
    return drift, 4 * torch.exp(-0.5 * dgamma) * error * (error + moved)
