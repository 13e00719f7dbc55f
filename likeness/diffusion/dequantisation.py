"""Noise in the cell of the grey levels: q(z_0 | x) for bounds by the density of z_0, without a decoder.

The cell of x is all z_0 = alpha_0 x_0 + sigma_0 eps with |eps| < tau, half a grey level. Cells are disjoint, so the
mass of a density p in them is a distribution of grey levels, and E_q[log q(z_0) - log p(z_0)] bounds -log of the mass,
by Jensen's inequality, for every q whose support is the cell: a bad one is loose, none is wrong. Here eps is normal
noise of mean shift and standard deviation scale, cut to +-tau: with 0 and 1 what Zheng et al. 2023 (i-DODE, arXiv
2305.03935) take, or what a network of x answers, "variational dequantisation" (Ho et al. 2019, arXiv 1902.00275).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likeness.checks import require_positive
from likeness.diffusion.flow import conditional_mean, flow_mean
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import alpha, diffuse, repeated, sigma
from likeness.networks.unet_blocks import convolution, dense
from likeness.seeding import seeded

FARTHEST = 4.0  # of the shift outside the cell
WIDEST = 2.0  # of |log scale|: further out the tails of the normal distribution would leave float64


class CutNormal(NamedTuple):
    """The normal distribution N(shift, scale^2) cut to +-tau, in float64, for each dimension of samples [B, ...]."""

    tau: Tensor  # a scalar
    shift: Tensor  # [B, ...] or a scalar
    scale: Tensor  # [B, ...] or a scalar

    def cut(self, eps: Tensor) -> Tensor:
        """Standard normal noise [..., B, ...] mapped to this distribution by its quantiles; differentiable."""
        below, mass = self._masses()
        sign = self._sign()
        inside = torch.special.ndtri(below + mass * _below(sign * eps.double()))
        cut: Tensor = self.shift + self.scale * sign * inside
        return cut.clamp(-self.tau, self.tau)

    def log_density(self, cut: Tensor) -> Tensor:
        """In nats, shaped as ``cut``, which lies within +-tau."""
        square = ((cut - self.shift) / self.scale).square()
        return -0.5 * (square + math.log(2 * math.pi)) - torch.log(self.scale * self._masses()[1])

    def entropy(self) -> Tensor:
        """In nats, shaped as shift and scale."""
        low, high = self._limits()
        mass = self._masses()[1]
        weighted = (low * torch.exp(-0.5 * low.square()) - high * torch.exp(-0.5 * high.square())) / mass
        return 0.5 * (1 + math.log(2 * math.pi) + weighted / math.sqrt(2 * math.pi)) + torch.log(self.scale * mass)

    def _sign(self) -> Tensor:
        """Of the shift: mirrored by it the mass stands in the lower tail, where float64 keeps its digits."""
        return torch.where(self.shift < 0, -1.0, 1.0).to(self.shift)

    def _limits(self) -> tuple[Tensor, Tensor]:
        """The mirrored cell's ends as the standard normal distribution sees them."""
        shift = self._sign() * self.shift
        return (-self.tau - shift) / self.scale, (self.tau - shift) / self.scale

    def _masses(self) -> tuple[Tensor, Tensor]:
        """Of the standard normal distribution, below the mirrored cell and inside."""
        low, high = (_below(end) for end in self._limits())
        return low, high - low


def _below(x: Tensor) -> Tensor:
    """The mass of the standard normal distribution below x, to float64's digits in its lower tail: ndtr's are lost."""
    mass: Tensor = 0.5 * torch.special.erfc(-math.sqrt(0.5) * x)
    return mass


Dequantisation = Callable[[Tensor, Tensor], CutNormal]
"""Of scaled data x [B, ...] and tau, the noise in their cells."""


def centred(x: Tensor, tau: Tensor) -> CutNormal:
    """Standard normal noise cut to the cell, the same for all x."""
    return CutNormal(tau, torch.zeros_like(tau), torch.ones_like(tau))


class LearnedDequantisation(nn.Module):
    """Shift and scale by a network of x: two hidden layers, of convolutions for images; :func:`centred` at the start.

    The mode of the normal distribution is kept within 4 of the cell, and its scale between exp(-2) and exp(2).

    Args:
        input_shape: of one sample, [D] or [C, H, W].
        width: of the hidden layers.

    Raises ValueError for samples of another kind.
    """

    def __init__(self, input_shape: Sequence[int], width: int = 32) -> None:
        super().__init__()
        require_positive(width=width)
        if len(input_shape) not in (1, 3):
            raise ValueError(f"a learned dequantisation is of samples [D] or [C, H, W], got {list(input_shape)}")
        layer, channels = (dense if len(input_shape) == 1 else convolution), input_shape[0]
        self.hidden = nn.Sequential(layer(channels, width), nn.SiLU(), layer(width, width), nn.SiLU())
        self.out = layer(width, 2 * channels, zero=True)

    def forward(self, x: Tensor, tau: Tensor) -> CutNormal:
        """Of scaled data x [B, ...] and tau, the noise in their cells."""
        shift, scale = self.out(self.hidden(x.to(self.out.weight.dtype))).double().chunk(2, dim=1)
        farthest = tau + FARTHEST
        return CutNormal(tau, farthest * torch.tanh(shift / farthest), torch.exp(WIDEST * torch.tanh(scale / WIDEST)))


def centres(model: Hierarchy, x: Tensor, gamma_0: Tensor, labels: Tensor | None = None) -> Tensor:
    """The middles of the cells of scaled data x [B, ...]: x_0, or with a flow head x, as x_0 is no scale of it then."""
    return x if model.flow_head is not None else model.encoder(x, gamma_0.expand(len(x)), labels)


def truncation(model: Hierarchy, gamma_0: Tensor) -> Tensor:
    """tau: half a grey level in z_0 over sigma_0, a scalar in float64; raises where the flow is unknown."""
    at = gamma_0.double()
    factor = torch.ones_like(at) if model.flow_head is not None else model.encoder.factor(at)[0]
    tau: Tensor = factor * torch.exp(-0.5 * gamma_0.double()) / model.levels
    return tau


def fit_dequantisation(
    model: DiffusionModel,
    batches: Iterable[tuple[Tensor, Tensor | None]],
    generator: torch.Generator,
    num_steps: int = 1000,
    learning_rate: float = 3e-3,
) -> LearnedDequantisation:
    """What is learned on these batches, of grey levels [B, ...] and labels, by Adam with a rate that falls to zero.

    The batches are gone through again and again. The loss is E_q[log q(z_0) - log p(z_0)] with p(z_0) the density of
    the flow, but no ODE is solved: the gradient goes through z_0 as a function of the noise, the shift and the scale,
    and that of log p(z_0) is taken to be the model's score at gamma_0, -eps_hat / sigma_0. It takes a pass of the
    network each step, and none back. The flow's own gradient it is only of an exact model: of any other what is fitted
    is not quite the best, and the bound is one all the same.

    The model is in evaluation mode. Noise and first weights come from ``generator``, on the images' device. Raises
    ValueError for no data and for no steps, and where the flow is unknown.
    """
    require_positive(num_steps=num_steps)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with seeded(seed):
        learned = LearnedDequantisation(model.input_shape)
    optimiser = torch.optim.Adam(learned.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, num_steps)
    rounds = islice(cycle(batches), num_steps)
    for images, labels in rounds:
        x = model.scale(images, model.dtype)
        learned.to(x)
        given, _ = model.for_data(x, model.context_noise(len(x), generator))
        eps = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        optimiser.zero_grad()
        with torch.enable_grad():
            pathwise_loss(given, learned, x, eps, labels).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    if schedule.last_epoch == 0:
        raise ValueError("a dequantisation needs at least one batch to be fitted on, got none")
    return learned.eval().requires_grad_(False)


def pathwise_loss(
    model: Hierarchy, dequantisation: Dequantisation, x: Tensor, eps: Tensor, labels: Tensor | None = None
) -> Tensor:
    """[B], whose gradient is in expectation that of E_q[log q(z_0) - log p(z_0)], as :func:`fit_dequantisation` says.

    x and eps are data as the model scales them and standard normal noise, [B, ...]. What log q depends on beside z_0 is
    held fixed: the expectation of that part is zero, and without it no draw has a gradient where q is p (Roeder et al.
    2017, arXiv 1703.09194).
    """
    gamma_0, _ = model.schedule.ends(x)
    noise = dequantisation(model.pixels(x), truncation(model, gamma_0))
    cut = noise.cut(eps)
    with torch.no_grad():
        eps_0 = model.coefficients(cut.to(x))
        z_0 = diffuse(centres(model, x, gamma_0, labels), gamma_0, eps_0)
        if model.flow_head is not None:
            mean = flow_mean(model, z_0, gamma_0, labels)  # at gamma_0 the mean of the data hardly moves
        else:
            mean = conditional_mean(model, model.predict(z_0, repeated(gamma_0, z_0), labels), gamma_0)
        eps_hat = model.pixels((z_0 - alpha(gamma_0) * mean) / sigma(gamma_0))
    fixed = CutNormal(noise.tau, noise.shift.detach(), noise.scale.detach())
    return (eps_hat * cut + fixed.log_density(cut)).flatten(1).sum(1)
