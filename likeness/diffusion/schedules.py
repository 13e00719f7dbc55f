"""Noise schedules gamma(t) = -log SNR(t) on t in [0, 1], increasing, each with its derivative.

Kingma et al. 2021 (VDM), section 3.2 and appendix H. ``gamma_min`` and ``gamma_max`` are constants: the networks
normalise their time by them, whatever a learned schedule makes of its ends.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.checks import require_positive

GAMMA_MIN, GAMMA_MAX = -13.3, 5.0  # of all models in both papers
Spacing = Literal["t", "gamma"]


class NoiseSchedule(nn.Module):
    """gamma(t) for t of any shape, which it has too unless it is multivariate.

    Raises ValueError for limits that do not increase.
    """

    learned_ends = False  # whether gamma(0) and gamma(1) change in training
    multivariate = False  # whether each dimension has a gamma of its own, see likeness.diffusion.multivariate
    of_each_sample = False  # whether samples of a batch have paths of their own
    context_size: int | None = None  # how many numbers the context has that it must be given
    needs_band = False  # whether it must be told which dimensions are of the low band
    may_stop = False  # whether dgamma/dt may be 0 where an encoder still moves the mean

    def __init__(self, gamma_min: float = GAMMA_MIN, gamma_max: float = GAMMA_MAX) -> None:
        super().__init__()
        if not (math.isfinite(gamma_min) and math.isfinite(gamma_max) and gamma_min < gamma_max):
            raise ValueError(f"gamma_min must be below gamma_max, got gamma_min={gamma_min}, gamma_max={gamma_max}")
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    def forward(self, t: Tensor) -> Tensor:
        """gamma(t), shaped as t."""
        return self.with_derivative(t)[0]

    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """gamma(t) and dgamma/dt, both shaped as t."""
        raise NotImplementedError

    def increment(self, t: Tensor, width: float) -> Tensor:
        """gamma(t) - gamma(t - width), shaped as t, without subtracting two gammas: that costs float32 its digits."""
        raise NotImplementedError

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """gamma(0) and gamma(1), scalars of the dtype and device of ``like``."""
        first, last = self.with_derivative(like.new_tensor([0.0, 1.0]))[0]
        return first, last

    def for_samples(self, input_shape: Sequence[int]) -> None:
        """Told once of which shape samples are; it matters where there is a gamma for each dimension."""

    def for_band(self, low: Tensor) -> None:
        """Told once which dimensions of a sample are of a basis's low band, bool; see likeness.diffusion.basis."""

    def given(self, context: Tensor) -> "NoiseSchedule":
        """The schedule of samples with these contexts, [B, K]: itself, unless it is a function of them."""
        return self

    def of_no_sample(self) -> "NoiseSchedule":
        """What stands for the schedule where no sample is meant, as in bins and figures: itself without contexts."""
        return self

    def clock(self, t: Tensor, gamma: Tensor) -> Tensor:
        """What an encoder takes for its gamma at times t, [B], where gamma(t) is ``gamma``: one for all dimensions.

        It is gamma itself; of a multivariate schedule a line between the ends, of slope :attr:`clock_rate`.
        """
        return gamma

    @property
    def clock_rate(self) -> float:
        """gamma_max - gamma_min."""
        return self.gamma_max - self.gamma_min


class LinearSchedule(NoiseSchedule):
    """gamma_min + (gamma_max - gamma_min) t, fixed."""

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.gamma_max - self.gamma_min
        return self.gamma_min + slope * t, torch.full_like(t, slope)

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        return torch.full_like(t, (self.gamma_max - self.gamma_min) * width)


class PolynomialSchedule(NoiseSchedule):
    """gamma_max / 2 t^10 + (gamma_max / 2 - gamma_min) t + gamma_min, fixed; ``poly10`` of the DiffEnc authors.

    Raises ValueError also for limits between which it would not increase.
    """

    def __init__(self, gamma_min: float = GAMMA_MIN, gamma_max: float = GAMMA_MAX) -> None:
        super().__init__(gamma_min, gamma_max)
        if 5.5 * gamma_max <= gamma_min or 0.5 * gamma_max <= gamma_min:  # its slope at 1 and at 0
            limits = f"gamma_min={gamma_min}, gamma_max={gamma_max}"
            raise ValueError(f"the polynomial schedule does not increase everywhere between {limits}")

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        half = self.gamma_max / 2
        gamma = half * t**10 + (half - self.gamma_min) * t + self.gamma_min
        return gamma, 10 * half * t**9 + (half - self.gamma_min)

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        s = t - width
        factors = (t**5 + s**5) * (t**4 + t**3 * s + t**2 * s**2 + t * s**3 + s**4)  # (t^10 - s^10) / (t - s)
        half = self.gamma_max / 2
        return width * (half * factors + half - self.gamma_min)


class AffineSchedule(NoiseSchedule):
    """b + |w| t with both learned, from the limits on: VDM's ``learnable_scalar``, DiffEnc's ``train_scalar``."""

    learned_ends = True

    def __init__(self, gamma_min: float = GAMMA_MIN, gamma_max: float = GAMMA_MAX) -> None:
        super().__init__(gamma_min, gamma_max)
        self.w = nn.Parameter(torch.tensor([gamma_max - gamma_min]))
        self.b = nn.Parameter(torch.tensor([float(gamma_min)]))

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.w.abs()
        return self.b + slope * t, slope.expand_as(t)

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        return (self.w.abs() * width).expand_as(t)


class MonotoneSchedule(NoiseSchedule):
    """An increasing network between ends that stay exactly what they are (VDM, appendix H).

    G(t) = |w1| t + sum_j |c_j| (2 sigmoid(|a_j| (2 t - 1) + b_j) - 1) / width, and gamma runs from end to end as
    (G(t) - G(0)) / (G(1) - G(0)). The code published with VDM leaves the normalisation out, so that its ends drift.

    With ``minimise_variance`` the shape between the ends, which leaves the expected loss alone, is trained on the
    variance of the loss (VDM, appendix I.2): after the forward pass :meth:`weigh_gradient` must be told the losses.

    Args:
        gamma_min: gamma(0), or where it starts if ``learn_ends``.
        gamma_max: gamma(1), or where it starts if ``learn_ends``.
        width: of the hidden layer.
        learn_ends: train gamma(0) and gamma(1) on the loss as well.
        minimise_variance: train the shape on the squared loss, in place of the loss.
    """

    def __init__(
        self,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
        width: int = 1024,
        learn_ends: bool = False,
        minimise_variance: bool = False,
    ) -> None:
        super().__init__(gamma_min, gamma_max)
        require_positive(width=width)
        self.slope = nn.Parameter(torch.tensor(gamma_max - gamma_min))
        self.scale = nn.Parameter(0.01 * torch.randn(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.height = nn.Parameter(0.01 * torch.randn(width))
        self.limits = nn.Parameter(torch.tensor([gamma_min, gamma_max]), requires_grad=learn_ends)
        self.learned_ends = learn_ends
        self.minimise_variance = minimise_variance
        self._weights: Tensor | None = None

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self._raw(t)
        first, last = self._raw(t.new_tensor([0.0, 1.0]))[0]
        position, speed = (self._hooked(part) for part in ((value - first) / (last - first), slope / (last - first)))
        low, high = self.limits
        return low + (high - low) * position, (high - low) * speed

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        scale, height = self._layer()
        after, before = (scale * (2 * time[..., None] - 1) + self.bias for time in (t, t - width))
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))
        bend = torch.sigmoid(after) * torch.sigmoid(-before) * -torch.expm1(-2 * scale * width)
        first, last = self._raw(t.new_tensor([0.0, 1.0]))[0]
        risen = (self.slope.abs() * width + 2 * (bend * height).sum(-1)) / (last - first)
        low, high = self.limits
        rise: Tensor = (high - low) * self._hooked(risen)
        return rise

    @override
    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.limits.to(like)
        return low, high

    def weigh_gradient(self, losses: Tensor) -> None:
        """Make the gradient of the coming backward pass, of the mean of ``losses`` [B], that of their mean square."""
        self._weights = 2 * losses.detach()

    def _hooked(self, shape: Tensor) -> Tensor:
        if self.minimise_variance and shape.requires_grad:
            shape.register_hook(self._weighted)  # type: ignore[no-untyped-call]
        return shape

    def _weighted(self, gradient: Tensor) -> Tensor:
        if self._weights is None or self._weights.shape != gradient.shape:
            raise RuntimeError("minimise_variance needs weigh_gradient(losses) between the forward and backward pass")
        return gradient * self._weights

    def _layer(self) -> tuple[Tensor, Tensor]:
        return self.scale.abs(), self.height.abs() / len(self.height)

    def _raw(self, t: Tensor) -> tuple[Tensor, Tensor]:
        scale, height = self._layer()
        bend = torch.sigmoid(scale * (2 * t[..., None] - 1) + self.bias)
        # sums of products, not matrix products: those autocast would round to bfloat16
        value = self.slope.abs() * t + ((2 * bend - 1) * height).sum(-1)
        return value, self.slope.abs() + (4 * bend * (1 - bend) * scale * height).sum(-1)


def gamma_grid(schedule: NoiseSchedule, num_steps: int, spacing: Spacing = "t") -> Tensor:
    """gamma(1) down to gamma(0) in ``num_steps`` steps that are equal in t or in gamma: [num_steps + 1], float64.

    Of a multivariate schedule [num_steps + 1, ...], of steps that are equal in t; [num_steps + 1, B, ...] where each
    sample has a path of its own.

    Raises ValueError for num_steps < 1, an unknown spacing, and one by gamma where there is no one gamma.
    """
    require_positive(num_steps=num_steps)
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing must be one of {', '.join(get_args(Spacing))}, got {spacing!r}")
    if spacing == "gamma" and schedule.multivariate:
        raise ValueError(
            f"spacing 'gamma' needs one gamma for all dimensions, {type(schedule).__name__} has many: use 't'"
        )
    like = next(chain(schedule.parameters(), schedule.buffers()), torch.empty((), dtype=torch.float64))
    with torch.no_grad():
        gamma_0, gamma_1 = (end.double().cpu() for end in schedule.ends(like))
        t = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
        if spacing == "gamma":
            return gamma_0 + (gamma_1 - gamma_0) * t
        grid: Tensor = schedule(t.to(like)[:, None] if schedule.of_each_sample else t.to(like)).double().cpu()
        grid[0], grid[-1] = gamma_1, gamma_0
        return grid
