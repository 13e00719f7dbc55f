"""What a diffusion model's encoder and counter-term do at each depth, measured on samples.

Nielsen et al. 2024 (DiffEnc), whose letters these are: x_t = x + sigma^2 u with u = y - x, and lambda = -gamma, the
log signal-to-noise ratio.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, diffuse
from likeness.seeding import generator


class DepthProfile(NamedTuple):
    """At G depths, [G] each. Sizes are root mean squares over samples and dimensions, in units of x in (-1, 1).

    ``residual`` is |sigma^2 x_hat - dx_t/dlambda| / |dx_t/dlambda|: how far the generative model's counter-term is
    from the change of the mean that it stands for. ``residual_of_form`` has the true x_t in place of x_hat, and is
    what would remain with a perfect prediction. ``residual_in_gamma`` has dx_t/dgamma in place of dx_t/dlambda, the
    other direction of the same axis. All three are NaN where the mean does not change.
    """

    t: Tensor
    gamma: Tensor
    output: Tensor  # |y|
    derivative: Tensor  # |dy/dgamma|
    shift: Tensor  # |x_t - x|
    variance: Tensor  # of z_t over samples, mean over dimensions
    variance_of_vdm: Tensor  # alpha^2 var(x) + sigma^2
    residual: Tensor
    residual_of_form: Tensor
    residual_in_gamma: Tensor


@torch.no_grad()
def depth_profile(
    model: DiffusionModel, images: Tensor, times: Tensor, seed: int, labels: Tensor | None = None
) -> DepthProfile:
    """The profile at ``times`` [G] of grey levels [B, ...], with noise that is a function of the seed.

    It takes a pass of the encoder and one of the score network at each time.
    """
    x = model.scale(images, times.dtype)
    source = generator(seed)
    gammas = model.schedule(times)
    rows = []
    for gamma in gammas:
        eps = torch.randn(x.shape, generator=source).to(x)
        rows.append(_row(model, x, gamma, eps, labels))
    return DepthProfile(times, gammas, *torch.stack(rows, dim=1))


@torch.no_grad()
def mean_at(model: DiffusionModel, images: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
    """x_t, [B, ...], of grey levels."""
    x = model.scale(images, model.dtype)
    return model.encoder(x, _gamma(model, x, t), labels)  # type: ignore[no-any-return]


@torch.no_grad()
def direction_at(model: DiffusionModel, images: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
    """u = (x_t - x) / sigma_t^2, [B, ...], of grey levels; y is x + u."""
    x = model.scale(images, model.dtype)
    return model.encoder.direction(x, _gamma(model, x, t), labels)


@torch.no_grad()
def mean_change(model: DiffusionModel, images: Tensor, s: float, t: float, labels: Tensor | None = None) -> Tensor:
    """(x_t - x_s) / (t - s), [B, ...], of grey levels between times s < t; DiffEnc, figure 2.

    Taken of sigma^2 u at both, because the means themselves hardly differ at small t.
    """
    x = model.scale(images, model.dtype)
    shifts = []
    for time in (s, t):
        gamma = _gamma(model, x, time)
        shifts.append(torch.sigmoid(broadcast(gamma, x)) * model.encoder.direction(x, gamma, labels))
    return (shifts[1] - shifts[0]) / (t - s)


def _gamma(model: DiffusionModel, x: Tensor, t: float) -> Tensor:
    """gamma(t) for each sample of x, [B]."""
    gamma: Tensor = model.schedule(x.new_full((len(x),), t))
    return gamma


def _row(model: DiffusionModel, x: Tensor, gamma: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
    """The fields of a profile behind gamma, [8], at a scalar gamma."""
    gammas = gamma.expand(len(x))
    u, derivative = model.encoder.direction_with_derivative(x, gammas, labels)
    variance, precision = torch.sigmoid(gamma), torch.sigmoid(-gamma)
    x_t = x + variance * u
    change = -variance * (precision * u + derivative)  # dx_t/dlambda
    z = diffuse(x_t, gamma, eps)
    counter = variance * model.predict(z, gammas, labels)
    errors = torch.stack([_size(counter - change), _size(variance * x_t - change), _size(counter + change)])
    size = _size(change)
    return torch.cat([
        torch.stack([_size(x + u), _size(derivative), _size(variance * u)]),
        torch.stack([z.var(0).mean(), precision * x.var(0).mean() + variance]),
        (errors / size).masked_fill(size == 0, torch.nan),
    ])  # fmt: skip


def _size(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()
