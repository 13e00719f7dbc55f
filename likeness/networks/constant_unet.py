"""A U-Net of one resolution: Kingma et al. 2021 found that likelihoods gain nothing from coarser levels."""

from torch import nn

from likeness.networks.checks import require_positive, require_probability
from likeness.networks.dual import Dual, concat
from likeness.networks.stage import Middle, Stage


class ConstantUNet(nn.Module):
    """``depth`` blocks down, the middle with attention, ``depth + 1`` blocks up that take the skips; all at full size.

    Maps [B, width, H, W] and conditioning [B, 4 width] to [B, width, H, W]. With ``attention`` every block outside the
    middle is followed by self-attention as well. Raises ValueError where ``groups`` does not divide ``width``.
    """

    def __init__(self, width: int, depth: int, groups: int = 32, dropout: float = 0.1, attention: bool = False) -> None:
        super().__init__()
        require_positive(width=width, depth=depth)
        require_probability("dropout", dropout)
        rest = (4 * width, groups, dropout, attention)
        self.down = nn.ModuleList(Stage([width, width], *rest) for _ in range(depth))
        self.middle = Middle(width, 4 * width, groups, groups, dropout)
        self.up = nn.ModuleList(Stage([2 * width, width], *rest) for _ in range(depth + 1))

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """The last block's output."""
        h, skips = self.encode(h, cond)
        for stage in self.up:
            h = stage(concat([h, skips.pop()]), cond)
        return h

    def encode(self, h: Dual, cond: Dual) -> tuple[Dual, list[Dual]]:
        """The output of the middle, and the skips on the way there."""
        skips = [h]
        for stage in self.down:
            h = stage(h, cond)
            skips.append(h)
        return self.middle(h, cond), skips
