"""The inner encoders of DiffEnc: y(x, gamma), where the depth-dependent mean is x_t = alpha^2 x + sigma^2 y."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from likeness.checks import require_batch, require_positive, require_shape
from likeness.networks.dual import Dual, affine, concat, swish, tanh
from likeness.networks.unet import ConditionedUNet, ConstantUNet, Downsampling, PyramidUNet
from likeness.networks.unet_blocks import NetworkTime, TimeEmbedding, dense

Kind = Literal["unet", "unet_mult_res", "constant"]


@dataclass(frozen=True)
class EncoderOutput:
    """What the last layer's output goes through to y: a bound to (-1, 1) by ``tanh``, as in all published models."""

    tanh: bool = True

    def __call__(self, h: Dual) -> Dual:
        """y, [B, ...]."""
        return tanh(h) if self.tanh else h


class DualEncoder(nn.Module):
    """An encoder whose one pass carries a value and, where it is asked for, its derivative in gamma."""

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x [B, ...], gamma [B] and, with ``num_labels``, labels [B] -> y, as x."""
        return self._pass(x, Dual(gamma), labels).value

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and dy/dgamma, by one pass of value and tangent through the same layers; both can be differentiated."""
        y, dy = self._pass(x, Dual(gamma, torch.ones_like(gamma)), labels)
        return y, torch.zeros_like(y) if dy is None else dy

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        raise NotImplementedError


class EncoderUNet(DualEncoder, ConditionedUNet):
    """y(x, gamma) for images x in [-1, 1], [B, C, H, W], with its derivative in gamma. Nielsen et al. 2024.

    kind "unet": a ``PyramidUNet`` of ``depth`` levels with one block each. "unet_mult_res": ``depth`` blocks shared out
    among as many levels as keep the height even and above 8. "constant": a ``ConstantUNet``, which alone reads
    ``attention`` and ignores ``downsampling`` and ``doubling``. The last group norm has ``output_groups`` groups, as do
    the middle blocks of "unet"; all others have ``groups``. The last layer is zero at the start, and so is y.
    ``output`` shapes y; see ``EncoderOutput``.

    The encoder works in its weights' precision, under autocast as well: the derivative is too spiky for bfloat16.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        kind: Kind = "unet",
        width: int = 64,
        depth: int = 2,
        groups: int = 32,
        output_groups: int = 16,
        dropout: float = 0.1,
        attention: bool = False,
        downsampling: Downsampling = "max_pool",
        doubling: bool = True,
        output: EncoderOutput | None = None,
    ) -> None:
        require_shape("input_shape", input_shape, length=3)
        body: ConstantUNet | PyramidUNet
        if kind == "constant":
            body = ConstantUNet(width, depth, groups, dropout, attention)
        else:
            levels, blocks, mid_groups = depth, 1, output_groups
            if kind == "unet_mult_res":
                (levels, blocks), mid_groups = levels_and_blocks(depth, input_shape[1]), groups
            elif kind != "unet":
                raise ValueError(f"kind must be unet, unet_mult_res or constant, got {kind!r}")
            body = PyramidUNet(
                input_shape[1:], width, levels, blocks, groups, mid_groups, dropout, downsampling, doubling
            )
        super().__init__(input_shape, gamma_min, gamma_max, num_labels, width, body, output_groups)
        self.kind = kind
        self.output = output or EncoderOutput()

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        require_batch("x", x, gamma.value, (self.input_shape[0], "H", "W"))
        with torch.autocast(x.device.type, enabled=False):
            cond = self.time_embedding(gamma, labels)
            h = self.head(self.body(self.stem(x), cond))
            return self.output(h)


def levels_and_blocks(depth: int, height: int) -> tuple[int, int]:
    """How many levels, and blocks a level, "unet_mult_res" makes of ``depth`` for images of ``height`` rows.

    Levels end where the next one's height would be odd or at most 8; the blocks are shared out evenly, rounded down.
    """
    for levels in range(1, depth):
        after = height / 2**levels
        if after % 2 == 1 or after <= 8:
            return levels, depth // levels
    return depth, 1


class EncoderMLP(DualEncoder):
    """y(x, gamma) for points, an MLP of x and the time embedding, with its derivative in gamma; 0 at the start.

    The time embedding is that of the U-Nets, ``4 time_width`` numbers. ``output`` shapes y; see ``EncoderOutput``.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 128,
        hidden_layers: int = 2,
        time_width: int = 32,
        output: EncoderOutput | None = None,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=1)
        require_positive(width=width, hidden_layers=hidden_layers)
        self.input_shape = tuple(input_shape)
        self.time_embedding = TimeEmbedding(time_width, NetworkTime(gamma_min, gamma_max), num_labels)
        sizes = [input_shape[0] + 4 * time_width, *[width] * hidden_layers]
        self.hidden = nn.ModuleList(dense(a, b) for a, b in pairwise(sizes))
        self.out = dense(width, input_shape[0], zero=True)
        self.output = output or EncoderOutput()

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        require_batch("x", x, gamma.value, self.input_shape)
        with torch.autocast(x.device.type, enabled=False):
            h = concat([Dual(x), self.time_embedding(gamma, labels)])
            for layer in self.hidden:
                h = swish(affine(layer, h))  # type: ignore[arg-type]
            return self.output(affine(self.out, h))
