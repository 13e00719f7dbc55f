"""The convolutional residual block of the diffusion networks."""

from torch import nn

from likeness.networks.dropout import DualDropout
from likeness.networks.dual import Dual, add_, affine, pointwise
from likeness.networks.group_norm import NormSwish
from likeness.networks.initialisation import convolution, dense


class ResidualBlock(nn.Module):
    """h + conv2(dropout(swish(norm2(conv1(swish(norm1(h))) + cond_proj(cond))))), the identity at the start.

    A linear map of the channels carries h where their number changes. Kingma et al. 2021.
    """

    def __init__(self, in_channels: int, out_channels: int, cond_dim: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = NormSwish(groups, in_channels)
        self.conv1 = convolution(in_channels, out_channels)
        self.cond_proj = dense(cond_dim, out_channels, bias=False, zero=True)
        self.norm2 = NormSwish(groups, out_channels)
        self.dropout = DualDropout(dropout)
        self.conv2 = convolution(out_channels, out_channels, zero=True)
        self.shortcut = None if in_channels == out_channels else dense(in_channels, out_channels)

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """[B, C, H, W] and conditioning [B, D] -> [B, C', H, W]."""
        shift = affine(self.cond_proj, cond)
        residual = add_(affine(self.conv1, self.norm1(h)), _over_positions(shift))
        residual = affine(self.conv2, self.dropout(self.norm2(residual)))
        return add_(residual, h if self.shortcut is None else pointwise(self.shortcut, h))


def _over_positions(shift: Dual) -> Dual:
    tangent = None if shift.tangent is None else shift.tangent[:, :, None, None]
    return Dual(shift.value[:, :, None, None], tangent)
