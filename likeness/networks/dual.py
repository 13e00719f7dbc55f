"""A value with its derivative along one direction, and the layers that carry both: forward-mode differentiation.

Every block of the diffusion networks is written once, over ``Dual``. A plain pass is a pass with tangent ``None``;
``with_derivative`` seeds the tangent of gamma with ones. A zero tangent is ``None``, so what does not depend on gamma
(everything before the first conditioning) costs nothing. Ordinary autograd differentiates the result once more.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Dual(NamedTuple):
    """``value`` and its derivative ``tangent``, of the same shape; ``None`` stands for a tangent of zeros."""

    value: Tensor
    tangent: Tensor | None = None


def affine(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, h: Dual) -> Dual:
    """The layer on the value, its linear part (no bias) on the tangent."""
    value = layer(h.value)
    if h.tangent is None:
        return Dual(value)
    if isinstance(layer, nn.Linear):
        return Dual(value, F.linear(h.tangent, layer.weight))
    if isinstance(layer, nn.ConvTranspose2d):
        return Dual(value, F.conv_transpose2d(h.tangent, layer.weight, None, layer.stride))
    return Dual(value, F.conv2d(h.tangent, layer.weight, None, layer.stride, layer.padding))


def add_(a: Dual, b: Dual) -> Dual:
    """a + b in the memory of ``a``, which no backward pass may need (the output of an affine layer); b broadcasts."""
    value = a.value.add_(b.value)
    if a.tangent is None or b.tangent is None:
        return Dual(value, a.tangent if b.tangent is None else b.tangent.expand_as(value))
    return Dual(value, a.tangent.add_(b.tangent))


def pointwise(layer: nn.Linear, h: Dual) -> Dual:
    """A linear map of the channels at each position, [B, C, H, W] -> [B, C', H, W]: a 1x1 convolution."""
    out = affine(layer, Dual(*(None if part is None else part.movedim(1, -1) for part in h)))  # type: ignore[arg-type]
    return Dual(out.value.movedim(-1, 1), None if out.tangent is None else out.tangent.movedim(-1, 1))


def multiply(a: Dual, b: Dual) -> Dual:
    """a b; they may broadcast."""
    value = a.value * b.value
    tangents = [d * other for d, other in ((a.tangent, b.value), (b.tangent, a.value)) if d is not None]
    return Dual(value, sum(tangents[1:], tangents[0]) if tangents else None)


def concat(parts: Sequence[Dual], dim: int = 1) -> Dual:
    """Concatenate; zeros stand in for the tangents that are None, unless all are."""
    value = torch.cat([part.value for part in parts], dim)
    if all(part.tangent is None for part in parts):
        return Dual(value)
    tangents = [torch.zeros_like(part.value) if part.tangent is None else part.tangent for part in parts]
    return Dual(value, torch.cat(tangents, dim))


def swish(h: Dual) -> Dual:
    """h sigmoid(h)."""
    if h.tangent is None:
        return Dual(F.silu(h.value))
    sigmoid = h.value.sigmoid()
    return Dual(h.value * sigmoid, h.tangent * sigmoid * (1 + h.value * (1 - sigmoid)))


def tanh(h: Dual) -> Dual:
    """The hyperbolic tangent."""
    value = h.value.tanh()
    return Dual(value, None if h.tangent is None else h.tangent * (1 - value.square()))


def max_pool(h: Dual) -> Dual:
    """Maximum over 2x2 windows; the tangent is read where the value's maximum is."""
    if h.tangent is None:
        return Dual(F.max_pool2d(h.value, 2))
    value, indices = F.max_pool2d(h.value, 2, return_indices=True)
    tangent = h.tangent.flatten(2).gather(2, indices.flatten(2)).view_as(indices)
    channels_last = value.is_contiguous(memory_format=torch.channels_last)
    return Dual(value, tangent.contiguous(memory_format=torch.channels_last) if channels_last else tangent)
