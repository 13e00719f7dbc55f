"""A diffusion model looked at by depth: its encoder and counter-term, and the gradients that its networks get there.

The letters are those of Nielsen et al. 2024 (DiffEnc): x_t = x + sigma^2 u with u = y - x, and lambda = -gamma, the
log signal-to-noise ratio. A ``NoisyBatch`` is samples together with the noise with which a bound looks at them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.elbo import AnyTerms, bits_per_dim
from likeness.diffusion.hierarchy import Hierarchy, Rate, StepError
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import (
    Noise,
    broadcast,
    diffuse,
    evaluation_noise,
    stratified,
)
from likeness.seeding import generator


class DepthProfile(NamedTuple):
    """At G depths, [G] each. Sizes are root mean squares over samples and dimensions, in units of x in (-1, 1).

    ``residual`` is |sigma^2 x_hat - dx_t/dlambda| / |dx_t/dlambda|: how far the generative model's counter-term is
    from the change of the mean that it stands for. ``residual_of_form`` has the true x_t in place of x_hat, and is
    what would remain with a perfect prediction. ``residual_in_gamma`` has dx_t/dgamma in place of dx_t/dlambda, the
    other direction of the same axis. All three are NaN where the mean does not change.
    """

    t: Tensor
    gamma: Tensor  # its mean over dimensions
    output: Tensor  # |y|
    derivative: Tensor  # |dy/dgamma|
    shift: Tensor  # |x_t - x|
    variance: Tensor  # of z_t over samples, mean over dimensions; NaN of a single sample
    variance_of_vdm: Tensor  # alpha^2 var(x) + sigma^2
    residual: Tensor
    residual_of_form: Tensor
    residual_in_gamma: Tensor


@torch.no_grad()
def depth_profile(
    model: DiffusionModel, images: Tensor, times: Tensor, seed: int, labels: Tensor | None = None
) -> DepthProfile:
    """The profile at ``times`` [G] of grey levels [B, ...], with noise that is a function of the seed.

    It takes a pass of the encoder and one of the score network at each time. A context is the mean of q(w | x).
    """
    x = model.scale(images, times.dtype)
    given, _ = model.for_data(x)
    source = generator(seed)
    rows = []
    for t in times:
        eps = torch.randn(x.shape, generator=source, dtype=torch.float32).to(x)
        rows.append(_row(given, x, t, eps, labels))
    return DepthProfile(times, *torch.stack(rows, dim=1))


@torch.no_grad()
def mean_at(model: DiffusionModel, images: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
    """x_t, [B, ...], of grey levels."""
    x = model.scale(images, model.dtype)
    return model.pixels(model.for_data(x)[0].mean(x, _times(x, t), labels))


@torch.no_grad()
def direction_at(model: DiffusionModel, images: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
    """u = (x_t - x) / sigma_t^2, [B, ...], of grey levels; y is x + u."""
    x = model.scale(images, model.dtype)
    return model.pixels(model.for_data(x)[0].direction(x, _times(x, t), labels)[1])


@torch.no_grad()
def mean_change(model: DiffusionModel, images: Tensor, s: float, t: float, labels: Tensor | None = None) -> Tensor:
    """(x_t - x_s) / (t - s), [B, ...], of grey levels between times s < t; DiffEnc, figure 2.

    Taken of sigma^2 u at both, because the means themselves hardly differ at small t.
    """
    x = model.scale(images, model.dtype)
    given, shifts = model.for_data(x)[0], []
    for time in (s, t):
        gamma, direction = given.direction(x, _times(x, time), labels)
        shifts.append(torch.sigmoid(broadcast(gamma, x)) * direction)
    return model.pixels(shifts[1] - shifts[0]) / (t - s)


def _times(x: Tensor, t: float) -> Tensor:
    """t for each sample of x, [B]."""
    return x.new_full((len(x),), t)


def _row(model: Hierarchy, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None) -> Tensor:
    """The fields of a profile behind t, [9], at a time, a scalar."""
    gamma, _, u, derivative = model.motion(x, t.expand(len(x)), labels)
    variance, precision = torch.sigmoid(broadcast(gamma, x)), torch.sigmoid(-broadcast(gamma, x))
    x_t = x + variance * u
    change = -variance * (precision * u + derivative)  # dx_t/dlambda
    z = diffuse(x_t, gamma, eps)
    counter = variance * model.predict(z, gamma, labels)
    errors = torch.stack([_size(counter - change), _size(variance * x_t - change), _size(counter + change)])
    size = _size(change)
    return torch.cat([
        torch.stack([gamma.mean(), _size(x + u), _size(derivative), _size(variance * u)]),
        torch.stack([_variance(z).mean(), (precision * _variance(x) + variance).mean()]),
        (errors / size).masked_fill(size == 0, torch.nan),
    ])  # fmt: skip


def _variance(samples: Tensor) -> Tensor:
    """The unbiased variance over samples [B, ...], [...]; NaN of a single one."""
    return samples.var(0) if len(samples) > 1 else torch.full_like(samples[0], torch.nan)


def _size(tensor: Tensor) -> Tensor:
    return tensor.square().mean().sqrt()


def gradient_norms(
    model: DiffusionModel, images: Tensor, num_bins: int, seed: int, labels: Tensor | None = None
) -> Tensor:
    """|grad|^2, [G] in float64, of the mean diffusion loss of the samples [B, ...] at times within one of G bins.

    The bins divide [0, 1] evenly; times are stratified within a bin, and noise is a function of (seed, bin). The loss
    is in bits per dimension and the gradient that of the networks' weights, without the schedule's and the ratio's.
    It is of this one batch, so its expectation is above that of the expected gradient by the variance over batches.
    No ``.grad`` is touched.
    """
    x = model.scale(images, model.dtype)
    context, norms = model.context_noise(len(x), generator(seed, num_bins)), []
    for index in range(num_bins):
        source = generator(seed, index)
        within = stratified(torch.rand((), generator=source, dtype=torch.float32), len(x))
        eps = torch.randn(x.shape, generator=source, dtype=torch.float32).to(x)
        norms.append(_squared_norm(model, x, ((index + within) / num_bins).to(x), eps, context, labels))
    return torch.stack(norms)


@torch.enable_grad()
def _squared_norm(
    model: DiffusionModel, x: Tensor, t: Tensor, eps: Tensor, eps_context: Tensor | None, labels: Tensor | None
) -> Tensor:
    given, _ = model.for_data(x, eps_context)
    loss = bits_per_dim(given.diffusion_loss(x, t, eps, labels), x[0].numel()).mean()
    weights = [weight for network in (model.network, model.encoder) for weight in network.parameters()]
    trained = [weight for weight in weights if weight.requires_grad]
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    squares = [gradient.double().square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum()


class NoisyBatch(NamedTuple):
    """Grey levels with noise, and with labels for class-conditional models."""

    images: Tensor  # [B, ...]
    noise: Noise
    labels: Tensor | None  # [B]

    @property
    def dims(self) -> int:
        """d of a sample."""
        return self.images[0].numel()

    def terms(self, model: DiffusionModel) -> AnyTerms:
        """The bound's terms in nats, [B] each."""
        return model.elbo_terms(self.images, **self.noise._asdict(), labels=self.labels)

    def rate_error(self, model: DiffusionModel) -> tuple[Tensor, Tensor]:
        """Of the model in infinite depth: see :meth:`DiffusionModel.rate_error`."""
        x, given = self._given(model)
        return given.rate_error(x, self.noise.t, self.noise.eps, self.labels)

    def rate(self, model: DiffusionModel) -> Rate:
        """What makes up that error: see :meth:`DiffusionModel.rate`."""
        x, given = self._given(model)
        return given.rate(x, self.noise.t, self.noise.eps, self.labels)

    def step_error(self, model: DiffusionModel) -> StepError:
        """Of the model's step that contains each time: see :meth:`DiffusionModel.step_error`."""
        x, given = self._given(model)
        return given.step_error(x, self.noise.t, self.noise.eps, self.labels)

    def _given(self, model: DiffusionModel) -> tuple[Tensor, Hierarchy]:
        """Scaled data, and the model with their contexts."""
        x = model.scale(self.images, self.noise.eps.dtype)
        return x, model.for_data(x, self.noise.eps_context)[0]


def noisy_batches(
    model: DiffusionModel, images: Tensor, ids: Tensor, labels: Tensor | None, seed: int, draw: int, size: int
) -> Iterator[NoisyBatch]:
    """Grey levels [N, ...] in batches of ``size``, with the noise with which their ids are evaluated in this draw."""
    for start in range(0, len(images), size):
        own = slice(start, start + size)
        like = torch.empty(images[own].shape, dtype=model.dtype, device=images.device)
        noise = evaluation_noise(like, ids[own], seed, draw, model.context_size)
        yield NoisyBatch(images[own], noise, None if labels is None else labels[own])
