"""The hierarchical VAE that a network, an encoder and a schedule make: its bound and its generative steps, in formulas.

Kingma et al. 2021 (VDM) and Nielsen et al. 2024 (DiffEnc). The errors and losses are those of likeness.diffusion.elbo,
the densities those of likeness.diffusion.process; here they are put together.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from likeness.diffusion.elbo import (
    AnyTerms,
    ElboTerms,
    Estimate,
    Prediction,
    continuous_error,
    continuous_loss,
    estimate,
    latent_loss,
    plugged_error,
    rate_shift,
    step_error,
    step_loss,
    step_shift,
    x_hat,
)
from likeness.diffusion.encoders import DepthEncoder
from likeness.diffusion.process import (
    Posterior,
    batched,
    broadcast,
    diffuse,
    log_likelihood,
    posterior,
    repeated,
    scaled,
    step_of,
)
from likeness.diffusion.schedules import NoiseSchedule
from likeness.diffusion.variance_ratio import VarianceRatio
from likeness.diffusion.volatility import Volatility

if TYPE_CHECKING:
    from likeness.diffusion.model import Basis


class ScoreFunction(Protocol):
    """A network on noisy data z [B, ...] at gamma, [B] or [B, ...] of each dimension; it answers in the shape of z."""

    def __call__(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's answer."""
        ...

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """What its middle makes of z, averaged over positions, [B, M]."""
        ...


class Motion(NamedTuple):
    """How the means of samples move at their times: x_t = x + sigma^2 u; see likeness.diffusion.encoders.

    As everywhere below, gamma and its changes are [B], or [B, ...] of a multivariate schedule.
    """

    gamma: Tensor
    dgamma_dt: Tensor
    direction: Tensor  # [B, ...], u
    derivative: Tensor  # [B, ...], du/dgamma along the path of each dimension


class Rate(NamedTuple):
    """What the loss at a time of infinite depth is made of; see :func:`likeness.diffusion.elbo.continuous_error`."""

    noise_error: Tensor  # [B, ...], eps - eps_hat
    shift: Tensor  # [B, ...], what the moving mean adds
    gamma: Tensor
    dgamma_dt: Tensor


class Step(NamedTuple):
    """What the loss of a step is made of; see :func:`likeness.diffusion.elbo.step_error`."""

    noise_error: Tensor  # [B, ...], eps - eps_hat
    shift: Tensor  # [B, ...], what the moving mean adds
    gamma_s: Tensor  # where the step ends
    gamma_t: Tensor  # where it starts
    dgamma: Tensor  # gamma_t - gamma_s


class StepError(NamedTuple):
    """What one step of finite depth costs; its KL at equal variances is expm1(dgamma) / 2 times |error|^2."""

    error: Tensor  # [B, ...], see likeness.diffusion.elbo.step_error
    gamma_s: Tensor  # where the step ends
    gamma_t: Tensor  # where it starts
    dgamma: Tensor  # gamma_t - gamma_s
    kappa: Tensor | None  # [B] or [B or 1, ...], the volatility; None is 1


class Drawn(NamedTuple):
    """A context for each sample, and what it costs in nats."""

    value: Tensor  # [B, K], w
    kl: Tensor  # [B], KL(q(w | x) || p(w)), or an estimate of it from above
    log_ratio: Tensor  # [B], log p(w) - log q(w | x) of this w


class Hierarchy:
    """The latent variables z_1, ..., z_0 of data x, in T steps or infinitely many; for the pieces see DiffusionModel.

    A model with a context w is one of these for each w, whose network and schedule know it.
    """

    network: nn.Module  # a ScoreFunction
    flow_head: nn.Module | None  # a ScoreFunction too, see likeness.diffusion.flow
    encoder: DepthEncoder
    schedule: NoiseSchedule
    ratio: VarianceRatio | None
    volatility: Volatility | None
    input_shape: tuple[int, ...]
    levels: int
    prediction: Prediction
    counter_term: bool
    plug_in: bool
    reach: int | None
    basis: "Basis | None"  # in which z lives, and all that is said of its dimensions; None for pixels

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        raise NotImplementedError

    @property
    def num_steps(self) -> int | None:
        """T, or None for infinite depth."""
        raise NotImplementedError

    @property
    def terms_kind(self) -> type[AnyTerms]:
        """The class of what :meth:`elbo_terms` answers."""
        return ElboTerms

    @property
    def context_size(self) -> int | None:
        """How many numbers of noise a context takes that is not given yet; None for none."""
        return None

    def context_noise(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Standard normal noise for the contexts of ``count`` samples, [count, context_size]; None for none."""
        if self.context_size is None:
            return None
        return torch.randn(count, self.context_size, generator=generator, device=generator.device, dtype=self.dtype)

    def for_data(self, x: Tensor, eps_context: Tensor | None = None) -> tuple["Hierarchy", Drawn | None]:
        """The model with the contexts that noise [B, K] draws of scaled data x, and these; no noise is their mean.

        Where there is no context to be drawn it is the model itself, and None.
        """
        return self, None

    def from_prior(self, count: int, generator: torch.Generator) -> "Hierarchy":
        """The model with contexts drawn for ``count`` new samples; where there are none the model itself."""
        return self

    @property
    def dims(self) -> int:
        """d, the number of dimensions of a sample."""
        return int(torch.Size(self.input_shape).numel())

    def elbo_terms(
        self,
        images: Tensor,
        *,
        t: Tensor,
        eps_0: Tensor,
        eps: Tensor,
        weight: Tensor | None = None,
        labels: Tensor | None = None,
        lean: bool = False,
    ) -> ElboTerms:
        """The negative ELBO's terms in nats, [B] each, at times t [B] in [0, 1] with the given noise.

        ``images`` [B, ...] are integers 0 .. levels - 1. ``eps_0`` is the noise of z_0 and ``eps`` that of z_t. In
        finite depth a time stands for the step that contains it. ``weight`` [B] is 1 / p(t) of times that are not
        uniform; the diffusion term is multiplied by it.

        ``lean`` leaves encoder passes out: x_0 is taken to be x (they differ by sigma_0^2 |u|, at most 3.4e-6 at the
        papers' gamma_0, where the noise is 1.3e-3), and the latent term is the mean over the first quarter of the
        batch, for every sample: unbiased.

        Raises ValueError naming a value that is no grey level (not on an accelerator, where looking would wait for
        all that is under way).
        """
        x = self.scale(images, eps.dtype)
        gamma_0, gamma_1 = self.schedule.ends(t)
        x_0, latent = self._endpoints(x, gamma_0, gamma_1, labels, lean)
        z_0 = x_0 + torch.exp(0.5 * gamma_0) * eps_0
        reconstruction = -log_likelihood(images, self.pixels(z_0), gamma_0, self.levels, self.reach).flatten(1).sum(1)
        diffusion = self.diffusion_loss(x, t, eps, labels)
        return ElboTerms(reconstruction, latent, diffusion if weight is None else weight * diffusion)

    def scale(self, images: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """x, [B, ...], of grey levels, by default in the model's dtype; raises ValueError for others.

        It is in (-1, 1), or the coefficients of that in the model's basis.
        """
        require_levels(images, self.levels)
        return self.coefficients(scaled(images, self.levels, dtype or self.dtype))

    def coefficients(self, pixels: Tensor) -> Tensor:
        """Of images [B, ...] in the model's basis; they are the pixels themselves where there is none."""
        return pixels if self.basis is None else self.basis(pixels)

    def pixels(self, z: Tensor) -> Tensor:
        """The images [B, ...] of which x or z are the coefficients."""
        return z if self.basis is None else self.basis.inverse(z)

    def diffusion_loss(self, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
        """The diffusion term's estimate at times t, of scaled data x, in nats, [B]."""
        self._require_finite_depth_for_ratio()
        if self.num_steps is None:
            error, dgamma_dt = self.rate_error(x, t, eps, labels)
            return continuous_loss(error, dgamma_dt)
        step = self.step_error(x, t, eps, labels)
        rho = None if self.ratio is None else self.ratio(step.gamma_s, step.gamma_t)
        return self.num_steps * step_loss(step.error, step.dgamma, rho)

    def rate_error(self, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """In infinite depth: the error [B, ...] whose half square is the loss per gamma, and dgamma/dt."""
        rate = self.rate(x, t, eps, labels)
        kappa = None if self.volatility is None else self.volatility(rate.gamma)
        return continuous_error(rate.noise_error, rate.shift, kappa), rate.dgamma_dt

    def rate(self, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> Rate:
        """In infinite depth: what makes up the error at times t [B], of any volatility."""
        at = self.motion(x, t, labels)
        found = self._estimate(x, at.direction, at.gamma, eps, labels)
        if self.plug_in:
            answered, derivative = self.encoder.direction_with_derivative(found.x, at.gamma, labels)
            moved = rate_shift(found, answered - at.direction, derivative - at.derivative, at.gamma, 0.0)
            return Rate(plugged_error(found, answered, at.gamma), -moved, at.gamma, at.dgamma_dt)
        shift = rate_shift(found, at.direction, at.derivative, at.gamma, float(self.counter_term))
        return Rate(found.noise_error, shift, at.gamma, at.dgamma_dt)

    def motion(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Motion:
        """How the means of scaled data x [B, ...] move at times t [B]."""
        gamma, dgamma_dt = self.schedule.with_derivative(t)
        clock = self.schedule.clock(t, gamma)
        direction, derivative = self.encoder.direction_with_derivative(x, clock, labels)
        if self.schedule.multivariate and self.encoder.has_derivative:
            derivative = (self.schedule.clock_rate / dgamma_dt) * derivative
        return Motion(gamma, dgamma_dt, direction, derivative)

    def direction(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """gamma(t) and u, [B, ...], of scaled data x at times t [B]."""
        gamma = self.schedule(t)
        return gamma, self.encoder.direction(x, self.schedule.clock(t, gamma), labels)

    def mean(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """x_t, [B, ...], of scaled data x at times t [B]."""
        gamma, direction = self.direction(x, t, labels)
        return x + torch.sigmoid(broadcast(gamma, x)) * direction

    def step_error(self, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> StepError:
        """In finite depth: the error of the step that contains each time t [B]."""
        step = self.step(x, t, eps, labels)
        kappa = self.step_volatility(step.gamma_s, step.gamma_t)
        error = step_error(step.noise_error, step.shift, step.dgamma, kappa)
        return StepError(error, step.gamma_s, step.gamma_t, step.dgamma, kappa)

    def step(self, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> Step:
        """In finite depth: what makes up the error of the step that contains each time t [B], of any volatility."""
        if self.num_steps is None:
            raise ValueError("in infinite depth (num_steps=None) there are no steps: set num_steps")
        s, t = step_of(t, self.num_steps)
        gamma_s, gamma_t = self.schedule(s), self.schedule(t)
        dgamma = self.schedule.increment(t, 1 / self.num_steps)
        twice = None if labels is None else torch.cat([labels, labels])
        both = torch.cat([self.schedule.clock(s, gamma_s), self.schedule.clock(t, gamma_t)])
        direction_s, direction = self.encoder.direction(torch.cat([x, x]), both, twice).chunk(2)
        found = self._estimate(x, direction, gamma_t, eps, labels)
        directions, gammas = (direction_s, direction), (gamma_s, gamma_t)
        if self.plug_in:
            answered_s, answered = self.encoder.direction(torch.cat([found.x, found.x]), both, twice).chunk(2)
            differences = answered_s - direction_s, answered - direction
            moved = step_shift(found, differences, gammas, dgamma, 0.0)
            return Step(plugged_error(found, answered, gamma_t), -moved, gamma_s, gamma_t, dgamma)
        shift = step_shift(found, directions, gammas, dgamma, float(self.counter_term))
        return Step(found.noise_error, shift, gamma_s, gamma_t, dgamma)

    def predict(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x_hat, [B, ...], of z at gamma, [B] or [B, ...]."""
        return x_hat(self.network(z, gamma, labels), z, gamma, self.prediction)

    def generative_step(
        self,
        z_t: Tensor,
        gamma_s: Tensor,
        gamma_t: Tensor,
        x_hat: Tensor,
        ratio: VarianceRatio | None = None,
        labels: Tensor | None = None,
    ) -> Posterior:
        """p(z_s | z_t) of the prediction x_hat, gamma_s < gamma_t scalars or [B or 1, ...]; DiffEnc, eq. 14 and 15.

        ``ratio`` is of the variances: the model's own, where it is meant for steps of this size.
        """
        ends = batched(gamma_s, z_t), batched(gamma_t, z_t)
        if self.plug_in:
            answered = x_hat.to(self.dtype)
            x_s, x_t = (self.encoder(answered, repeated(end, answered), labels).to(x_hat) for end in (gamma_s, gamma_t))
        else:
            x_s, x_t = x_hat * (1 + self.counter_term * (gamma_t - gamma_s) * torch.sigmoid(gamma_t)), x_hat
        mean, variance = posterior(z_t, x_s, x_t, gamma_s, gamma_t, self.step_volatility(*ends))
        if ratio is None:
            return Posterior(mean, variance)
        return Posterior(mean, variance * torch.exp(broadcast(ratio(*ends), z_t)))

    def features(self, images: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The encoder's mean at t [B] through the score network without noise, averaged over positions, [B, M]."""
        gamma, mean = self.schedule(t), self.mean(self.scale(images, t.dtype), t, labels)
        return self.network.features(diffuse(mean, gamma, torch.zeros_like(mean)), gamma, labels)  # type: ignore[operator, no-any-return]

    def step_volatility(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor | None:
        """kappa of steps between these depths, [B] or [B or 1, ...]: that of the middle; None is 1."""
        return None if self.volatility is None else self.volatility((gamma_s + gamma_t) / 2)

    def _require_finite_depth_for_ratio(self) -> None:
        if self.num_steps is None and self.ratio is not None:
            name = type(self.ratio).__name__
            raise ValueError(f"in infinite depth (num_steps=None) any variance ratio but 1 costs infinity, got {name}")

    def _estimate(self, x: Tensor, direction: Tensor, gamma: Tensor, eps: Tensor, labels: Tensor | None) -> Estimate:
        x_t = x + torch.sigmoid(broadcast(gamma, x)) * direction
        z = diffuse(x_t, gamma, eps)
        return estimate(self.network(z, gamma, labels), z, x_t, eps, gamma, self.prediction)

    def _endpoints(
        self, x: Tensor, gamma_0: Tensor, gamma_1: Tensor, labels: Tensor | None, lean: bool
    ) -> tuple[Tensor, Tensor]:
        """x_0 [B, ...] and the latent loss [B]."""
        batch = len(x)
        if lean:
            part = x[: max(1, batch // 4)]
            own = None if labels is None else labels[: len(part)]
            x_1 = self.encoder(part, gamma_1.expand(len(part)), own)
            return x, latent_loss(x_1, gamma_1).mean().expand(batch)
        gammas = torch.cat([gamma_0.expand(batch), gamma_1.expand(batch)])
        twice = None if labels is None else torch.cat([labels, labels])
        x_0, x_1 = self.encoder(torch.cat([x, x]), gammas, twice).chunk(2)
        return x_0, latent_loss(x_1, gamma_1)


def require_levels(images: Tensor, levels: int) -> None:
    """Raise ValueError unless ``images`` [B, ...] are integers 0 .. levels - 1, naming a value that is not."""
    if images.device.type != "cpu" or images.numel() == 0 or torch.compiler.is_compiling():
        return
    if images.is_floating_point() and not (whole := images == images.round()).all():
        raise ValueError(f"images must be whole grey levels, got {images[~whole][0].item()}")
    lowest, highest = (value.item() for value in torch.aminmax(images))
    if lowest < 0 or highest >= levels:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"grey level {wrong} lies outside 0..{levels - 1} (levels={levels})")


def require_context_noise(model: Hierarchy, eps_context: Tensor | None) -> None:
    """Raise ValueError where a context is to be drawn for a bound without noise: its KL is that of draws."""
    if model.context_size is not None and eps_context is None:
        raise ValueError(f"a bound of a model with a context needs its noise: eps_context [B, {model.context_size}]")
