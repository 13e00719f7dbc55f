"""Diffusion models whose terms are known in closed form, and the quadratures that take their expectations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likeness.diffusion.elbo import Prediction
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import alpha, broadcast, sigma
from likeness.diffusion.schedules import LinearSchedule, NoiseSchedule

GAMMA_0, GAMMA_1 = -13.3, 5.0
Factor = Callable[[Tensor], tuple[Tensor, Tensor]]  # m(gamma) and dm/dgamma of a mean x_t = m x


def factor_of(kappa: float) -> Factor:
    """Of x_t = alpha^2 x + sigma^2 kappa x: VDM is kappa = 1, the parameter-free encoder is kappa = 0."""

    def factor(gamma: Tensor) -> tuple[Tensor, Tensor]:
        variance, precision = torch.sigmoid(gamma), torch.sigmoid(-gamma)
        return precision + variance * kappa, variance * precision * (kappa - 1)

    return factor


class ExactHead(nn.Module):
    """The optimal network of data whose E[x | alpha m x + sigma eps] is ``posterior_mean(z / m', m gamma)``.

    ``counter_term`` divides by 1 + sigma^2 what the head is to answer, E[x_t - dx_t/dgamma | z]. With a ``volatility``
    kappa the 1 in both is (1 + kappa) / 2.
    """

    def __init__(self, factor: Factor, prediction: Prediction, counter_term: bool) -> None:
        super().__init__()
        self.factor, self.prediction, self.counter_term = factor, prediction, counter_term
        self.volatility: Callable[[Tensor], Tensor] | None = None

    def posterior_mean(self, z: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """E[x | signal x + noise eps = z]."""
        raise NotImplementedError

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        gamma = broadcast(gamma, z)
        a, s = alpha(gamma), sigma(gamma)
        m, derivative = self.factor(gamma)
        kappa = torch.ones_like(gamma) if self.volatility is None else self.volatility(gamma)
        kept = 0.5 * (1 + kappa)
        x_hat = self.posterior_mean(z, a * m, s) * (kept * m - derivative) / (kept + self.counter_term * s**2)
        if self.prediction == "x":
            return x_hat
        return (a * z - x_hat) / s if self.prediction == "v" else (z - a * x_hat) / s


class GaussianHead(ExactHead):
    """Of data from N(0, variance) in every dimension."""

    def __init__(self, variance: float, factor: Factor, prediction: Prediction, counter_term: bool) -> None:
        super().__init__(factor, prediction, counter_term)
        self.variance = variance

    def posterior_mean(self, z: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        return signal * self.variance * z / (signal**2 * self.variance + noise**2)


class DiscreteHead(ExactHead):
    """Of data that are one of ``values`` [K], each as likely, in every dimension."""

    def __init__(self, values: Tensor, factor: Factor, prediction: Prediction, counter_term: bool) -> None:
        super().__init__(factor, prediction, counter_term)
        self.register_buffer("values", values)

    def posterior_mean(self, z: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        distance = (z[..., None] - signal[..., None] * self.values) / noise[..., None]
        return (-0.5 * distance.square()).softmax(-1) @ self.values


class Proportional(nn.Module):
    """The inner encoder y = kappa x."""

    def __init__(self, kappa: float) -> None:
        super().__init__()
        self.kappa = kappa

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.kappa * x

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.kappa * x, torch.zeros_like(x)


class Smooth(nn.Module):
    """A small network on (x, gamma, labels): a score network, or an inner encoder with its derivative by hand."""

    def __init__(self, dims: int = 3, width: int = 16, num_labels: int = 0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dims + 1 + num_labels, width), nn.Linear(width, dims)
        self.dims, self.num_labels = dims, num_labels

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.last(self._hidden(x, gamma, labels)).tanh().reshape(x.shape)

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        hidden = self._hidden(x, gamma, labels)
        y = self.last(hidden).tanh()
        of_hidden = (1 - hidden**2) * self.first.weight[:, self.dims] / 10
        derivative = (1 - y**2) * (of_hidden @ self.last.weight.T)
        return y.reshape(x.shape), derivative.reshape(x.shape)

    def features(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._hidden(x, gamma, labels)

    def _hidden(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> Tensor:
        seen = [x.flatten(1), gamma[:, None] / 10]
        if labels is not None:
            seen.append(nn.functional.one_hot(labels, self.num_labels).to(x))
        return torch.tanh(self.first(torch.cat(seen, dim=1)))


class Echo(nn.Module):
    """Answers z, as every network of the project does before training."""

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return z


def encoder_of(kappa: float) -> DepthEncoder:
    """x_t = alpha^2 x + sigma^2 kappa x by the class that models use for it."""
    if kappa == 1:
        return IdentityEncoder()
    return ParameterFreeEncoder() if kappa == 0 else TrainableEncoder(Proportional(kappa))


def gaussian_model(
    variance: float, kappa: float = 1.0, counter_term: bool = False, prediction: Prediction = "v", **options: Any
) -> DiffusionModel:
    """The model with the optimal network of one-dimensional data from N(0, variance)."""
    head = GaussianHead(variance, factor_of(kappa), prediction, counter_term)
    return model_of(head, encoder_of(kappa), counter_term=counter_term, prediction=prediction, **options)


def model_of(
    network: nn.Module,
    encoder: DepthEncoder | None = None,
    schedule: NoiseSchedule | None = None,
    dims: int = 1,
    levels: int = 256,
    **options: Any,
) -> DiffusionModel:
    """A model in float64."""
    schedule = LinearSchedule(GAMMA_0, GAMMA_1) if schedule is None else schedule
    return DiffusionModel(network, encoder or IdentityEncoder(), schedule, (dims,), levels, **options).double()


def legendre(size: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights, float64 [size], whose weighted sum is an integral over [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    return torch.from_numpy(nodes + 1) / 2, torch.from_numpy(weights) / 2


def normal_grid(step: float = 0.2, reach: float = 8.0) -> tuple[Tensor, Tensor]:
    """Nodes and weights, float64, whose weighted sum is an expectation over N(0, 1); the trapezoidal rule."""
    nodes = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    weights = torch.exp(-0.5 * nodes**2)
    return nodes, weights / weights.sum()


def four_signs(deviation: float) -> tuple[Tensor, Tensor]:
    """x [4, 1] and eps [4, 1] over which the mean of a quadratic in both is its mean over N(0, deviation^2) x N(0, 1).

    The two-point Gauss-Hermite rule.
    """
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    return deviation * signs[:, :1], signs[:, 1:]
