"""Samples of a variational diffusion model: by its generative steps, or along its probability flow.

A path runs through a decreasing grid of gamma, or of gammas of each dimension. The grids are float64, as the steps'
coefficients are differences of gammas; z keeps the dtype of the model.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from likeness.diffusion.flow import flow_step
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.process import alpha, broadcast, nearest_level, repeated, sample_level
from likeness.diffusion.schedules import gamma_grid
from likeness.diffusion.variance_ratio import VarianceRatio

Method = Literal["ancestral", "flow"]


class State(NamedTuple):
    """Where one step of a path has led."""

    gamma: Tensor  # a scalar, or [1 or B, ...]
    z: Tensor  # [B, ...] at gamma, in pixels
    x_hat: Tensor  # [B, ...], predicted of the z before, in pixels


class Samples(NamedTuple):
    """Grey levels, and what was kept of the path to them."""

    levels: Tensor  # int64 [B, ...]
    path: list[State]


@torch.no_grad()
def ancestral(
    model: Hierarchy,
    z_1: Tensor,
    gammas: Tensor,
    generator: torch.Generator,
    labels: Tensor | None = None,
    clip_quantile: float | None = None,
) -> Iterator[State]:
    """The states after each generative step p(z_s | z_t) from z_1 [B, ...], with noise of ``generator``.

    ``gammas`` decrease, [S + 1] or [S + 1, ...], or [S + 1, B, ...] where each sample has a path of its own. The
    model's variance ratio is used where it fits steps of any size, or where the steps are those of the model's own
    finite depth. See :func:`clipped` for ``clip_quantile``.
    """
    ratio, z = ratio_on(model, gammas), z_1
    for gamma_t, gamma_s in _steps(gammas, z):
        x_hat = _predicted(model, z, gamma_t, labels, clip_quantile)
        mean, variance = model.generative_step(z, gamma_s, gamma_t, x_hat, ratio, labels)
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        z = (mean + variance.sqrt() * noise).to(z)
        yield State(gamma_s, model.pixels(z), model.pixels(x_hat))


@torch.no_grad()
def flow(
    model: Hierarchy,
    z_1: Tensor,
    gammas: Tensor,
    labels: Tensor | None = None,
    clip_quantile: float | None = None,
) -> Iterator[State]:
    """The states after each step along the probability flow from z_1 [B, ...]: no noise but that of z_1.

    In VDM these are the steps of DDIM (Song et al. 2021); with a flow head nothing is clipped. Raises ValueError for an
    encoder whose flow is unknown.
    """
    z = z_1
    for gamma_t, gamma_s in _steps(gammas, z):
        x_hat = _predicted(model, z, gamma_t, labels, clip_quantile)
        z = flow_step(model, z, x_hat, gamma_s, gamma_t, labels).to(z)
        yield State(gamma_s, model.pixels(z), model.pixels(x_hat))


def _predicted(
    model: Hierarchy, z: Tensor, gamma_t: Tensor, labels: Tensor | None, clip_quantile: float | None
) -> Tensor:
    """x_hat, whose pixels are clipped."""
    x_hat = model.predict(z, repeated(gamma_t, z), labels)
    return x_hat if clip_quantile is None else model.coefficients(clipped(model.pixels(x_hat), clip_quantile))


def clipped(x_hat: Tensor, quantile: float | None) -> Tensor:
    """Dynamic thresholding: clip each sample to its quantile of |x_hat| and divide by that, where it is above 1.

    Saharia et al. 2022 (Imagen), section 2.3. None changes nothing; raises ValueError outside (0, 1].
    """
    if quantile is None:
        return x_hat
    if not 0 < quantile <= 1:
        raise ValueError(f"clip_quantile must lie in (0, 1], got {quantile}")
    limit = broadcast(x_hat.flatten(1).abs().quantile(quantile, dim=1).clamp(min=1), x_hat)
    return x_hat.clamp(-limit, limit) / limit


def decode(z_0: Tensor, gamma_0: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """The likeliest grey levels given z_0 [B, ...], or a draw of p(x | z_0) with ``generator``; int64."""
    gamma_0 = gamma_0.to(z_0) if gamma_0.dim() else gamma_0
    x = z_0 / alpha(gamma_0)
    return nearest_level(x, levels) if generator is None else sample_level(x, gamma_0.to(x), levels, generator)


@torch.no_grad()
def sample(
    model: Hierarchy,
    count: int,
    gammas: Tensor,
    generator: torch.Generator,
    method: Method = "ancestral",
    labels: Tensor | None = None,
    clip_quantile: float | None = None,
    categorical: bool = False,
    keep_every: int | None = None,
) -> Samples:
    """Draw ``count`` samples on the device of ``generator``, from which all noise comes.

    Args:
        model: in evaluation mode; of one with a context, what its ``from_prior`` answers.
        count: how many.
        gammas: the grid, see :func:`likeness.diffusion.schedules.gamma_grid`.
        generator: of all noise.
        method: "ancestral" or, without noise in its steps, "flow".
        labels: [count], of a class-conditional model.
        clip_quantile: dynamic thresholding, see :func:`clipped`.
        categorical: draw the grey levels from p(x | z_0) instead of taking the likeliest.
        keep_every: keep the state after every so many steps, and the last.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    z = torch.randn(count, *model.input_shape, generator=generator, device=generator.device, dtype=model.dtype)
    if method == "flow":
        states = flow(model, z, gammas, labels, clip_quantile)
    else:
        states = ancestral(model, z, gammas, generator, labels, clip_quantile)
    path, last = [], len(gammas) - 1
    for number, state in enumerate(states, start=1):
        z = state.z
        if keep_every is not None and (number % keep_every == 0 or number == last):
            path.append(state)
    return Samples(decode(z, gammas[-1], model.levels, generator if categorical else None), path)


def _steps(gammas: Tensor, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(gamma_t, gamma_s) of each step, in float64: scalars, which need not be where z is, or maps, which are."""
    if len(gammas) < 2:
        raise ValueError(f"gammas must be at least two decreasing numbers, got {len(gammas)}")
    if (kept := ~(gammas.diff(dim=0) < 0).reshape(len(gammas) - 1, -1)).any():  # and what is no number
        step = int(kept.any(1).nonzero()[0])
        after = gammas[step + 1].flatten()[kept[step]][0].item()
        raise ValueError(f"gammas must be at least two decreasing numbers, but step {step + 1} stays at {after}")
    gammas = gammas.double()
    if gammas.dim() > 1:
        kind = torch.float32 if z.device.type == "mps" else torch.float64  # which that device has not
        gammas = (gammas if gammas.dim() > z.dim() else gammas[:, None]).to(z.device, kind)
    yield from pairwise(gammas.unbind())


def ratio_on(model: Hierarchy, gammas: Tensor) -> VarianceRatio | None:
    """The model's ratio, where it is meant for the steps of a grid of gammas [S + 1] or [S + 1, ...]."""
    if model.ratio is None or model.ratio.any_steps:
        return model.ratio
    if model.num_steps is None or len(gammas) != model.num_steps + 1:
        return None
    own = gamma_grid(model.schedule, model.num_steps).to(gammas)
    own = own[:, None] if own.dim() < gammas.dim() else own
    return model.ratio if torch.allclose(own, gammas, rtol=0, atol=1e-4) else None
