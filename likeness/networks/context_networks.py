"""Networks that make of a sample the parameters of a context: see likeness.diffusion.context."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_positive, require_shape
from likeness.networks.dual import Dual, swish
from likeness.networks.unet import ConditionedUNet, ConstantTrunk
from likeness.networks.unet_blocks import convolution, dense, fourier_features

UNIT_VARIANCE = math.log(math.e - 1)  # its softplus is 1


class ContextMLP(nn.Module):
    """x [B, ...] of any shape -> [B, outputs], by hidden layers with swish; 0 at the start."""

    def __init__(self, input_shape: Sequence[int], outputs: int, width: int = 128, hidden_layers: int = 2) -> None:
        super().__init__()
        require_positive(outputs=outputs, width=width, hidden_layers=hidden_layers)
        sizes = [int(torch.Size(input_shape).numel()), *[width] * hidden_layers]
        self.hidden = nn.ModuleList(dense(a, b) for a, b in pairwise(sizes))
        self.out = dense(width, outputs, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """The answer of the last layer."""
        h = x.flatten(1)
        for layer in self.hidden:
            h = F.silu(layer(h))
        return self.out(h)  # type: ignore[no-any-return]


class ContextCNN(nn.Module):
    """Images [B, C, H, W] -> [B, outputs]; 0 at the start.

    A convolution, then ``levels`` of them that halve the resolution while it is even and above 2, each followed by
    swish; the last one's output goes through a linear layer whole. Images must have the size of ``input_shape``.
    """

    def __init__(self, input_shape: Sequence[int], outputs: int, width: int = 32, levels: int = 3) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=3)
        require_positive(outputs=outputs, width=width, levels=levels)
        channels, height, breadth = input_shape
        layers = [convolution(channels, width)]
        for _ in range(levels):
            if height % 2 or breadth % 2 or min(height, breadth) <= 2:
                break
            layers.append(convolution(width, width, size=2, stride=2))
            height, breadth = height // 2, breadth // 2
        self.layers = nn.ModuleList(layers)
        self.out = dense(width * height * breadth, outputs, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """The answer of the last layer."""
        h = x
        for layer in self.layers:
            h = F.silu(layer(h))
        return self.out(h.flatten(1))  # type: ignore[no-any-return]


class ContextUNet(ConditionedUNet):
    """Images [B, C, H, W] -> [B, outputs], as MuLAN infers its contexts; the prior at the start.

    conv_in reads x and its Fourier features, a :class:`ConstantTrunk` at t = 0 follows, and conv_out writes a channel,
    of whose swish a linear layer takes all. With ``variances`` there are two such layers, for the means and for
    the variances, which are a softplus and are answered as logarithms. Which fixed time the authors have, their numbers
    do not say: norms of one channel a group take away what is the same everywhere. Sahoo et al. 2024.

    Args:
        input_shape: (C, H, W); images must have this size.
        outputs: how many numbers it answers.
        variances: whether the second half are logarithmic variances.
        width, depth, groups, dropout, attention: as of :class:`likeness.networks.ScoreUNet`.
        fourier_exponents: of the Fourier features; none where it is empty.

    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        outputs: int,
        variances: bool = True,
        width: int = 128,
        depth: int = 1,
        groups: int = 32,
        dropout: float = 0.1,
        attention: bool = False,
        fourier_exponents: Sequence[int] = (6, 7),
    ) -> None:
        require_shape("input_shape", input_shape, length=3)
        require_positive(outputs=outputs)
        if variances and outputs % 2:
            raise ValueError(f"outputs must be even with variances, got {outputs}")
        body = ConstantTrunk(width, depth, groups, dropout, attention)
        in_channels = input_shape[0] * (1 + 2 * len(fourier_exponents))
        super().__init__(input_shape, 0.0, 1.0, None, width, body, groups, in_channels, out_channels=1)
        self.fourier_exponents = tuple(fourier_exponents)
        positions, halves = input_shape[1] * input_shape[2], 1 + variances
        self.heads = nn.ModuleList(dense(positions, outputs // halves) for _ in range(halves))
        if variances:
            nn.init.constant_(self.get_parameter("heads.1.bias"), UNIT_VARIANCE)

    def forward(self, x: Tensor) -> Tensor:
        """The answer of the last layers. Raises ValueError for images of another size."""
        if x.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise ValueError(f"x has shape {list(x.shape)}, the network takes [B, {wanted}]")
        with torch.autocast(x.device.type, enabled=False):
            parts = [x, fourier_features(x, self.fourier_exponents)] if self.fourier_exponents else [x]
            time = self.time_embedding(Dual(x.new_zeros(1)))
            h = swish(self.head(self.body(self.stem(torch.cat(parts, dim=1)), time))).value.flatten(1)
            first, *raw = (head(h) for head in self.heads)
            return torch.cat([first, *(F.softplus(one).log() for one in raw)], dim=1)
