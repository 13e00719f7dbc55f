"""U-Nets that are told gamma and, if any, a class: two bodies, and what score networks and encoders put around them.

The body of one resolution is that of Kingma et al. 2021, who found that likelihoods gain nothing from coarser levels;
in the other each level is half as high and wide as the one before.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from likeness.checks import require_positive, require_probability
from likeness.networks.dual import Dual, NormSwish, affine, concat, max_pool
from likeness.networks.unet_blocks import Middle, NetworkTime, Stage, TimeEmbedding, convolution, transposed_convolution

Downsampling = Literal["max_pool", "convolution", "none"]


class ConstantTrunk(nn.Module):
    """``depth`` blocks, then the middle with attention, all at full size.

    Maps [B, width, H, W] and conditioning, [B, 4 width] or of each position [B, H, W, 4 width], to [B, width, H, W].
    With ``attention`` every block outside the middle is followed by self-attention as well. Raises ValueError where
    ``groups`` does not divide ``width``.
    """

    def __init__(self, width: int, depth: int, groups: int = 32, dropout: float = 0.1, attention: bool = False) -> None:
        super().__init__()
        require_positive(width=width, depth=depth)
        require_probability("dropout", dropout)
        rest = (4 * width, groups, dropout, attention)
        self.down = nn.ModuleList(Stage([width, width], *rest) for _ in range(depth))
        self.middle = Middle(width, 4 * width, groups, groups, dropout)

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """The output of the middle."""
        return self.encode(h, cond)[0]

    def encode(self, h: Dual, cond: Dual) -> tuple[Dual, list[Dual]]:
        """The output of the middle, and the skips on the way there."""
        skips = [h]
        for stage in self.down:
            h = stage(h, cond)
            skips.append(h)
        return self.middle(h, cond), skips


class ConstantUNet(ConstantTrunk):
    """A trunk, and ``depth + 1`` blocks up that take its skips."""

    def __init__(self, width: int, depth: int, groups: int = 32, dropout: float = 0.1, attention: bool = False) -> None:
        super().__init__(width, depth, groups, dropout, attention)
        rest = (4 * width, groups, dropout, attention)
        self.up = nn.ModuleList(Stage([2 * width, width], *rest) for _ in range(depth + 1))

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """The last block's output."""
        h, skips = self.encode(h, cond)
        for stage in self.up:
            h = stage(concat([h, skips.pop()]), cond)
        return h


class PyramidUNet(nn.Module):
    """``levels`` levels of ``blocks`` residual blocks on the way down, the middle with attention, and the way up again.

    Each level hands its output to the way up as a skip, then halves the resolution: by the maximum of 2x2 windows, by a
    2x2 convolution, or not at all. The way up begins each level with a 2x2 transposed convolution. Level i has
    ``width * 2**i`` channels, or ``width`` unless ``doubling``. ``attention_levels`` names the levels (0 is the full
    size) whose blocks are followed by self-attention. The residual blocks of the middle have group norms of
    ``mid_groups`` groups, everything else of ``groups``. Nielsen et al. 2024 and their code.

    Maps [B, width, H, W] and conditioning [B, 4 width] to [B, width, H, W]. Raises ValueError where groups do not
    divide channels and, there and in ``forward``, where an image cannot be halved ``levels`` times; ``size`` is (H, W).
    """

    def __init__(
        self,
        size: Sequence[int],
        width: int,
        levels: int,
        blocks: int = 1,
        groups: int = 32,
        mid_groups: int | None = None,
        dropout: float = 0.1,
        downsampling: Downsampling = "max_pool",
        doubling: bool = True,
        attention_levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        require_positive(width=width, levels=levels, blocks=blocks)
        require_probability("dropout", dropout)
        if downsampling not in ("max_pool", "convolution", "none"):
            raise ValueError(f"downsampling must be max_pool, convolution or none, got {downsampling!r}")
        if any(not 0 <= level < levels for level in attention_levels):
            raise ValueError(f"attention_levels must lie in 0..{levels - 1}, got {list(attention_levels)}")
        self.halvings = 0 if downsampling == "none" else levels
        self.require_size(size)
        channels = [width * 2 ** (i * doubling) for i in range(levels)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for i, out in enumerate(channels):
            above, below = channels[max(i - 1, 0)], channels[min(i + 1, levels - 1)]
            rest = (4 * width, groups, dropout, i in attention_levels)
            self.down.append(DownLevel(Stage([above, *[out] * blocks], *rest), out, downsampling))
            merged = out + (below if downsampling == "none" else out)
            self.up.insert(0, UpLevel(Stage([merged, *[out] * blocks], *rest), below, out, downsampling))
        self.middle = Middle(channels[-1], 4 * width, mid_groups or groups, groups, dropout)

    def forward(self, h: Dual, cond: Dual) -> Dual:
        """The last level's output."""
        h, skips = self.encode(h, cond)
        for level in self.up:
            h = level(h, skips.pop(), cond)
        return h

    def encode(self, h: Dual, cond: Dual) -> tuple[Dual, list[Dual]]:
        """The output of the middle, and the skips on the way there."""
        self.require_size(h.value.shape[2:])
        skips = []
        for level in self.down:
            h, skip = level(h, cond)
            skips.append(skip)
        return self.middle(h, cond), skips

    def require_size(self, size: Sequence[int]) -> None:
        """Raise ValueError unless both sizes can be halved at each level."""
        if any(side % 2**self.halvings for side in size):
            raise ValueError(f"images of {'x'.join(map(str, size))} cannot be halved {self.halvings} times")


class DownLevel(nn.Module):
    """A stage, and what halves its resolution."""

    def __init__(self, stage: Stage, channels: int, downsampling: Downsampling) -> None:
        super().__init__()
        self.stage = stage
        self.pool = downsampling == "max_pool"
        self.downsample = convolution(channels, channels, size=2, stride=2) if downsampling == "convolution" else None

    def forward(self, h: Dual, cond: Dual) -> tuple[Dual, Dual]:
        """The output at the next resolution, and the skip."""
        skip = self.stage(h, cond)
        if self.downsample is not None:
            return affine(self.downsample, skip), skip
        return max_pool(skip) if self.pool else skip, skip


class UpLevel(nn.Module):
    """What doubles the resolution, and a stage that takes the skip as well."""

    def __init__(self, stage: Stage, in_channels: int, out_channels: int, downsampling: Downsampling) -> None:
        super().__init__()
        self.upsample = None if downsampling == "none" else transposed_convolution(in_channels, out_channels)
        self.stage = stage

    def forward(self, h: Dual, skip: Dual, cond: Dual) -> Dual:
        """[B, C, H, W], a skip [B, C', 2 H, 2 W] and conditioning [B, D] -> [B, C', 2 H, 2 W]."""
        if self.upsample is not None:
            h = affine(self.upsample, h)
        return self.stage(concat([h, skip]), cond)  # type: ignore[no-any-return]


class ConditionedUNet(nn.Module):
    """conv_in, a body with conditioning, norm, swish and a zero-initialised conv_out.

    ``input_shape`` is (C, H, W); conv_in reads ``in_channels`` and conv_out writes ``out_channels``, C where None.
    Activations lie in memory as the weights do, and on a CPU always with the channels innermost, where its convolutions
    are a quarter faster.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float,
        gamma_max: float,
        num_labels: int | None,
        width: int,
        body: ConstantTrunk | PyramidUNet,
        output_groups: int,
        in_channels: int | None = None,
        context_size: int | None = None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.time_embedding = TimeEmbedding(width, NetworkTime(gamma_min, gamma_max), num_labels, context_size)
        self.conv_in = convolution(in_channels or input_shape[0], width)
        self.body = body
        self.norm_out = NormSwish(output_groups, width)
        self.conv_out = convolution(width, out_channels or input_shape[0], zero=True)

    def stem(self, image: Tensor) -> Dual:
        """conv_in, [B, in_channels, H, W] -> [B, width, H, W]."""
        h = self.conv_in(image)
        return Dual(h.contiguous(memory_format=torch.channels_last) if h.device.type == "cpu" else h)

    def head(self, h: Dual) -> Dual:
        """conv_out(swish(norm(h)))."""
        return affine(self.conv_out, self.norm_out(h))
