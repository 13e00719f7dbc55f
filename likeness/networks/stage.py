"""Residual blocks at one resolution."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from likeness.networks.attention_block import AttentionBlock
from likeness.networks.dual import Dual
from likeness.networks.residual_block import ResidualBlock


class Stage(nn.Module):
    """One residual block for each pair of neighbours in ``channels``, each followed by self-attention where asked."""

    def __init__(self, channels: Sequence[int], cond_dim: int, groups: int, dropout: float, attention: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(a, b, cond_dim, groups, dropout) for a, b in pairwise(channels))
        self.attention = nn.ModuleList(AttentionBlock(c, groups) for c in channels[1:] if attention)

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """[B, channels[0], H, W] and conditioning [B, D] -> [B, channels[-1], H, W]."""
        for i, block in enumerate(self.blocks):
            h = block(h, cond)
            if self.attention:
                h = self.attention[i](h)
        return h


class Middle(nn.Module):
    """A residual block, self-attention, another residual block."""

    def __init__(self, channels: int, cond_dim: int, block_groups: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, cond_dim, block_groups, dropout)
        self.attention = AttentionBlock(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, cond_dim, block_groups, dropout)

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """[B, C, H, W] and conditioning [B, D] -> [B, C, H, W]."""
        h = self.attention(self.block_1(h, cond))
        return self.block_2(h, cond)  # type: ignore[no-any-return]
