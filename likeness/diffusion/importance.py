"""The importance-weighted bound of a diffusion model of finite depth.

Burda et al. 2016 (arXiv 1509.00519). The weight of a path z_1, ..., z_0 drawn from q is p(x, z_0, ..., z_1) over
q(z_0, ..., z_1 | x). Paths are followed in the noise of z_t = alpha_t x_t + sigma_t eps_t, where a step of the
posterior is eps_s = exp(-dgamma / 2) eps_t + sqrt(r) eta with r = 1 - exp(-dgamma), for every encoder alike.
"""

import math

import torch
from torch import Tensor

from likeness.diffusion.decoder import log_likelihood
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, diffuse, sigma


@torch.no_grad()
def importance_weighted_bound(
    model: DiffusionModel,
    images: Tensor,
    num_samples: int,
    generator: torch.Generator,
    labels: Tensor | None = None,
) -> Tensor:
    """An upper bound of -log p(x) in nats, [B], of grey levels [B, ...]: -log of the mean of ``num_samples`` weights.

    Its expectation is the negative ELBO for one sample, and falls towards -log p(x) with more. Noise comes from
    ``generator``, on the images' device. Each sample costs one pass of the network for each step.

    Raises ValueError for num_samples < 1 and a model in infinite depth.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    weights = [log_weight(model, images, generator, labels) for _ in range(num_samples)]
    return math.log(num_samples) - torch.stack(weights).logsumexp(0)


@torch.no_grad()
def log_weight(
    model: DiffusionModel, images: Tensor, generator: torch.Generator, labels: Tensor | None = None
) -> Tensor:
    """log p(x, z) - log q(z | x) in nats, float64 [B], of one path z for each sample.

    Raises ValueError for a model in infinite depth.
    """
    if model.num_steps is None:
        raise ValueError("the importance-weighted bound needs finite depth, got num_steps=None: set num_steps")
    x = model.scale(images, model.dtype)
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    gamma_0, gamma_1 = model.schedule.ends(x)
    weight = _prior(model.encoder(x, gamma_1.expand(len(x)), labels), gamma_1, eps)
    for number in range(model.num_steps, 0, -1):
        t = x.new_full((len(x),), (number - 0.5) / model.num_steps)
        eta = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        gain, eps = _step(model, x, t, eps, eta, labels)
        weight = weight + gain
    z_0 = model.encoder(x, gamma_0.expand(len(x)), labels) + torch.exp(0.5 * gamma_0) * eps
    return weight + _total(log_likelihood(images, z_0, gamma_0, model.levels, model.reach))


def _prior(x_1: Tensor, gamma_1: Tensor, eps: Tensor) -> Tensor:
    """log p(z_1) - log q(z_1 | x), [B]."""
    z_1 = diffuse(x_1, gamma_1, eps)
    return _total(0.5 * (eps.square() - z_1.square()) + torch.log(sigma(gamma_1)))


def _step(
    model: DiffusionModel, x: Tensor, t: Tensor, eps: Tensor, eta: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """log p(z_s | z_t) - log q(z_s | z_t, x), [B], of the step that contains t, and the noise of z_s."""
    step = model.step_error(x, t, eps, labels)
    dgamma = broadcast(step.dgamma, x)
    # mu_P - mu_Q is sqrt(expm1(dgamma)) error, in units of sigma_Q
    off = eta - torch.expm1(dgamma).sqrt() * step.error
    rho = x.new_zeros(1) if model.ratio is None else model.ratio(step.gamma_s, step.gamma_t)
    rho = broadcast(rho, x) if rho.dim() == 1 else rho
    gain = _total(0.5 * (eta.square() - torch.exp(-rho) * off.square() - rho))
    return gain, torch.exp(-0.5 * dgamma) * eps + torch.sqrt(-torch.expm1(-dgamma)) * eta


def _total(values: Tensor) -> Tensor:
    return values.double().flatten(1).sum(1)
