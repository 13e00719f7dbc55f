"""Encoders of the depth-dependent mean: x_t = x + sigma_t^2 u(x, gamma_t).

Nielsen et al. 2024 (DiffEnc), section 3. What differs between models is the direction u: zero in VDM, -x in the
parameter-free encoder, and y(x, gamma) - x with a network y in the trainable one. As the derivative of sigma^2 with
respect to gamma is sigma^2 alpha^2, that of the mean is D x_t = sigma^2 (alpha^2 u + D u).
"""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.diffusion.process import broadcast

if TYPE_CHECKING:
    from likeness.diffusion.model import Basis


class InnerEncoder(Protocol):
    """A network y(x, gamma), of the shape of x, that also answers its derivative with respect to gamma."""

    def __call__(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's answer."""
        ...

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and dy/dgamma, in one pass."""
        ...


class DepthEncoder(nn.Module):
    """x [B, ...] and gamma [B] to x_t [B, ...]. ``labels`` [B] are for class-conditional models."""

    has_derivative = True  # whether u changes with gamma

    def direction(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """u(x, gamma), [B, ...]."""
        raise NotImplementedError

    def direction_with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """u and du/dgamma, in one pass."""
        raise NotImplementedError

    def in_basis(self, basis: "Basis") -> "DepthEncoder":
        """The encoder of coefficients in this basis; raises ValueError where none is known."""
        raise ValueError(f"{type(self).__name__} has no form in another basis, such as {type(basis).__name__}")

    def factor(self, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """m(gamma) and d log m/dgamma of an encoder that is x_t = m(gamma) x; raises ValueError if it is not."""
        name = type(self).__name__
        raise ValueError(
            f"the probability flow of {name} is unknown: it needs the expectation of dx_t/dgamma given z, which the "
            "network does not answer; it is defined for IdentityEncoder (VDM) and ParameterFreeEncoder, and for all "
            "that are trained with a flow_head"
        )

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean x_t."""
        return x + torch.sigmoid(broadcast(gamma, x)) * self.direction(x, gamma, labels)

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean x_t and dx_t/dgamma, in one pass."""
        direction, derivative = self.direction_with_derivative(x, gamma, labels)
        variance, precision = torch.sigmoid(broadcast(gamma, x)), torch.sigmoid(-broadcast(gamma, x))
        return x + variance * direction, variance * (precision * direction + derivative)


class IdentityEncoder(DepthEncoder):
    """x_t = x: VDM."""

    has_derivative = False

    @override
    def direction(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)

    @override
    def direction_with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(x), torch.zeros_like(x)

    @override
    def in_basis(self, basis: "Basis") -> DepthEncoder:
        return self

    @override
    def factor(self, gamma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(gamma), torch.zeros_like(gamma)


class ParameterFreeEncoder(DepthEncoder):
    """x_t = alpha_t^2 x: DiffEnc-nt, ``S4V_NT``."""

    has_derivative = False

    @override
    def direction(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return -x

    @override
    def direction_with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        return -x, torch.zeros_like(x)

    @override
    def in_basis(self, basis: "Basis") -> DepthEncoder:
        return self

    @override
    def factor(self, gamma: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(-gamma), -torch.sigmoid(gamma)


class TrainableEncoder(DepthEncoder):
    """x_t = alpha_t^2 x + sigma_t^2 y(x, gamma_t): DiffEnc, ``S3VA``.

    At initialisation y is zero, so this is the parameter-free encoder, not VDM.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @override
    def direction(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.network(x, gamma, labels) - x  # type: ignore[no-any-return]

    @override
    def direction_with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        y, derivative = self.network.with_derivative(x, gamma, labels)  # type: ignore[operator]
        return y - x, derivative

    @override
    def in_basis(self, basis: "Basis") -> DepthEncoder:
        return TrainableEncoder(basis.in_pixels(self.network))
