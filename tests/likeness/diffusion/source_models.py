"""Sources of independent, equally likely grey levels with their exact denoisers, and the bounds of their cells."""

import math

import torch
from scipy import stats
from torch import Tensor

from likeness.diffusion.dequantisation import Dequantisation, LearnedDequantisation, truncation
from likeness.diffusion.likelihoods import dequantised_bound
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled
from likeness.diffusion.schedules import LinearSchedule
from tests.likeness.diffusion.exact_models import GAMMA_1, DiscreteHead, encoder_of, factor_of, legendre, model_of

SOURCES = {"two levels": torch.tensor([64, 192]), "sixteen": torch.arange(8, 256, 16), "all": torch.arange(256)}
BLUNT = -8.7  # a gamma_0 at which the noise is 1.7 grey levels


def source_model(data: Tensor, gamma_0: float, gamma_1: float = GAMMA_1) -> DiffusionModel:
    """The exact denoiser of independent, equally likely levels."""
    head = DiscreteHead(scaled(data, 256, torch.float64), factor_of(1.0), "v", False)
    return model_of(head, encoder_of(1.0), LinearSchedule(gamma_0, gamma_1))


def cell_bits(
    data: Tensor, gamma_0: float, dequantisation: Dequantisation, own: Tensor | None = None, tolerance: float = 1e-7
) -> float:
    """The flow's bound over the cells of ``own``, by default of all levels, in expectation over the noise in them.

    By quadrature over the cell; the flow ends where z_1 is N(0, 1) to 1e-6.
    """
    model, own = source_model(data, gamma_0, 15.0), data if own is None else own
    tau = truncation(model, torch.tensor(gamma_0, dtype=torch.float64))
    noise = dequantisation(model.scale(own[:, None]), tau)
    shift, scale = (value.expand(len(own), 1).numpy() for value in (noise.shift, noise.scale))
    u, weights = legendre(12)
    cut = ((2 * u - 1) * tau)[:, None, None].expand(-1, len(own), 1).numpy()
    q = stats.truncnorm((-tau.item() - shift) / scale, (tau.item() - shift) / scale, shift, scale)
    eps = torch.from_numpy(stats.norm.ppf(q.cdf(cut)))  # which is mapped to the noise in the cell
    nats = dequantised_bound(
        model, own.repeat(len(u))[:, None], eps.reshape(1, -1, 1), tolerance=tolerance, dequantisation=dequantisation
    )
    weights = weights[:, None] * torch.from_numpy(q.pdf(cut))[..., 0]
    return (weights / weights.sum(0) * nats.reshape(weights.shape)).sum(0).mean().item() / math.log(2)


def random_dequantisation(shape: tuple[int, ...], size: float, seed: int = 0) -> LearnedDequantisation:
    """With normal weights and biases of this standard deviation."""
    network, source = LearnedDequantisation(shape).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=source))
    return network.requires_grad_(False)
