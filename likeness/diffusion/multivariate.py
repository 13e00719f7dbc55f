"""Noise schedules with a gamma for each dimension of a sample: q(z_t | x) = N(alpha_i x_i, sigma_i^2).

Sahoo et al. 2024 (MuLAN, arXiv 2312.13236). All dimensions start at gamma_min and end at gamma_max, so that decoder and
prior are those of one gamma for all. With an exact denoiser of VDM no path between the ends gains anything, as the loss
is the integral of a gradient along it; what a path gains it gains of networks that are no such denoiser, or of an
encoder, whose bound is no such integral.

An encoder moves all dimensions by one clock, tau = gamma_min + (gamma_max - gamma_min) t. Its derivative along the
path of dimension i is du_i/dgamma_i = (dtau/dt) / (dgamma_i/dt) du_i/dtau: where gamma_i stood still and u_i did not,
the mean would move without noise, at infinite cost. A floor of dgamma_i/dt keeps the quotient below its inverse.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from likeness.checks import require_shape
from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN, NoiseSchedule

LEAST = 1e-3  # of k, in MuLAN's code
START = 0.54  # of the raw k, at which k is 1
GAUSS = ((-math.sqrt(0.6), 5 / 9), (0.0, 8 / 9), (math.sqrt(0.6), 5 / 9))  # exact for polynomials of degree 5


class MultivariateSchedule(NoiseSchedule):
    """gamma_i(t) from gamma_min to gamma_max in each dimension i: of t of any shape [...], [..., *sample]."""

    multivariate = True

    @override
    def clock(self, t: Tensor, gamma: Tensor) -> Tensor:
        return self.gamma_min + self.clock_rate * t

    @override
    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.gamma_min), like.new_tensor(self.gamma_max)


class MultivariatePolynomial(MultivariateSchedule):
    """gamma_min + (gamma_max - gamma_min) ((1 - f) P_i(t) / P_i(1) + f t), a line at the start.

    P_i is the integral from 0 of the square of q_i(t) = a_i t^2 + b_i t + k_i, all three learned for each dimension.
    It is taken by three Gauss nodes, which are exact and add squares, so that no difference costs float32 its digits.
    MuLAN has no floor, f = 0, and a, b and k that are functions of a context.

    Args:
        gamma_min: gamma(0) in every dimension.
        gamma_max: gamma(1) in every dimension.
        floor: f, the least dgamma/dt as a share of the line's.
        dims: shape of one sample; by default the model says it.

    Raises ValueError for a floor outside [0, 1).
    """

    def __init__(
        self,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
        floor: float = 0.1,
        dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gamma_min, gamma_max)
        if not 0 <= floor < 1:
            raise ValueError(f"floor must lie in [0, 1), got {floor}")
        self.floor, self.may_stop = floor, floor == 0
        self.dims: tuple[int, ...] | None = None
        self._start(())
        if dims is not None:
            self.for_samples(dims)

    @override
    def for_samples(self, input_shape: Sequence[int]) -> None:
        if self.dims is None:
            require_shape("dims", input_shape)
            self.dims = tuple(input_shape)
            self._start(self.dims)
        elif self.dims != tuple(input_shape):
            raise ValueError(f"the schedule's dims are {list(self.dims)}, the samples {list(input_shape)}")

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = self._over_dimensions(t)
        whole, slope = self._whole(t), self.gamma_max - self.gamma_min
        risen = (1 - self.floor) * (self._risen(t, t) / whole) + self.floor * t
        speed = (1 - self.floor) * (self._root(t).square() / whole) + self.floor
        return self.gamma_min + slope * risen, slope * speed

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        t = self._over_dimensions(t)
        risen = (1 - self.floor) * (self._risen(t, torch.full_like(t, width)) / self._whole(t)) + self.floor * width
        return (self.gamma_max - self.gamma_min) * risen

    def _start(self, dims: tuple[int, ...]) -> None:
        """a = b = 0 and k = 1, at which gamma is a line."""
        self.a, self.b = (nn.Parameter(torch.zeros(dims)) for _ in range(2))
        self.raw = nn.Parameter(torch.full(dims, START))

    def _over_dimensions(self, t: Tensor) -> Tensor:
        return t.reshape(*t.shape, *[1] * self.a.dim())

    def _root(self, t: Tensor) -> Tensor:
        """q(t)."""
        return (self.a * t + self.b) * t + (LEAST + F.softplus(self.raw))

    def _risen(self, t: Tensor, width: Tensor) -> Tensor:
        """P(t) - P(t - width)."""
        half = 0.5 * width
        middle = t - half
        squares = [weight * self._root(middle + half * node).square() for node, weight in GAUSS]
        return half * (squares[0] + squares[1] + squares[2])

    def _whole(self, t: Tensor) -> Tensor:
        """P(1)."""
        one = t.new_ones(())
        return self._risen(one, one)
