"""The inner encoder of DiffEnc: y(x, gamma), where the depth-dependent mean x_t = alpha^2 x + sigma^2 y."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from likeness.networks.checks import require_batch, require_shape
from likeness.networks.conditioned_unet import ConditionedUNet
from likeness.networks.constant_unet import ConstantUNet
from likeness.networks.dual import Dual
from likeness.networks.encoder_output import EncoderOutput
from likeness.networks.pyramid_unet import Downsampling, PyramidUNet
from likeness.networks.time_embedding import NetworkTime

Kind = Literal["unet", "unet_mult_res", "constant"]


class EncoderUNet(ConditionedUNet):
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
        time = NetworkTime(gamma_min, gamma_max)
        super().__init__(input_shape, input_shape[0], width, body, output_groups, time, num_labels)
        self.kind = kind
        self.output = output or EncoderOutput()

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], gamma [B] and, with ``num_labels``, labels [B] -> y, as x."""
        return self._pass(x, Dual(gamma), labels).value

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and dy/dgamma, by one pass of value and tangent through the same layers; both can be differentiated."""
        y, dy = self._pass(x, Dual(gamma, torch.ones_like(gamma)), labels)
        return y, torch.zeros_like(y) if dy is None else dy

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        require_batch("x", x, gamma.value, (self.input_shape[0], "H", "W"))
        with torch.autocast(x.device.type, enabled=False):
            cond = self.time_embedding(gamma, labels)
            h = self.head(self.body(self.stem(x), cond))
            return self.output(h, x, self.time_embedding.time(gamma))


def levels_and_blocks(depth: int, height: int) -> tuple[int, int]:
    """How many levels, and blocks a level, "unet_mult_res" makes of ``depth`` for images of ``height`` rows.

    Levels end where the next one's height would be odd or at most 8; the blocks are shared out evenly, rounded down.
    """
    for levels in range(1, depth):
        after = height / 2**levels
        if after % 2 == 1 or after <= 8:
            return levels, depth // levels
    return depth, 1
