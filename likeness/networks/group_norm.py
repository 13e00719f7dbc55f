"""Group normalisation of a value and its tangent."""

import torch
from torch import nn
from torch.nn import functional as F

from likeness.networks.dual import Dual
from likeness.networks.norm_swish import norm_swish_with_derivative


class DualGroupNorm(nn.GroupNorm):
    """Group normalisation with Flax's epsilon of 1e-6. Raises ValueError unless ``groups`` divides ``channels``."""

    def __init__(self, groups: int, channels: int) -> None:
        if groups < 1 or channels % groups:
            raise ValueError(f"groups must divide the channels, got {groups} groups for {channels} channels")
        super().__init__(groups, channels, eps=1e-6)

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """Normalise [B, C, H, W] over the channels of a group and all positions."""
        value = super().forward(h.value)
        if h.tangent is None:
            return Dual(value)
        grouped, rates = (part.reshape(len(part), self.num_groups, -1) for part in (h.value, h.tangent))
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        r = torch.rsqrt(variance + self.eps)
        x = (grouped - mean) * r
        rates = r * (rates - rates.mean(2, keepdim=True) - x * (rates * x).mean(2, keepdim=True))
        return Dual(value, rates.view_as(value) * self.weight.view(-1, 1, 1))


class NormSwish(DualGroupNorm):
    """Group normalisation, then swish."""

    def forward(self, h: Dual) -> Dual:  # type: ignore[override]
        """swish(norm(h)) for [B, C, H, W]."""
        if h.tangent is None:
            return Dual(F.silu(super().forward(h).value))
        return Dual(*norm_swish_with_derivative(h.value, h.tangent, self.weight, self.bias, self.num_groups, self.eps))
