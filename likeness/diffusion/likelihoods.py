"""Likelihoods beside the ELBO: the importance-weighted bound in finite depth, and the probability flow's.

Importance weights: Burda et al. 2016 (arXiv 1509.00519). The weight of a path z_1, ..., z_0 drawn from q is
p(x, z_0, ..., z_1) over q(z_0, ..., z_1 | x). Paths are followed in the noise of z_t = alpha_t x_t + sigma_t eps_t,
where a step of the posterior is eps_s = sqrt(1 - r) eps_t + sqrt(r) eta with r = 1 - exp(-kappa dgamma) and the
volatility kappa, for every encoder alike.

Of the probability flow (likeness.diffusion.flow) there are two bounds. One keeps the diffusion model's decoder. The
other is that of Zheng et al. 2023 (i-DODE, arXiv 2305.03935): p(x) is the mass that the density of the flow has in the
cell of the grey levels x, which needs no decoder.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from likeness.checks import require_positive
from likeness.diffusion.dequantisation import Dequantisation, centred, centres, truncation
from likeness.diffusion.flow import log_density
from likeness.diffusion.hierarchy import Hierarchy, require_context_noise
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import Noise, alpha, broadcast, diffuse, log_likelihood, sigma


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
    """log p(x, z) - log q(z | x) in nats, float64 [B], of one path z, with its context, for each sample.

    Raises ValueError for a model in infinite depth.
    """
    if model.num_steps is None:
        raise ValueError("the importance-weighted bound needs finite depth, got num_steps=None: set num_steps")
    x = model.scale(images, model.dtype)
    given, context = model.for_data(x, model.context_noise(len(x), generator))
    eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    gamma_0, gamma_1 = model.schedule.ends(x)
    weight = _prior(model.encoder(x, gamma_1.expand(len(x)), labels), gamma_1, eps)
    for number in range(model.num_steps, 0, -1):
        t = x.new_full((len(x),), (number - 0.5) / model.num_steps)
        eta = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        gain, eps = _step(given, x, t, eps, eta, labels)
        weight = weight + gain
    z_0 = model.encoder(x, gamma_0.expand(len(x)), labels) + torch.exp(0.5 * gamma_0) * eps
    weight = weight + _total(log_likelihood(images, model.pixels(z_0), gamma_0, model.levels, model.reach))
    return weight if context is None else weight + context.log_ratio.double()


def _prior(x_1: Tensor, gamma_1: Tensor, eps: Tensor) -> Tensor:
    """log p(z_1) - log q(z_1 | x), [B]."""
    z_1 = diffuse(x_1, gamma_1, eps)
    return _total(0.5 * (eps.square() - z_1.square()) + torch.log(sigma(gamma_1)))


def _step(
    model: Hierarchy, x: Tensor, t: Tensor, eps: Tensor, eta: Tensor, labels: Tensor | None
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


@torch.no_grad()
def flow_bound(
    model: DiffusionModel,
    images: Tensor,
    eps_0: Tensor,
    labels: Tensor | None = None,
    probe: Tensor | None = None,
    tolerance: float = 1e-5,
    eps_context: Tensor | None = None,
) -> Tensor:
    """An estimate of an upper bound of -log p(x) in nats, [B], of grey levels [B, ...] and noise ``eps_0`` of z_0.

    -log p(x | z_0) - log p(z_0) + log q(z_0 | x) at z_0 = alpha_0 x_0 + sigma_0 eps_0, with p(z_0) the density of the
    flow. It is the ELBO of a model with z_0 as its only latent variable: in expectation over eps_0 comparable with
    that of the diffusion model, to which it is equal for VDM with an exact denoiser in infinite depth. The flow is that
    of a model given a context, which is drawn with the noise ``eps_context`` [B, K] and costs its KL.

    For the other arguments see :func:`likeness.diffusion.flow.log_density`. Raises where the flow is unknown.
    """
    gamma_0, _ = model.schedule.ends(eps_0)
    x = model.scale(images, eps_0.dtype)
    require_context_noise(model, eps_context)
    given, context = model.for_data(x, eps_context)
    x_0 = model.encoder(x, gamma_0.expand(len(x)), labels)
    z_0 = diffuse(x_0, gamma_0, eps_0)
    density = log_density(given, z_0, labels, probe, tolerance)
    decoded = log_likelihood(images, model.pixels(z_0) / alpha(gamma_0), gamma_0, model.levels, model.reach)
    encoded = -0.5 * (eps_0.square() + math.log(2 * math.pi) + logsigmoid(gamma_0))
    bound = (encoded - decoded).flatten(1).sum(1) - density
    return bound if context is None else bound + context.kl


@torch.no_grad()
def dequantised_bound(
    model: DiffusionModel,
    images: Tensor,
    eps_0: Tensor,
    labels: Tensor | None = None,
    probe: Tensor | None = None,
    tolerance: float = 1e-5,
    dequantisation: Dequantisation = centred,
    eps_context: Tensor | None = None,
) -> Tensor:
    """An estimate of an upper bound of -log p(x) in nats, [B], of grey levels [B, ...], by K draws in their cell.

    z_0 is alpha_0 x_0 + sigma_0 eps with eps cut to +-tau, half a grey level, and p(z_0) the density of the flow. With
    ``eps_0`` [K, B, ...], standard normal noise that is mapped to the cut one, the answer is -log of the mean of K
    weights p(z_0) / q(z_0 | x), for K = 1 with log q in expectation. It falls towards -log p(x) as K grows.

    ``dequantisation`` says how eps is distributed: standard normal noise that is cut, or learned. Of a model with a
    context each draw has its own, from ``eps_context`` [K, B, ...]: it costs its KL, and is a part of the weights.

    With K > 1 use the exact trace (``probe`` None): an estimated one has noise, which the log of the mean turns into a
    number below the bound, by up to half its variance. One ``probe`` is used for all K, which keeps most of that out.

    For the other arguments see :func:`likeness.diffusion.flow.log_density`. Raises where the flow is unknown, and
    ValueError for no draws.
    """
    require_positive(draws=len(eps_0))
    require_context_noise(model, eps_context)
    gamma_0, _ = model.schedule.ends(eps_0)
    x = model.scale(images, eps_0.dtype)
    x_0 = centres(model, x, gamma_0, labels)
    noise = dequantisation(model.pixels(x), truncation(model, gamma_0))  # cells are of pixels
    cut, log_sigma = noise.cut(eps_0), 0.5 * logsigmoid(gamma_0.double())
    contexts = [model.for_data(x, each) for each in ([None] * len(cut) if eps_context is None else eps_context)]
    densities = [
        log_density(given, diffuse(x_0, gamma_0, model.coefficients(eps)), labels, probe, tolerance).double()
        for (given, _), eps in zip(contexts, cut.to(eps_0), strict=True)
    ]
    drawn = [context for _, context in contexts if context is not None]
    if len(eps_0) == 1:
        kl = sum(context.kl for context in drawn)
        return kl - densities[0] - (noise.entropy() + log_sigma).expand(x.shape).flatten(1).sum(1)
    encoded = noise.log_density(cut) - log_sigma
    weights = torch.stack(densities) - encoded.flatten(2).sum(2)
    if drawn:
        weights = weights + torch.stack([context.log_ratio for context in drawn])
    return math.log(len(weights)) - weights.logsumexp(0)


def elbo(model: DiffusionModel, images: Tensor, noise: Noise, labels: Tensor | None = None) -> Tensor:
    """The negative ELBO in nats, [B], of grey levels [B, ...]; see :meth:`DiffusionModel.elbo_terms`."""
    return model.elbo_terms(images, **noise._asdict(), labels=labels).total


BOUNDS: Mapping[str, Callable[..., Tensor]] = {
    "ELBO": elbo,
    "IW": importance_weighted_bound,
    "ODE": flow_bound,
    "ODE-TN": dequantised_bound,
    "ODE-VD": dequantised_bound,  # with a dequantisation that is learned
}
"""Every estimate of -log p(x) that is reported as a bound, by its kind: none may fall below the entropy of a source."""
