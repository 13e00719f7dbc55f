"""Networks that make of a sample the parameters of a context: see likeness.diffusion.context."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_positive, require_shape
from likeness.networks.unet_blocks import convolution, dense


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
