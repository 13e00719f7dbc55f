"""The score networks of VDM and DiffEnc: o(z, gamma), from which the noise, velocity or data in z follow."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from likeness.checks import require_batch, require_positive, require_shape
from likeness.diffusion.process import broadcast, mean_over_dimensions
from likeness.networks.dual import Dual
from likeness.networks.unet import ConditionedUNet, ConstantUNet, Downsampling, PyramidUNet
from likeness.networks.unet_blocks import (
    ClassEmbedding,
    ContextEmbedding,
    NetworkTime,
    PositionTimeEmbedding,
    dense,
    fourier_features,
)

FOURIER_EXPONENTS = (6, 7)  # of images of 256 levels, as in the papers
POINT_EXPONENTS = range(8)


class ScoreNetwork(ConditionedUNet):
    """o(z, gamma) = conv_out(...) + z, which is z at the start, for images [B, C, H, W], around any body.

    conv_in reads z and its Fourier features (none where ``fourier_exponents`` is empty; the papers' 6 and 7 suit 256
    levels). Under autocast the time, the Fourier features, conv_in and the sum with z stay in float32: z carries noise
    of 1e-3 that a network must see.

    Of a gamma for each dimension the time is that of its mean. With ``gamma_map`` conv_in also reads gamma itself, in C
    more channels, on the scale on which ``gamma_min`` and ``gamma_max`` are -1 and 1. With ``context_size`` K it takes
    a context [B, K] of a model that has one.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float,
        gamma_max: float,
        num_labels: int | None,
        width: int,
        body: ConstantUNet | PyramidUNet,
        output_groups: int,
        fourier_exponents: Sequence[int],
        gamma_map: bool,
        context_size: int | None,
    ) -> None:
        require_shape("input_shape", input_shape, length=3)
        channels = input_shape[0] * (1 + 2 * len(fourier_exponents) + gamma_map)
        rest = (num_labels, width, body, output_groups, channels, context_size)
        super().__init__(input_shape, gamma_min, gamma_max, *rest)
        self.fourier_exponents, self.gamma_map = tuple(fourier_exponents), gamma_map
        self.context_size = context_size

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """z [B, C, H, W], gamma [B] or as z and, where it is built for them, labels [B], context [B, K] -> o, as z."""
        h, cond = self._start(z, gamma, labels, context)
        return self.head(self.body(h, cond)).value.to(z.dtype) + z

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """The output of the middle, averaged over positions: [B, M]."""
        h, cond = self._start(z, gamma, labels, context)
        return self.body.encode(h, cond)[0].value.mean((-2, -1))

    def _start(self, z: Tensor, gamma: Tensor, labels: Tensor | None, context: Tensor | None) -> tuple[Dual, Dual]:
        require_batch("z", z, gamma, (self.input_shape[0], "H", "W"), each_dimension=True)
        with torch.autocast(z.device.type, enabled=False):
            parts = [z, fourier_features(z, self.fourier_exponents)] if self.fourier_exponents else [z]
            if self.gamma_map:
                parts.append(_map(self.time_embedding.time, gamma, z))
            return self.stem(torch.cat(parts, dim=1)), self._conditioning(z, gamma, labels, context)

    def _conditioning(self, z: Tensor, gamma: Tensor, labels: Tensor | None, context: Tensor | None) -> Dual:
        return self.time_embedding(Dual(mean_over_dimensions(gamma)), labels, context)  # type: ignore[no-any-return]


def _map(time: NetworkTime, gamma: Tensor, z: Tensor) -> Tensor:
    """2 t - 1 of each dimension, as z, of gamma [B] or as z."""
    return broadcast(2 * time(Dual(gamma)).value - 1, z).expand_as(z)


class ScoreUNet(ScoreNetwork):
    """The score network of Kingma et al. 2021, all of it at full resolution: see ``ConstantUNet`` for the body.

    ``depth`` blocks lead down and ``depth + 1`` up. ``groups`` is the number of groups of every group norm but the
    last, which has ``output_groups`` (the same where None). ``attention`` adds self-attention after every block.
    ``gamma_min`` and ``gamma_max`` only normalise the network's time. With ``num_labels`` K it takes labels 0 .. K-1.
    ``gamma_map`` is for a schedule with a gamma for each dimension, ``context_size`` for a model with a context: see
    :class:`ScoreNetwork`.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 128,
        depth: int = 8,
        groups: int = 32,
        output_groups: int | None = None,
        dropout: float = 0.1,
        attention: bool = False,
        fourier_exponents: Sequence[int] = FOURIER_EXPONENTS,
        gamma_map: bool = False,
        context_size: int | None = None,
    ) -> None:
        body = ConstantUNet(width, depth, groups, dropout, attention)
        inputs = (fourier_exponents, gamma_map, context_size)
        super().__init__(input_shape, gamma_min, gamma_max, num_labels, width, body, output_groups or groups, *inputs)


class PositionScoreUNet(ScoreUNet):
    """A score network whose blocks are told the gammas of each position there, in place of the mean of all.

    Sahoo et al. 2024 (MuLAN), of whose networks it is one; the other is a :class:`ScoreUNet` with a context. The
    arguments are those of :class:`ScoreUNet`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_shape, gamma_min, gamma_max, num_labels, **options)
        width, time = self.time_embedding.width, self.time_embedding.time
        self.time_embedding = PositionTimeEmbedding(width, time, num_labels, self.context_size, input_shape[0])

    @override
    def _conditioning(self, z: Tensor, gamma: Tensor, labels: Tensor | None, context: Tensor | None) -> Dual:
        of_each = broadcast(gamma, z).expand_as(z)
        return self.time_embedding(Dual(of_each), labels, context)  # type: ignore[no-any-return]


class PyramidScoreUNet(ScoreNetwork):
    """A score network of several resolutions, for larger images: see ``PyramidUNet`` for the body.

    ``mid_groups`` and ``output_groups`` are those of the middle blocks' and the last group norm, ``groups`` where None.
    ``gamma_map`` and ``context_size`` are as in :class:`ScoreNetwork`.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 128,
        levels: int = 3,
        blocks: int = 2,
        groups: int = 32,
        mid_groups: int | None = None,
        output_groups: int | None = None,
        dropout: float = 0.1,
        downsampling: Downsampling = "max_pool",
        doubling: bool = True,
        attention_levels: Sequence[int] = (),
        fourier_exponents: Sequence[int] = FOURIER_EXPONENTS,
        gamma_map: bool = False,
        context_size: int | None = None,
    ) -> None:
        rest = (dropout, downsampling, doubling, attention_levels)
        body = PyramidUNet(input_shape[1:], width, levels, blocks, groups, mid_groups, *rest)
        inputs = (fourier_exponents, gamma_map, context_size)
        super().__init__(input_shape, gamma_min, gamma_max, num_labels, width, body, output_groups or groups, *inputs)


class ScoreMLP(nn.Module):
    """o(z, gamma) = MLP(z, 2 t - 1, Fourier features of both) + z for points; swish; z at the start.

    The network of the VDM authors' two-dimensional example, with t = (gamma - gamma_min) / (gamma_max - gamma_min) and
    octaves 0 to 7: 51 inputs for D = 2. With ``num_labels`` each class adds a learned vector to the first layer. Of a
    gamma for each dimension t is that of its mean; with ``gamma_map`` 2 t - 1 of each is D more inputs. With
    ``context_size`` a context adds a linear map of itself to the first layer.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 512,
        hidden_layers: int = 2,
        gamma_map: bool = False,
        context_size: int | None = None,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=1)
        require_positive(width=width, hidden_layers=hidden_layers)
        self.input_shape = tuple(input_shape)
        self.time = NetworkTime(gamma_min, gamma_max)
        self.gamma_map = gamma_map
        inputs = (input_shape[0] + 1) * (1 + 2 * len(POINT_EXPONENTS)) + input_shape[0] * gamma_map
        sizes = [inputs, *[width] * hidden_layers]
        self.hidden = nn.ModuleList(dense(a, b) for a, b in pairwise(sizes))
        self.out = dense(width, input_shape[0], zero=True)
        self.labels = ClassEmbedding(num_labels, width)
        self.context, self.context_size = ContextEmbedding(context_size, width), context_size

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """z [B, D], gamma [B] or [B, D] and, where it is built for them, labels [B], context [B, K] -> o [B, D]."""
        return self.out(self.features(z, gamma, labels, context)) + z  # type: ignore[no-any-return]

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """The last hidden layer, [B, width]."""
        require_batch("z", z, gamma, self.input_shape, each_dimension=True)
        t = self.time(Dual(mean_over_dimensions(gamma))).value.unsqueeze(1)
        point = torch.cat([z, 2 * t - 1], dim=1)
        parts = [point, fourier_features(point, POINT_EXPONENTS)]
        if self.gamma_map:
            parts.append(_map(self.time, gamma, z))
        h = self.hidden[0](torch.cat(parts, dim=1))
        h = F.silu(self.context(self.labels(h, labels), context))
        for layer in self.hidden[1:]:
            h = F.silu(layer(h))
        return h
