"""Likelihoods beside the ELBO: the importance-weighted bound in finite depth, and the probability flow's.

Importance weights: Burda et al. 2016 (arXiv 1509.00519). The weight of a path z_1, ..., z_0 drawn from q is
p(x, z_0, ..., z_1) over q(z_0, ..., z_1 | x). Paths are followed in the noise of z_t = alpha_t x_t + sigma_t eps_t,
where a step of the posterior is eps_s = sqrt(1 - r) eps_t + sqrt(r) eta with r = 1 - exp(-kappa dgamma) and the
volatility kappa, for every encoder alike.

The probability flow is the ODE in gamma whose marginals are those of the diffusion process: Song et al. 2021
(arXiv 2011.13456), section 4.3. z = alpha x_t + sigma eps moves along its conditional expectation
given z, dz/dgamma = alpha^2 z / 2 - alpha E[x_t | z] / 2 + alpha E[dx_t/dgamma | z]. The head of a model with the
counter-term answers E[x_t - dx_t/dgamma | z] / (1 + sigma^2), so that both can be had where x_t is x times a known
factor m(gamma), in VDM and with the parameter-free encoder; with a trained encoder they cannot.
"""

import math

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import alpha, broadcast, diffuse, log_likelihood, sigma


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
    require_positive(num_samples=num_samples)
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
    rho = broadcast(rho, x)
    gain = _total(0.5 * (eta.square() - torch.exp(-rho) * off.square() - rho))
    fading = dgamma if step.kappa is None else broadcast(step.kappa, x) * dgamma
    return gain, torch.exp(-0.5 * fading) * eps + torch.sqrt(-torch.expm1(-fading)) * eta


def _total(values: Tensor) -> Tensor:
    return values.double().flatten(1).sum(1)


def conditional_mean(model: DiffusionModel, x_hat: Tensor, gamma: Tensor) -> Tensor:
    """E[x_t | z] of the model's x_hat [B, ...] at a scalar gamma.

    Raises ValueError for an encoder that is not x times a function of gamma.
    """
    variance, (_, rate) = torch.sigmoid(gamma), model.encoder.factor(gamma)
    return x_hat * ((1 + model.counter_term * variance) / (1 - rate))


def velocity(model: DiffusionModel, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
    """dz/dgamma along the flow, of z [B, ...] at a scalar gamma. Raises as :func:`conditional_mean`."""
    mean = conditional_mean(model, model.predict(z, gamma.to(z).expand(len(z)), labels), gamma)
    rate = model.encoder.factor(gamma)[1]
    return 0.5 * torch.sigmoid(-gamma) * z - (0.5 - rate) * alpha(gamma) * mean


def flow_step(model: DiffusionModel, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
    """z_s at a scalar gamma_s, were the noise and the data in z_t [B, ...] those that x_hat says; as DDIM's steps.

    Raises as :func:`conditional_mean`.
    """
    mean = conditional_mean(model, x_hat, gamma_t)
    eps = (z_t - alpha(gamma_t) * mean) / sigma(gamma_t)
    moved = mean * (model.encoder.factor(gamma_s)[0] / model.encoder.factor(gamma_t)[0])
    return diffuse(moved, gamma_s, eps)


@torch.no_grad()
def log_density(
    model: DiffusionModel,
    z_0: Tensor,
    labels: Tensor | None = None,
    probe: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Tensor:
    """log p(z_0) in nats, [B], of the density that the flow carries from N(0, I) at gamma(1) to gamma(0).

    Args:
        model: in evaluation mode.
        z_0: [B, ...].
        labels: [B], of a class-conditional model.
        probe: Hutchinson's estimate of the divergence with this noise [B, ...], of unit variance; None takes the exact
            trace, with one backward pass for each dimension.
        tolerance: relative and absolute, of the adaptive solver (Dormand-Prince).

    Raises as :func:`conditional_mean`.
    """
    from torchdiffeq import odeint

    gamma_0, gamma_1 = model.schedule.ends(z_0)

    def rates(gamma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return _with_divergence(model, state[0], gamma, labels, probe)

    start = (z_0, z_0.new_zeros(len(z_0)))
    path, gained = odeint(rates, start, torch.stack([gamma_0, gamma_1]), rtol=tolerance, atol=tolerance)
    prior = -0.5 * (path[-1].square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return prior + gained[-1]  # type: ignore[no-any-return]


@torch.no_grad()
def flow_bound(
    model: DiffusionModel,
    images: Tensor,
    eps_0: Tensor,
    labels: Tensor | None = None,
    probe: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Tensor:
    """An estimate of an upper bound of -log p(x) in nats, [B], of grey levels [B, ...] and noise ``eps_0`` of z_0.

    -log p(x | z_0) - log p(z_0) + log q(z_0 | x) at z_0 = alpha_0 x_0 + sigma_0 eps_0, with p(z_0) the density of the
    flow. It is the ELBO of a model with z_0 as its only latent variable: in expectation over eps_0 comparable with
    that of the diffusion model, to which it is equal for VDM with an exact denoiser in infinite depth.

    For the other arguments see :func:`log_density`. Raises as :func:`conditional_mean`.
    """
    gamma_0, _ = model.schedule.ends(eps_0)
    x = model.scale(images, eps_0.dtype)
    x_0 = model.encoder(x, gamma_0.expand(len(x)), labels)
    z_0 = diffuse(x_0, gamma_0, eps_0)
    density = log_density(model, z_0, labels, probe, tolerance)
    decoded = log_likelihood(images, z_0 / alpha(gamma_0), gamma_0, model.levels, model.reach)
    encoded = -0.5 * (eps_0.square() + math.log(2 * math.pi) + torch.log(torch.sigmoid(gamma_0)))
    return (encoded - decoded).flatten(1).sum(1) - density


def _with_divergence(
    model: DiffusionModel, z: Tensor, gamma: Tensor, labels: Tensor | None, probe: Tensor | None
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        speed = velocity(model, z, gamma, labels)
        divergence = _trace(speed, z) if probe is None else _product(speed, z, probe)
    return speed.detach(), divergence


def _product(speed: Tensor, z: Tensor, probe: Tensor) -> Tensor:
    """probe' J probe for each sample, [B], with J = dspeed/dz."""
    (gradient,) = torch.autograd.grad(speed, z, probe, retain_graph=True)
    return (gradient * probe).flatten(1).sum(1)


def _trace(speed: Tensor, z: Tensor) -> Tensor:
    places = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device).reshape(-1, *z.shape[1:])
    products = [_product(speed, z, place.expand_as(z)) for place in places]
    return torch.stack(products).sum(0)
