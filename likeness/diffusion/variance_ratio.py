"""rho = log(sigma_P^2 / sigma_Q^2): how much wider a generative step is than the posterior that it models.

Nielsen et al. 2024 (DiffEnc), section 3.3 and appendices F and G. With q the step's KL at equal variances, the best
ratio is exp(rho) = 1 + 2 E[q] / d. It tends to 1 in infinite depth, where any other costs infinitely much, so ratios
are for a finite number of steps. All start at ratio 1.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.from_zero import FromZero
from likeness.diffusion.process import broadcast, mean_over_dimensions
from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN


class VarianceRatio(nn.Module):
    """gamma_s, gamma_t of the ends of each step, [B] or [B, ...], to rho, [B] or for each dimension, [B or 1, ...]."""

    any_steps = False  # whether rho is as good for steps of another size than those of training

    def forward(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        """rho of each step."""
        raise NotImplementedError


class ConstantRatio(VarianceRatio):
    """One learned rho for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rho = nn.Parameter(torch.zeros(()))

    @override
    def forward(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return self.rho.expand_as(gamma_t)


class LearnedRatio(FromZero, VarianceRatio):
    """rho = theta(gamma_t) log(sigma_t^2 / sigma_s^2) with a network theta that starts at zero.

    theta = 0 is the posterior's variance, best for data without spread; theta = 1 is the forward process's, best for
    white data of unit variance. The factor is O(1 / T), as the best rho is, so theta lasts when T changes.

    Args:
        dims: shape of one sample, for a ratio of each dimension; none is one ratio for all.
        width: of theta's hidden layer.
        gamma_min: theta sees gamma on the scale on which these limits are -1 and 1.
        gamma_max: see ``gamma_min``.
    """

    any_steps = True

    @override
    def forward(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        factor = F.logsigmoid(gamma_t) - F.logsigmoid(gamma_s)
        theta = self.network(gamma_t)
        return theta * broadcast(factor, theta)


class FittedRatio(VarianceRatio):
    """The closed form log(1 + 2 q) with q averaged over training data, in bins of gamma, of its mean over dimensions.

    Nothing is learned.

    Call :meth:`observe` on training samples; any rho that does not depend on the sample it is used for gives a valid
    bound, so do not fit it on the data that are evaluated. It belongs to the number of steps it was fitted with.

    Args:
        num_bins: of gamma, equal ones between the limits; :func:`likeness.diffusion.fitting.fit_ratio` makes
            one for each step.
        dims: shape of one sample, for a ratio of each dimension; none is one ratio for all.
        gamma_min: where the bins start.
        gamma_max: where they end.
    """

    edges: Tensor
    total: Tensor
    count: Tensor

    def __init__(
        self,
        num_bins: int,
        dims: tuple[int, ...] | None = None,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
    ) -> None:
        super().__init__()
        require_positive(num_bins=num_bins)
        self.dims = None if dims is None else tuple(dims)
        self.register_buffer("edges", torch.linspace(gamma_min, gamma_max, num_bins + 1, dtype=torch.float64))
        self.register_buffer("total", torch.zeros(num_bins, *(dims or ()), dtype=torch.float64))
        self.register_buffer("count", torch.zeros(num_bins, dtype=torch.float64))

    @override
    def forward(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        count = self.count.clamp(min=1).reshape(-1, *[1] * (self.total.dim() - 1))
        rho = torch.log1p(2 * self.total / count)  # no observations: rho = 0
        return rho[self._bins(gamma_s, gamma_t)].to(gamma_t.dtype)

    @torch.no_grad()
    def observe(self, gamma_s: Tensor, gamma_t: Tensor, squared: Tensor) -> None:
        """Add steps' equal-variance KL in nats of each dimension, ``squared`` [B, ...]."""
        values = squared.to(self.total)
        values = values.flatten(1).mean(1) if self.dims is None else values
        bins = self._bins(gamma_s, gamma_t)
        self.total.index_add_(0, bins, values)
        self.count.index_add_(0, bins, torch.ones_like(bins, dtype=self.count.dtype))

    def _bins(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return torch.bucketize(mean_over_dimensions((gamma_s + gamma_t) / 2).to(self.edges), self.edges[1:-1])
