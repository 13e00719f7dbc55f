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

from likeness.checks import require_positive, require_shape
from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN, NoiseSchedule
from likeness.networks.unet_blocks import dense

LEAST = 1e-3  # of k, in MuLAN's code
START = 0.54  # of the raw k, at which k is 1
GAUSS = ((-math.sqrt(0.6), 5 / 9), (0.0, 8 / 9), (math.sqrt(0.6), 5 / 9))  # exact for polynomials of degree 5


class MultivariateSchedule(NoiseSchedule):
    """gamma_i(t) from gamma_min to gamma_max in each dimension i: of t of any shape [...], [..., *sample]."""

    multivariate = True
    floor: float
    dims: tuple[int, ...] | None

    @override
    def clock(self, t: Tensor, gamma: Tensor) -> Tensor:
        return self.gamma_min + self.clock_rate * t

    @override
    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.gamma_min), like.new_tensor(self.gamma_max)

    def _set_floor(self, floor: float) -> None:
        if not 0 <= floor < 1:
            raise ValueError(f"floor must lie in [0, 1), got {floor}")
        self.floor, self.may_stop = floor, floor == 0

    def _told(self, input_shape: Sequence[int]) -> bool:
        """Whether the samples' shape was known; raises ValueError where it was another one."""
        if self.dims is None:
            require_shape("dims", input_shape)
            self.dims = tuple(input_shape)
            return False
        if self.dims != tuple(input_shape):
            raise ValueError(f"the schedule's dims are {list(self.dims)}, the samples {list(input_shape)}")
        return True


class Polynomials(MultivariateSchedule):
    """gamma_min + (gamma_max - gamma_min) ((1 - f) P_i(t) / P_i(1) + f t) of any a, b and k.

    P_i is the integral from 0 of the square of q_i(t) = a_i t^2 + b_i t + k_i with k = 0.001 + softplus(raw). It is
    taken by three Gauss nodes, which are exact and add squares, so that no difference costs float32 its digits.

    ``a``, ``b`` and ``raw`` are [*sample], or [B, *sample] of samples with a path each: times are then [..., B] or
    [..., 1].
    """

    a: Tensor
    b: Tensor
    raw: Tensor

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

    def _over_dimensions(self, t: Tensor) -> Tensor:
        return t.reshape(*t.shape, *[1] * (self.a.dim() - self.of_each_sample))

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


class MultivariatePolynomial(Polynomials):
    """:class:`Polynomials` whose a, b and k are learned for each dimension, a line at the start.

    MuLAN has no floor, f = 0, and a, b and k that are functions of a context: see :class:`ContextPolynomial`.

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
        self._set_floor(floor)
        self.dims: tuple[int, ...] | None = None
        self._start(())
        if dims is not None:
            self.for_samples(dims)

    @override
    def for_samples(self, input_shape: Sequence[int]) -> None:
        if not self._told(input_shape):
            self._start(tuple(input_shape))

    def _start(self, dims: tuple[int, ...]) -> None:
        """a = b = 0 and k = 1, at which gamma is a line."""
        self.a, self.b = (nn.Parameter(torch.zeros(dims)) for _ in range(2))
        self.raw = nn.Parameter(torch.full(dims, START))


class ContextPolynomial(MultivariateSchedule):
    """:class:`Polynomials` whose a, b and raw are functions of a context w; a line at the start.

    Three linear heads on h = swish(L2 swish(L1 w)). MuLAN's hidden width is the number of dimensions, it has no floor,
    and its b and raw start at random.

    Args:
        gamma_min: gamma(0) in every dimension.
        gamma_max: gamma(1) in every dimension.
        floor: f, the least dgamma/dt as a share of the line's.
        context_size: how many numbers w has.
        width: of the hidden layers; none is the number of dimensions.
        dims: shape of one sample; by default the model says it.

    Raises ValueError for a floor outside [0, 1), and of gamma(t) before :meth:`given` has told w.
    """

    def __init__(
        self,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
        floor: float = 0.1,
        context_size: int = 16,
        width: int | None = 64,
        dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(gamma_min, gamma_max)
        require_positive(context_size=context_size, width=width)
        self._set_floor(floor)
        self.context_size: int = context_size
        self.width = width
        self.dims: tuple[int, ...] | None = None
        if dims is not None:
            self.for_samples(dims)

    @override
    def for_samples(self, input_shape: Sequence[int]) -> None:
        if self._told(input_shape):
            return
        count = int(torch.Size(input_shape).numel())
        size, width = self.context_size, self.width or count
        self.hidden = nn.ModuleList([dense(size, width), dense(width, width)])
        self.head_a, self.head_b, self.head_raw = (dense(width, count, zero=True) for _ in range(3))
        nn.init.constant_(self.head_raw.bias, START)

    @override
    def given(self, context: Tensor) -> Polynomials:
        if self.dims is None or context.shape[1:] != (self.context_size,):
            raise ValueError(
                f"the schedule takes a context [B, {self.context_size}] of samples {self.dims}, got {[*context.shape]}"
            )
        with torch.autocast(context.device.type, enabled=False):
            h = context.to(self.head_a.weight.dtype)
            for layer in self.hidden:
                h = F.silu(layer(h))
            heads = (self.head_a, self.head_b, self.head_raw)
            return _GivenPolynomials(self, *(head(h).reshape(-1, *self.dims) for head in heads))

    @override
    def of_no_sample(self) -> Polynomials:
        return self.given(self.head_a.weight.new_zeros(1, self.context_size))

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        raise ValueError("gamma(t) of a ContextPolynomial is a function of a context: ask what given(context) answers")

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        return self.with_derivative(t)[0]


class _GivenPolynomials(Polynomials):
    """Of one batch of contexts; a, b and raw are [B, *sample]."""

    of_each_sample = True

    def __init__(self, schedule: ContextPolynomial, a: Tensor, b: Tensor, raw: Tensor) -> None:
        super().__init__(schedule.gamma_min, schedule.gamma_max)
        self._set_floor(schedule.floor)
        for name, values in (("a", a), ("b", b), ("raw", raw)):
            self.register_buffer(name, values)
