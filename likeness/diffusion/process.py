"""The forward process q(z_t | x) = N(alpha_t x_t, sigma_t^2 I) and its posteriors, in gamma = -log SNR.

Kingma et al. 2021 (VDM, arXiv 2107.00630) and Nielsen et al. 2024 (DiffEnc, arXiv 2310.19789), where the mean x_t of
the data depends on the depth t. The process is variance preserving: alpha^2 + sigma^2 = 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to be combined with ``like`` [B, ...]; a scalar stays one."""
    return values if values.dim() == 0 else values.reshape(-1, *[1] * (like.dim() - 1))


def alpha(gamma: Tensor) -> Tensor:
    """sqrt(sigmoid(-gamma)): not sqrt(1 - sigma^2), which has lost all digits at small gamma."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """sqrt(sigmoid(gamma))."""
    return torch.sigmoid(gamma).sqrt()


def snr(gamma: Tensor) -> Tensor:
    """Signal-to-noise ratio alpha^2 / sigma^2 = exp(-gamma)."""
    return torch.exp(-gamma)


def diffuse(x_t: Tensor, gamma: Tensor, eps: Tensor) -> Tensor:
    """z_t = alpha_t x_t + sigma_t eps, of x_t and eps [B, ...] and gamma [B] or a scalar."""
    gamma = broadcast(gamma, x_t)
    return alpha(gamma) * x_t + sigma(gamma) * eps


class Posterior(NamedTuple):
    """A Gaussian with independent dimensions of one variance."""

    mean: Tensor  # [B, ...]
    variance: Tensor  # [B, 1, ...] or a scalar


def posterior(z_t: Tensor, x_s: Tensor, x_t: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Posterior:
    """q(z_s | z_t, x) for depths s < t with data means x_s and x_t, [B, ...]; gammas are [B] or scalars.

    With x_s = x_t = x it is VDM's (its eq. 25 to 27); in general DiffEnc's eq. 8 and 9. ``x_t`` may be a prediction.
    """
    gamma_s, gamma_t = broadcast(gamma_s, z_t), broadcast(gamma_t, z_t)
    kept = -torch.expm1(gamma_s - gamma_t)  # r = 1 - SNR(t) / SNR(s)
    alpha_s = alpha(gamma_s)
    mean = alpha_s / alpha(gamma_t) * torch.exp(gamma_s - gamma_t) * z_t + alpha_s * (kept * x_t + (x_s - x_t))
    return Posterior(mean, torch.sigmoid(gamma_s) * kept)
