"""The decoder p(x | z_0) of data with grey levels: exact under a uniform prior over the levels.

Kingma et al. 2021 (VDM), eq. 8: p(k | z_0) is proportional to N(z_0 / alpha_0; x_k, exp(gamma_0)) over the levels
x_k = 2 (k + 1/2) / levels - 1.
"""

import math

import torch
from torch import Tensor

_NEGLIGIBLE = 45.0  # nats under which a level's weight is lost in float64's rounding


def scaled(levels_of_x: Tensor, levels: int) -> Tensor:
    """x in (-1, 1) of integers 0 .. levels - 1, in the default dtype; a shift by half a level, not to the ends."""
    return (levels_of_x.to(torch.get_default_dtype()) + 0.5) * (2 / levels) - 1


def nearest_level(x: Tensor, levels: int) -> Tensor:
    """The likeliest level of x = z_0 / alpha_0, int64 in 0 .. levels - 1."""
    return (((x + 1) * levels / 2 - 0.5).round()).clamp(0, levels - 1).long()


def neighbours_within_reach(gamma_0: float, levels: int) -> int:
    """How many levels on either side of the nearest one carry any weight; at the papers' gamma_0 it is two."""
    spacing = 2 / levels * math.exp(-gamma_0 / 2)  # in standard deviations
    reach = math.ceil((math.sqrt(1 + 8 * _NEGLIGIBLE / spacing**2) - 1) / 2)
    return min(max(reach, 1), levels - 1)


def log_likelihood(levels_of_x: Tensor, z: Tensor, gamma_0: Tensor, levels: int, reach: int | None = None) -> Tensor:
    """log p(k | z_0) in nats for each dimension, shaped as k: of the data k, z = z_0 / alpha_0 and a scalar gamma_0.

    ``reach`` levels on either side of the one nearest to z are summed over, all of them if None: the memory is that
    times the data's. :func:`neighbours_within_reach` says how many make a difference.
    """
    precision = torch.exp(-0.5 * gamma_0)
    own = (z - scaled(levels_of_x, levels).to(z)) * precision
    return -0.5 * own.square() - _log_normaliser(z, precision, levels, reach)


def sample_level(z: Tensor, gamma_0: Tensor, levels: int, generator: torch.Generator | None = None) -> Tensor:
    """A draw from p(k | z_0), int64, of z = z_0 / alpha_0."""
    values = scaled(torch.arange(levels, device=z.device), levels).to(z)
    logits = -0.5 * ((z[..., None] - values) * torch.exp(-0.5 * gamma_0)).square()
    flat = logits.softmax(-1).flatten(0, -2)
    return torch.multinomial(flat, 1, generator=generator).reshape(z.shape)


def _log_normaliser(z: Tensor, precision: Tensor, levels: int, reach: int | None) -> Tensor:
    if reach is None or 2 * reach + 1 >= levels:
        near = torch.arange(levels, device=z.device).expand(*z.shape, levels)
    else:
        near = nearest_level(z.detach(), levels)[..., None] + torch.arange(-reach, reach + 1, device=z.device)
    energies = -0.5 * ((z[..., None] - scaled(near, levels).to(z)) * precision).square()
    return energies.masked_fill((near < 0) | (near >= levels), -torch.inf).logsumexp(-1)
