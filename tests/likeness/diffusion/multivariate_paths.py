"""Two-dimensional Gaussian data with exact networks, and paths on which the dimensions do not keep step."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from likeness.diffusion.elbo import Prediction
from likeness.diffusion.multivariate import MultivariateSchedule
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, ExactHead, Factor

COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
Shares = Callable[[Tensor], tuple[Tensor, Tensor]]


class Path(MultivariateSchedule):
    """gamma_min + (gamma_max - gamma_min) times the shares of two dimensions at t, which are known functions."""

    def __init__(self, shares: Shares, gamma_min: float = GAMMA_0, gamma_max: float = GAMMA_1) -> None:
        super().__init__(gamma_min, gamma_max)
        self.shares = shares

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            at = t.detach().clone().requires_grad_()
            shares = self.shares(at)
            slopes = [torch.autograd.grad(share.sum(), at, retain_graph=True)[0] for share in shares]
        gamma = self.gamma_min + self.clock_rate * torch.stack(shares, dim=-1).detach()
        return gamma, self.clock_rate * torch.stack(slopes, dim=-1)

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        return self(t) - self(t - width)  # type: ignore[no-any-return]


def lines(t: Tensor) -> tuple[Tensor, Tensor]:
    return t, t


def in_turn(t: Tensor) -> tuple[Tensor, Tensor]:
    """The first dimension, and then the second."""
    return (2 * t).clamp(max=1), (2 * t - 1).clamp(min=0)


def cubes(t: Tensor) -> tuple[Tensor, Tensor]:
    return t**3, 1 - (1 - t) ** 3


def cubes_with_floor(t: Tensor) -> tuple[Tensor, Tensor]:
    first, second = cubes(t)
    return 0.9 * first + 0.1 * t, 0.9 * second + 0.1 * t


class CorrelatedHead(ExactHead):
    """Of data from N(0, covariance) in two dimensions."""

    def __init__(
        self,
        factor: Factor,
        counter_term: bool = False,
        covariance: Tensor = COVARIANCE,
        prediction: Prediction = "eps",
    ) -> None:
        super().__init__(factor, prediction, counter_term)
        self.covariance = covariance

    @override
    def posterior_mean(self, z: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        mixed = signal[..., None] * self.covariance * signal[..., None, :] + torch.diag_embed(noise**2)
        return (self.covariance @ (signal * torch.linalg.solve(mixed, z))[..., None])[..., 0]


class MeanBeliever(CorrelatedHead):
    """Takes the noise of each dimension for that of the mean gamma."""

    @override
    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(z, gamma.mean(-1, keepdim=True).expand_as(gamma))


def eight_rows() -> tuple[Tensor, Tensor]:
    """x and eps, [8, 2] each, over which the mean of a quadratic in both is its mean over data and noise."""
    points = 2 * torch.eye(4, dtype=torch.float64)
    points = torch.cat([points, -points])
    return points[:, :2] @ torch.linalg.cholesky(COVARIANCE).T, points[:, 2:]
