"""The probability flow: the ODE whose marginals are those of the diffusion process, and its density.

Song et al. 2021 (arXiv 2011.13456), section 4.3. z = alpha x_t + sigma eps moves along its conditional expectation
given z, dz/dgamma = alpha^2 z / 2 - alpha E[x_t | z] / 2 + alpha E[dx_t/dgamma | z]. The head of a model with the
counter-term answers E[x_t - dx_t/dgamma | z] / (1 + sigma^2), so that both can be had where x_t is x times a known
factor m(gamma), in VDM and with the parameter-free encoder; with a trained encoder they cannot. With a volatility kappa
in training, (1 + kappa) / 2 stands in place of both ones. The flow itself has no volatility. It is integrated over
gamma, or over t where each dimension has a gamma of its own: dz_i/dt = dgamma_i/dt dz_i/dgamma_i.

For a trained encoder a second network can learn what is missing, E[x_t - 2 dx_t/dgamma | z], by flow matching (Lipman
et al. 2023, arXiv 2210.02747): see :func:`flow_matching_loss`. Any smooth vector field carries a normalised density, so
that bounds by it are bounds however well it was learned.
"""

import math

import torch
from torch import Tensor

from likeness.diffusion.elbo import continuous_loss, estimate
from likeness.diffusion.elbo import x_hat as data_of
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.process import alpha, batched, broadcast, diffuse, repeated, sigma


def require_flow(model: Hierarchy) -> None:
    """Raise ValueError for an encoder that is not x times a function of gamma, unless the model has a flow head."""
    if model.flow_head is None:
        model.encoder.factor(torch.zeros(()))


def flow_matching_loss(model: Hierarchy, x: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None = None) -> Tensor:
    """What the flow head is trained on, in nats, [B], at times t [B] of scaled data x with noise eps, [B, ...].

    dgamma/dt |(alpha / sigma) (q - (x_t - 2 dx_t/dgamma))|^2 / 2 of its answer q: least at the conditional mean. Only
    the head is trained by it. In VDM it is the diffusion term. Raises ValueError for a model without a flow head.
    """
    if model.flow_head is None:
        raise ValueError("flow matching trains a flow head, but the model has none")
    with torch.no_grad():
        at = model.motion(x, t, labels)
        gamma = broadcast(at.gamma, x)
        x_t = x + torch.sigmoid(gamma) * at.direction
        z = diffuse(x_t, at.gamma, eps)
        twice = 2 * alpha(gamma) * sigma(gamma) * (torch.sigmoid(-gamma) * at.direction + at.derivative)
    found = estimate(model.flow_head(z, at.gamma, labels), z, x_t, eps, at.gamma, model.prediction)
    return continuous_loss(found.noise_error + twice, at.dgamma_dt)


def flow_mean(model: Hierarchy, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
    """E[x_t - 2 dx_t/dgamma | z], of z [B, ...] at a gamma that is a scalar, or [B or 1, ...].

    By the flow head, or of the model's x_hat. Raises as :func:`conditional_mean`.
    """
    if model.flow_head is not None:
        at = repeated(gamma, z)
        return data_of(model.flow_head(z, at, labels), z, at, model.prediction)
    mean = conditional_mean(model, model.predict(z, repeated(gamma, z), labels), gamma)
    return 2 * (0.5 - model.encoder.factor(gamma)[1]) * mean


def conditional_mean(model: Hierarchy, x_hat: Tensor, gamma: Tensor) -> Tensor:
    """E[x_t | z] of the model's x_hat [B, ...] at a gamma that is a scalar, or [B or 1, ...].

    Raises ValueError for an encoder that is not x times a function of gamma.
    """
    variance, (factor, rate) = torch.sigmoid(gamma), model.encoder.factor(gamma)
    if model.plug_in:  # the head answers E[x | z]
        return x_hat * factor
    kept: Tensor | float = 1.0
    if model.volatility is not None and model.volatility.of_training:
        kept = 0.5 * (1 + model.volatility(batched(gamma, x_hat)))
    return x_hat * ((kept + model.counter_term * variance) / (kept - rate))


def velocity(model: Hierarchy, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
    """dz/dgamma along the flow, of z [B, ...] at a gamma that is a scalar, or at that of each dimension, [B or 1, ...].

    Raises as :func:`conditional_mean`.
    """
    return 0.5 * torch.sigmoid(-gamma) * z - 0.5 * alpha(gamma) * flow_mean(model, z, gamma, labels)


def flow_step(
    model: Hierarchy, z_t: Tensor, x_hat: Tensor, gamma_s: Tensor, gamma_t: Tensor, labels: Tensor | None = None
) -> Tensor:
    """z_s, were the noise and the data in z_t [B, ...] those that x_hat says; as DDIM's steps.

    With a flow head q it is the solution of the ODE with q held fixed, d(z / alpha)/dgamma = (z / alpha - q) / 2, which
    are DDIM's steps too where q is x. gamma_s and gamma_t are scalars or [B or 1, ...]. Raises as
    :func:`conditional_mean`.
    """
    if model.flow_head is not None:
        fixed = flow_mean(model, z_t, gamma_t, labels)
        return alpha(gamma_s) * (fixed + torch.exp(0.5 * (gamma_s - gamma_t)) * (z_t / alpha(gamma_t) - fixed))
    mean = conditional_mean(model, x_hat, gamma_t)
    eps = (z_t - alpha(gamma_t) * mean) / sigma(gamma_t)
    moved = mean * (model.encoder.factor(gamma_s)[0] / model.encoder.factor(gamma_t)[0])
    return diffuse(moved, gamma_s, eps)


@torch.no_grad()
def log_density(
    model: Hierarchy,
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

    def rates(place: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return _with_divergence(model, state[0], place, labels, probe)

    start, ends = (z_0, z_0.new_zeros(len(z_0))), torch.stack(model.schedule.ends(z_0))
    span = z_0.new_tensor([0.0, 1.0]) if model.schedule.multivariate else ends
    path, gained = odeint(rates, start, span, rtol=tolerance, atol=tolerance)
    prior = -0.5 * (path[-1].square() + math.log(2 * math.pi)).flatten(1).sum(1)
    return prior + gained[-1]  # type: ignore[no-any-return]


def _with_divergence(
    model: Hierarchy, z: Tensor, place: Tensor, labels: Tensor | None, probe: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The change of z by gamma, or by t of a multivariate schedule, and its divergence."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        if model.schedule.multivariate:
            gamma, slope = model.schedule.with_derivative(place[None])
            speed = slope * velocity(model, z, gamma, labels)
        else:
            speed = velocity(model, z, place, labels)
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
