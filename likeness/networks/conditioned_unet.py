"""What the score network and the encoder share: an image-to-image U-Net that is told gamma and, if any, a class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likeness.networks.constant_unet import ConstantUNet
from likeness.networks.dual import Dual, affine
from likeness.networks.group_norm import NormSwish
from likeness.networks.initialisation import convolution
from likeness.networks.pyramid_unet import PyramidUNet
from likeness.networks.time_embedding import NetworkTime, TimeEmbedding


class ConditionedUNet(nn.Module):
    """conv_in, a body with conditioning, norm, swish and a zero-initialised conv_out.

    ``input_shape`` is (C, H, W); conv_in reads ``in_channels`` and conv_out writes C. Activations lie in memory as the
    weights do, and on a CPU always with the channels innermost, where its convolutions are a quarter faster.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        in_channels: int,
        width: int,
        body: ConstantUNet | PyramidUNet,
        output_groups: int,
        time: NetworkTime,
        num_labels: int | None,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.time_embedding = TimeEmbedding(width, time, num_labels)
        self.conv_in = convolution(in_channels, width)
        self.body = body
        self.norm_out = NormSwish(output_groups, width)
        self.conv_out = convolution(width, input_shape[0], zero=True)

    def stem(self, image: Tensor) -> Dual:
        """conv_in, [B, in_channels, H, W] -> [B, width, H, W]."""
        h = self.conv_in(image)
        return Dual(h.contiguous(memory_format=torch.channels_last) if h.device.type == "cpu" else h)

    def head(self, h: Dual) -> Dual:
        """conv_out(swish(norm(h)))."""
        return affine(self.conv_out, self.norm_out(h))
