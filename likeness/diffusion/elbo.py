"""The terms of the negative ELBO, in nats, at given times and noise.

Kingma et al. 2021 (VDM) and Nielsen et al. 2024 (DiffEnc); the volatility kappa is that of
likeness.diffusion.volatility. Errors are in units of the noise: e = eps - eps_hat is
alpha (v - v_hat) and (alpha / sigma) (x_hat - x_t), and stays of order one where SNR times a difference of data would
cancel. c is 1 with the counter-term of the generative model, 0 without. Wherever gamma and what is made of it is [B],
it may be [B or 1, ...], of each dimension.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.process import alpha, broadcast, sigma

Prediction = Literal["v", "eps", "x"]
_SERIES_BELOW = 0.02  # where expm1(-rho) + rho loses digits in float32


class ElboTerms(NamedTuple):
    """The three terms of the negative ELBO in nats for each sample, [B]."""

    reconstruction: Tensor
    latent: Tensor
    diffusion: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, an upper bound of -log p(x), [B]."""
        return self.reconstruction + self.latent + self.diffusion


class ElboTermsWithContext(NamedTuple):
    """The terms of a model with a context, in nats for each sample, [B]."""

    reconstruction: Tensor
    latent: Tensor
    diffusion: Tensor
    context: Tensor  # KL of the context, see likeness.diffusion.context

    @property
    def total(self) -> Tensor:
        """Their sum, an upper bound of -log p(x), [B]."""
        return self.reconstruction + self.latent + self.diffusion + self.context


AnyTerms = ElboTerms | ElboTermsWithContext


def mapped(function: Callable[[Tensor], Tensor], terms: AnyTerms) -> AnyTerms:
    """The function of each term."""
    return type(terms)(*map(function, terms))


class Estimate(NamedTuple):
    """What a network's output says of z_t."""

    x: Tensor  # x_hat
    noise_error: Tensor  # eps - eps_hat


def estimate(output: Tensor, z: Tensor, x_t: Tensor, eps: Tensor, gamma: Tensor, prediction: Prediction) -> Estimate:
    """x_hat and eps - eps_hat of the network's ``output``, [B, ...], where z = alpha x_t + sigma eps; gamma is [B]."""
    gamma = broadcast(gamma, z)
    a, s = alpha(gamma), sigma(gamma)
    if prediction == "v":
        return Estimate(a * z - s * output, a * (a * eps - s * x_t - output))
    if prediction == "eps":
        return Estimate((z - s * output) / a, eps - output)
    return Estimate(output, a / s * (output - x_t))


def x_hat(output: Tensor, z: Tensor, gamma: Tensor, prediction: Prediction) -> Tensor:
    """The data that the network's ``output`` predicts of z, [B, ...]; gamma is [B] or a scalar."""
    gamma = broadcast(gamma, z)
    if prediction == "v":
        return alpha(gamma) * z - sigma(gamma) * output
    if prediction == "eps":
        return (z - sigma(gamma) * output) / alpha(gamma)
    return output


def latent_loss(x_1: Tensor, gamma_1: Tensor) -> Tensor:
    """KL(q(z_1 | x) || N(0, I)) in nats, [B], of the mean x_1 at depth 1 and a scalar gamma_1."""
    # In this order for parity with the published code: float32 keeps sigma^2 - log sigma^2 - 1 to 1e-8 nats.
    variance = torch.sigmoid(gamma_1)
    return 0.5 * ((1 - variance) * x_1.square() + variance - variance.log() - 1).flatten(1).sum(1)


def rate_shift(found: Estimate, direction: Tensor, derivative: Tensor, gamma: Tensor, c: float) -> Tensor:
    """alpha sigma (c x_hat + alpha^2 u + D u), [B, ...]: what the moving mean adds to eps - eps_hat in the rate."""
    gamma = broadcast(gamma, found.x)
    a = alpha(gamma)
    return a * sigma(gamma) * (c * found.x + a.square() * direction + derivative)


def plugged_error(found: Estimate, direction: Tensor, gamma: Tensor) -> Tensor:
    """(alpha / sigma) (x_hat + sigma^2 u(x_hat) - x_t), [B, ...]: e where the encoder is applied to x_hat.

    ``direction`` is u(x_hat). The shift is then less that of u(x_hat) - u(x) in place of u, with c = 0, so that both
    are 0 where x_hat = x.
    """
    gamma = broadcast(gamma, direction)
    return found.noise_error + alpha(gamma) * sigma(gamma) * direction


def continuous_error(noise_error: Tensor, shift: Tensor, kappa: Tensor | None = None) -> Tensor:
    """The error, [B, ...], whose half square times dgamma/dt is the rate of the loss: e + the shift of the rate.

    Equal to exp(-gamma / 2) ((1 + c sigma^2) x_hat - x_t + D x_t), DiffEnc's eq. 18, without its cancellation. With a
    volatility ``kappa``, [B] or [B or 1, ...], it is ((1 + kappa) / 2 e + the shift) / sqrt(kappa).
    """
    if kappa is None:
        return noise_error + shift
    kappa = broadcast(kappa, shift)
    return (0.5 * (1 + kappa) * noise_error + shift) / kappa.sqrt()


def step_shift(
    found: Estimate, directions: tuple[Tensor, Tensor], gammas: tuple[Tensor, Tensor], dgamma: Tensor, c: float
) -> Tensor:
    """(alpha / sigma) (c dgamma sigma^2 x_hat - (x_s - x_t)) / r, [B, ...]: what the moving mean adds in a step.

    r = 1 - exp(-dgamma); ``directions`` and ``gammas`` are those at s and at t. x_s - x_t is taken as
    sigma_s^2 (u_s - u_t) - r sigma_t^2 alpha_s^2 u_t: float32 would lose a difference of the means.
    """
    direction_s, direction = directions
    gamma_s, gamma, dgamma = (broadcast(value, found.x) for value in (*gammas, dgamma))
    variance_s, variance = torch.sigmoid(gamma_s), torch.sigmoid(gamma)
    moved = c * dgamma * found.x - variance_s / variance * (direction_s - direction)
    shift = torch.sigmoid(-gamma_s) * direction - moved / torch.expm1(-dgamma)
    return alpha(gamma) * sigma(gamma) * shift


def step_error(noise_error: Tensor, shift: Tensor, dgamma: Tensor, kappa: Tensor | None = None) -> Tensor:
    """The error of the step from t to s < t, [B, ...]: e + the shift of the step.

    Its square times expm1(dgamma) / 2 is the step's KL at equal variances, |mu_P - mu_Q|^2 / (2 sigma_Q^2) (DiffEnc,
    eq. 13). With a volatility ``kappa``, [B] or [B or 1, ...], e counts q / r times as much, where
    q = 1 - exp(-(1 + kappa) dgamma / 2), and the noise has r_kappa / r times the variance.
    """
    if kappa is None:
        return noise_error + shift
    kappa, dgamma = broadcast(kappa, shift), broadcast(dgamma, shift)
    q, r_kappa, r = (-torch.expm1(-rate * dgamma) for rate in (0.5 * (1 + kappa), kappa, torch.ones_like(kappa)))
    return q / (r_kappa * r).sqrt() * (noise_error + r / q * shift)  # of kappa = 1: bitwise the sum


def continuous_loss(error: Tensor, dgamma_dt: Tensor) -> Tensor:
    """The rate of the diffusion term at t, dgamma/dt |error|^2 / 2, in nats, [B]."""
    if dgamma_dt.dim() > 1:
        return 0.5 * (dgamma_dt * error.square()).flatten(1).sum(1)
    return 0.5 * dgamma_dt * error.square().flatten(1).sum(1)


def step_loss(error: Tensor, dgamma: Tensor, rho: Tensor | None = None) -> Tensor:
    """KL between the posteriors of one step, in nats, [B].

    ``rho`` is log(sigma_P^2 / sigma_Q^2), one number a sample [B] or one for each dimension [B or 1, ...]; None is
    equal variances. DiffEnc, appendix F: (expm1(-rho) + rho) / 2 a dimension, and the equal-variance KL times
    exp(-rho).
    """
    squared = 0.5 * torch.expm1(broadcast(dgamma, error)) * error.square()
    if rho is None:
        return squared.flatten(1).sum(1)
    rho = broadcast(rho, error)
    return (0.5 * variance_cost(rho) + torch.exp(-rho) * squared).flatten(1).sum(1)


def variance_cost(rho: Tensor) -> Tensor:
    """exp(-rho) - 1 + rho: twice the nats a dimension that unequal variances cost; a series near zero."""
    series = rho.square() * (0.5 - rho / 6 + rho.square() / 24 - rho**3 / 120)
    return torch.where(rho.abs() < _SERIES_BELOW, series, torch.expm1(-rho) + rho)


def bits_per_dim(nats: Tensor, dims: int) -> Tensor:
    """Nats a sample as bits per dimension."""
    return nats / (dims * math.log(2))
