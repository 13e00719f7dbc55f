"""Densities from which the times of the diffusion term are drawn.

A time t of density p(t) counts 1 / p(t) times: whatever the density, the expectation of the diffusion term is the same,
and so is that of its gradient as long as p is a function of the past. What changes is the variance. The density's
inverse distribution function is applied to the uniform numbers, so that stratified ones stay stratified. The
reconstruction and the latent term are not of a time and count once.

Zheng et al. 2023 (i-DODE, arXiv 2305.03935) draw gamma with the density alpha^2, which is the best for white data of
variance 1: the loss per gamma is then proportional to it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.schedules import LinearSchedule, NoiseSchedule
from likeness.distributed import gather_rows, num_ranks

DECAY = 0.99  # of what a bin remembers, for each observation in it
BINS = 128  # of alpha^2 along a path that is no line
LEAST = 0.01  # share of the uniform density in it
MINIMUM = 20  # observations in every bin before a density departs from the uniform one


class Times(NamedTuple):
    """Times in [0, 1], and what a loss at them counts, [B] each."""

    t: Tensor
    weight: Tensor  # 1 / p(t)


class TimeDensity(nn.Module):
    """Numbers u in [0, 1), [B], to times of the density; uniform ones to draws of it."""

    def forward(self, u: Tensor) -> Times:
        """t with F(t) = u, and 1 / p(t)."""
        raise NotImplementedError

    def for_schedule(self, schedule: NoiseSchedule) -> None:
        """Take from a schedule what the density was not told."""

    def observe(self, t: Tensor, rate: Tensor) -> None:
        """Learn from losses [B] at times t [B], in nats a dimension and not weighted; on all ranks at once."""


class SignalDensity(TimeDensity):
    """gamma has the density sigmoid(log variance - gamma), for variance 1 alpha^2, along the path of a schedule.

    Where each dimension has a gamma, p(t) is the mean of sigmoid(log variance - gamma_i) dgamma_i/dt over dimensions,
    to which the loss of white data is proportional. Of a schedule that is no line it is taken in 128 equal bins of t,
    as the schedule is at that moment, and mixed with a hundredth of the uniform density; with a context, along the
    mean path.

    Args:
        variance: of the data in (-1, 1) at which the density is the best.
    """

    def __init__(self, variance: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(variance) and variance > 0):
            raise ValueError(f"variance must be a positive number, got {variance}")
        self.shift = math.log(variance)
        self._schedules: list[NoiseSchedule] = [LinearSchedule()]  # in a list: it is the model's, and saved as such

    @override
    def for_schedule(self, schedule: NoiseSchedule) -> None:
        self._schedules = [schedule]

    @override
    def forward(self, u: Tensor) -> Times:
        (schedule,) = self._schedules
        if isinstance(schedule, LinearSchedule):
            return self._along_line(u, schedule.gamma_min, schedule.gamma_max)
        return _of_bins(u, self._binned(schedule.of_no_sample(), u))

    @torch.no_grad()
    def _binned(self, schedule: NoiseSchedule, like: Tensor) -> Tensor:
        """p in each bin, [BINS] in float64; its mean is 1."""
        t = torch.linspace(0, 1, BINS + 1, dtype=like.dtype, device=like.device)
        above = F.softplus(self.shift - schedule(t).double()).reshape(len(t), -1).mean(1)
        mass = -above.diff()
        return (1 - LEAST) * mass / mass.mean() + LEAST

    def _along_line(self, u: Tensor, gamma_min: float, gamma_max: float) -> Times:
        width = gamma_max - gamma_min
        low, high = (_softplus(self.shift - end) for end in (gamma_min, gamma_max))
        y = high + (low - high) * (1 - u)  # softplus(shift - gamma): from its small end, which float32 would lose
        density = -torch.expm1(-y)  # sigmoid(shift - gamma)
        gamma = self.shift - y - torch.log(density)
        return Times(((gamma - gamma_min) / width).clamp(0, 1), (low - high) / (width * density))


class AdaptiveDensity(TimeDensity):
    """Learned in equal bins of t while the model trains: nearly the best density for any data and model.

    p is proportional to the deviation of the losses in a bin, which is the best for stratified times, mixed with the
    uniform density. The losses' sums decay by .99 with each observation in their bin, and a bin's density departs
    from the uniform one when every bin has had 20. The sums are buffers: a resumed run goes on with them, all ranks
    have the same, and evaluation draws from what training learned.

    Args:
        num_bins: of t; in finite depth a divisor of T, or T.
        floor: share of the uniform density; no loss counts more than 1 / floor times.
    """

    sums: Tensor  # [3, num_bins], of 1, the loss and its square, decayed
    seen: Tensor  # [num_bins], how many there were

    def __init__(self, num_bins: int = 32, floor: float = 0.2) -> None:
        super().__init__()
        require_positive(num_bins=num_bins)
        if not 0 < floor <= 1:
            raise ValueError(f"floor must lie in (0, 1], got {floor}")
        self.num_bins, self.floor = num_bins, floor
        self.register_buffer("sums", torch.zeros(3, num_bins, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(num_bins, dtype=torch.float64))

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The sums go to other devices, and stay float64: in fewer digits the density would not have mean 1."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def density(self) -> Tensor:
        """p(t) in each bin, [num_bins]; its mean is 1."""
        mean, square = self.sums[1:] / self.sums[0]
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        known = (self.seen >= MINIMUM).all() & (deviation.sum() > 0)  # no question of a GPU, which would wait for it
        return torch.where(known, (1 - self.floor) * deviation / deviation.mean() + self.floor, 1.0)

    @override
    def forward(self, u: Tensor) -> Times:
        return _of_bins(u, self.density)

    @override
    @torch.no_grad()
    def observe(self, t: Tensor, rate: Tensor) -> None:
        both = gather_rows(torch.stack([t.detach(), rate.detach().to(t)], dim=1))
        # in the order of the global batch, whose row i W + r is row i of rank r: the sums are the same on any number of
        both = both.reshape(num_ranks(), -1, 2).transpose(0, 1).reshape(-1, 2).to(self.sums)
        t, rate = both.unbind(1)
        finite = rate.isfinite()  # one that is not would stay in its bin for ever
        chosen = F.one_hot((t * self.num_bins).long().clamp(0, self.num_bins - 1), self.num_bins).to(self.sums)
        chosen, rate = chosen * finite[:, None], rate.where(finite, 0.0)
        new = torch.stack([torch.ones_like(rate), rate, rate.square()]) @ chosen
        self.sums.mul_(DECAY ** new[0]).add_(new)
        self.seen.add_(new[0])


def _of_bins(u: Tensor, density: Tensor) -> Times:
    """The inverse of a density that is constant in equal bins of t, of mean 1."""
    filled = F.pad((density / len(density)).cumsum(0), (1, 0))  # F at the bins' edges
    own = u.to(filled)
    bins = torch.bucketize(own, filled[1:-1], right=True)
    within = (own - filled[bins]) / density[bins]
    t = (bins / len(density) + within).clamp(0, 1)
    return Times(t.to(u), (1 / density[bins]).to(u))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
