"""Layers at the first weights that Flax gives them: LeCun-normal kernels (truncated), zero biases."""

import math

from torch import Tensor, nn

# The standard deviation of a standard normal that is truncated to [-2, 2].
TRUNCATED_STD = 0.87962566103423978


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """Fill ``weight`` from a normal of variance 1 / fan_in, truncated at two standard deviations of the original."""
    std = math.sqrt(1 / fan_in) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def convolution(
    in_channels: int, out_channels: int, size: int = 3, *, stride: int = 1, zero: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the resolution (stride 1, odd size) or divides it (stride = size)."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=(size - stride) // 2)
    _initialise(layer, in_channels * size * size, zero)
    return layer


def transposed_convolution(in_channels: int, out_channels: int, size: int = 2) -> nn.ConvTranspose2d:
    """A transposed convolution that multiplies the resolution by ``size``."""
    layer = nn.ConvTranspose2d(in_channels, out_channels, size, stride=size)
    _initialise(layer, in_channels * size * size, zero=False)
    return layer


def dense(in_features: int, out_features: int, *, bias: bool = True, zero: bool = False) -> nn.Linear:
    """A linear layer."""
    layer = nn.Linear(in_features, out_features, bias)
    _initialise(layer, in_features, zero)
    return layer


def _initialise(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, fan_in: int, zero: bool) -> None:
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        lecun_normal_(layer.weight, fan_in)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
