"""swish(group norm(h)) and its derivative along a tangent of h, with a backward pass by hand.

With x = (h - mean) r and r = 1 / sqrt(variance + eps) in each group, the tangent of x is dx = J dh, where

    J a = r (a - <a> - x <a x>),        < > the mean over a group.

J is symmetric, so a gradient c of dx reaches dh as J c. With a the gradient of x, what reaches h is

    J a - r (<dh x> J c + <c x> dx + <c dx> x).

These layers do little arithmetic on tensors as large as the outputs of convolutions: what counts is how often they go
through memory, and autograd's own version of the above does so four times as often.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


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
