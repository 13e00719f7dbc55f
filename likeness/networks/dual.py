"""A value with its derivative along one direction, and the layers that carry both: forward-mode differentiation.

Every block of the diffusion networks is written once, over ``Dual``. A plain pass is a pass with tangent ``None``;
``with_derivative`` seeds the tangent of gamma with ones. A zero tangent is ``None``, so what does not depend on gamma
(everything before the first conditioning) costs nothing. Ordinary autograd differentiates the result once more.

swish(group norm(h)) with its derivative along a tangent of h has a backward pass by hand. With x = (h - mean) r and
r = 1 / sqrt(variance + eps) in each group, the tangent of x is dx = J dh, where

    J a = r (a - <a> - x <a x>),        < > the mean over a group.

J is symmetric, so a gradient c of dx reaches dh as J c. With a the gradient of x, what reaches h is

    J a - r (<dh x> J c + <c x> dx + <c dx> x).

These layers do little arithmetic on tensors as large as the outputs of convolutions: what counts is how often they go
through memory, and autograd's own version of the above does so four times as often.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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


def norm_swish_with_derivative(
    h: Tensor, dh: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The value [B, C, H, W] of swish(group_norm(h)) and its derivative along ``dh``; both can be differentiated once.

    ``weight`` and ``bias`` are [C].
    """
    out: tuple[Tensor, Tensor] = _NormSwish.apply(h, dh, weight, bias, groups, eps)
    return out


class _NormSwish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h: Tensor, dh: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        w, b = weight.view(-1, 1, 1), bias.view(-1, 1, 1)
        batch, channels = h.shape[:2]
        x, _, r = torch.native_group_norm(h, None, None, batch, channels, h[0, 0].numel(), groups, eps)
        r = _by_channel(r, channels)
        dx = dh * x
        dh_1, dh_x = _group_mean(_position_mean(dh), groups), _group_mean(_position_mean(dx), groups)
        torch.addcmul(-r * dh_1, x, -r * dh_x, out=dx).addcmul_(dh, r)
        ctx.save_for_backward(x, dx, r, dh_x, w, b)
        ctx.groups = groups
        n, dn = torch.addcmul(b, x, w), dx * w
        dy = torch.ops.aten.silu_backward.grad_input(dn, n, grad_input=dn)
        return F.silu(n, inplace=True), dy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor, gdy: Tensor) -> tuple[Tensor | None, ...]:
        x, dx, r, dh_x, w, b = ctx.saved_tensors
        first, second = _swish_derivatives(torch.addcmul(b, x, w))
        gdn = gdy * first
        gn = first.mul_(gy).addcmul_(second.mul_(dx).mul_(w), gdy)
        # Means of both gradients, and of their products with x and dx, which take turns in one tensor's memory.
        gn_1, gdn_1 = _position_mean(gn), _position_mean(gdn)
        products = (torch.mul(g, other, out=second) for g, other in ((gn, x), (gdn, x), (gdn, dx)))
        gn_x, gdn_x, gdn_dx = map(_position_mean, products)
        a_1, c_1, a_x, c_x, c_dx = (_group_mean(w * mean, ctx.groups) for mean in (gn_1, gdn_1, gn_x, gdn_x, gdn_dx))
        gdh = gdn.mul_(r * w).addcmul_(x, -r * c_x).add_(-r * c_1)
        gh = gn.mul_(r * w).addcmul_(x, -r * (a_x + c_dx)).add_(-r * a_1)
        gh.addcmul_(gdh, -r * dh_x).addcmul_(dx, -r * c_x)
        positions = x[0, 0].numel()
        gw = (gn_x + gdn_dx).sum(0).flatten() * positions
        return gh, gdh, gw, gn_1.sum(0).flatten() * positions, None, None


def _swish_derivatives(n: Tensor) -> tuple[Tensor, Tensor]:
    """swish' = s + n s (1 - s) and swish'' = s (1 - s) (2 + n - 2 n s), with s the sigmoid of n."""
    s = n.sigmoid()
    slope = torch.addcmul(s, s, s, value=-1)
    second = torch.addcmul(n, n, s, value=-2).add_(2).mul_(slope)
    return s.addcmul_(n, slope), second


def _position_mean(a: Tensor) -> Tensor:
    return a.mean((2, 3), keepdim=True)


def _group_mean(means: Tensor, groups: int) -> Tensor:
    """The mean over the channels of each group, [B, C, 1, 1]."""
    return _by_channel(means.view(len(means), groups, -1).mean(-1), means.shape[1])


def _by_channel(statistics: Tensor, channels: int) -> Tensor:
    """[B, groups] -> [B, C, 1, 1]."""
    groups = statistics.shape[1]
    return statistics.repeat_interleave(channels // groups, dim=1)[:, :, None, None]


class DualGroupNorm(nn.GroupNorm):
    """Group normalisation with Flax's epsilon of 1e-6. Raises ValueError unless ``groups`` divides ``channels``."""

    def __init__(self, groups: int, channels: int) -> None:
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide the channels, got {groups} groups for {channels} channels")
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """Normalise [B, C, H, W] over the channels of a group and all positions; ValueError where that is one value."""
        self._require_values(h.value)
        value = super().forward(h.value)
        if h.tangent is None:
            return Dual(value)
        grouped, rates = (part.reshape(len(part), self.num_groups, -1) for part in (h.value, h.tangent))
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        r = torch.rsqrt(variance + self.eps)
        x = (grouped - mean) * r
        rates = r * (rates - rates.mean(2, keepdim=True) - x * (rates * x).mean(2, keepdim=True))
        return Dual(value, rates.view_as(value) * self.weight.view(-1, 1, 1))

    def _require_values(self, h: Tensor) -> None:
        if h.shape[1:].numel() <= self.num_groups:
            channels, *size = h.shape[1:]
            image = "x".join(map(str, size))
            raise ValueError(
                f"{self.num_groups} groups of {channels} channels at {image} hold one value each, of which "
                "normalisation makes 0: take fewer groups or larger images"
            )


class NormSwish(DualGroupNorm):
    """Group normalisation, then swish."""

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """swish(norm(h)) for [B, C, H, W]."""
        if h.tangent is None:
            return Dual(F.silu(super().forward(h).value))
        self._require_values(h.value)
        return Dual(*norm_swish_with_derivative(h.value, h.tangent, self.weight, self.bias, self.num_groups, self.eps))


class DualDropout(nn.Dropout):
    """While training, zero each entry with probability p and divide the others by the probability to stay."""

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """Both parts times one mask."""
        if not self.training or self.p == 0:
            return h
        return multiply(h, Dual(scaled_mask(h.value, self.p)))


def scaled_mask(like: Tensor, p: float) -> Tensor:
    """0 where an entry is dropped, 1 over the probability to stay elsewhere; p counts in steps of 2^-16 on the CPU."""
    if like.device.type != "cpu" or torch.compiler.is_compiling():  # the compiler has no random_ and draws its own way
        return F.dropout(torch.ones_like(like), p)
    # torch draws one number an entry here, which costs more than the group norm beside it. 16 bits an entry are enough.
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    dropped = round(p * 2**16)
    kept = words.view(torch.int16)[: like.numel()] >= dropped - 2**15
    mask = kept.to(like.dtype).mul_(2**16 / (2**16 - dropped))
    return mask.as_strided(like.shape, torch.empty_like(like, device="meta").stride())
