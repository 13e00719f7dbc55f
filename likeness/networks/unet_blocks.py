"""The blocks of diffusion U-Nets: layers, Fourier features, the conditioning on time and class, residuals, attention.

Layers start at the weights that Flax gives them: LeCun-normal kernels (truncated), zero biases. Fourier features are
sines and cosines of the input at octaves, by which a network sees fine detail (Kingma et al. 2021, appendix C).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_labels, require_positive
from likeness.networks.dual import Dual, DualDropout, DualGroupNorm, NormSwish, add_, affine, concat, pointwise, swish

# The standard deviation of a standard normal that is truncated to [-2, 2].
TRUNCATED_STD = 0.87962566103423978
FEW_POSITIONS = 64  # 8x8; up to here the weights of attention are no larger than the image


def lecun_normal_(weight: Tensor, fan_in: int) -> None:
    """Fill ``weight`` from a normal of variance 1 / fan_in, truncated at two standard deviations of the original."""
    std = math.sqrt(1 / fan_in) / TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def convolution(
    in_channels: int, out_channels: int, size: int = 3, *, stride: int = 1, zero: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the resolution (stride 1, odd size) or divides it (stride = size)."""
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=(size - stride) // 2)
    _initialise(layer, in_channels * size * size, zero)
    return layer


def transposed_convolution(in_channels: int, out_channels: int, size: int = 2) -> nn.ConvTranspose2d:
    """A transposed convolution that multiplies the resolution by ``size``."""
    layer = nn.ConvTranspose2d(in_channels, out_channels, size, stride=size)
    _initialise(layer, in_channels * size * size, zero=False)
    return layer


def dense(in_features: int, out_features: int, *, bias: bool = True, zero: bool = False) -> nn.Linear:
    """A linear layer."""
    layer = nn.Linear(in_features, out_features, bias)
    _initialise(layer, in_features, zero)
    return layer


def _initialise(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, fan_in: int, zero: bool) -> None:
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        lecun_normal_(layer.weight, fan_in)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def fourier_features(z: Tensor, exponents: Sequence[int]) -> Tensor:
    """[B, C, ...] -> [B, 2 C E, ...]: sin(2^n 2 pi z) for the E exponents n of each channel, then the cosines.

    Channel c stands at c E .. c E + E - 1 of either half. Angles need float32: at n = 7 an error of 1e-4 in z shows.
    """
    frequencies = torch.tensor([2.0**n * 2 * math.pi for n in exponents], dtype=z.dtype, device=z.device)
    angles = z.unsqueeze(2) * frequencies.view(-1, *[1] * (z.dim() - 2))
    angles = angles.flatten(1, 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ClassEmbedding(nn.Module):
    """Adds vector y of [K, dim], zero at the start, to a sample of class y; adds nothing where K is None.

    So a network with classes starts as the one without.
    """

    def __init__(self, num_labels: int | None, dim: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        if num_labels is not None:
            require_positive(num_labels=num_labels)
        self.weight = None if num_labels is None else nn.Parameter(torch.zeros(num_labels, dim))

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """h [B, dim] and labels [B] -> [B, dim]. Raises ValueError for labels missing, extra or out of range."""
        if self.weight is None:
            if labels is not None:
                raise ValueError(
                    f"labels of shape {list(labels.shape)} for a network without classes (num_labels=None)"
                )
            return h
        if labels is None or labels.shape != h.shape[:1]:
            got = None if labels is None else f"labels of shape {list(labels.shape)}"
            raise ValueError(f"a network with num_labels={self.num_labels} takes labels [{len(h)}], got {got}")
        require_labels(labels, len(self.weight), wait=False)
        return h + self.weight[labels]


class ContextEmbedding(nn.Module):
    """Adds a linear map of w [B, context_size], zero at the start, to h [B, dim]; nothing where the size is None.

    So a network that is told a context starts as the one that is not.
    """

    def __init__(self, context_size: int | None, dim: int) -> None:
        super().__init__()
        require_positive(context_size=context_size)
        self.size = context_size
        self.map = None if context_size is None else dense(context_size, dim, bias=False, zero=True)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        """h + map(w). Raises ValueError for a context that is missing, extra or of another shape."""
        expected = None if self.size is None else [len(h), self.size]
        given = None if context is None else list(context.shape)
        if expected != given:
            raise ValueError(f"a network with context_size={self.size} takes a context {expected}, got {given}")
        return h if self.map is None or context is None else h + self.map(context)


class NetworkTime:
    """t = (gamma - gamma_min) / (gamma_max - gamma_min), the same whatever schedule produced gamma.

    Raises ValueError for limits that are not increasing.
    """

    def __init__(self, gamma_min: float, gamma_max: float) -> None:
        if not gamma_min < gamma_max:
            raise ValueError(f"gamma_min must be below gamma_max, got gamma_min={gamma_min}, gamma_max={gamma_max}")
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, gamma: Dual) -> Dual:
        """t [B] for gamma [B]."""
        length = self.gamma_max - self.gamma_min
        return Dual((gamma.value - self.gamma_min) / length, None if gamma.tangent is None else gamma.tangent / length)


class TimeEmbedding(nn.Module):
    """gamma [B] -> a conditioning vector [B, 4 width], by two layers with swish over sines and cosines of the time.

    After the sines and cosines stands one conditioning number, always 0 here and in the published models. With
    ``num_labels`` each class adds a learned vector to the first layer, with ``context_size`` a context of so many
    numbers adds a linear map of itself. Kingma et al. 2021 and their code.
    Raises ValueError for an odd width or one below 4.
    """

    def __init__(
        self, width: int, time: NetworkTime, num_labels: int | None = None, context_size: int | None = None
    ) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"width must be even and at least 4, got {width}")
        self.width = width
        self.time = time
        self.dense0 = dense(width + 1, 4 * width)
        self.dense1 = dense(4 * width, 4 * width)
        self.labels = ClassEmbedding(num_labels, 4 * width)
        self.context = ContextEmbedding(context_size, 4 * width)

    def forward(self, gamma: Dual, labels: Tensor | None = None, context: Tensor | None = None) -> Dual:
        """The conditioning vectors [B, 4 width]. Raises ValueError where labels or contexts are missing or extra."""
        conditioning = Dual(torch.zeros_like(gamma.value).unsqueeze(1))
        h = affine(self.dense0, concat([sinusoids(self.time(gamma), self.width), conditioning]))
        h = Dual(self.context(self.labels(h.value, labels), context), h.tangent)
        return swish(affine(self.dense1, swish(h)))


class PositionTimeEmbedding(TimeEmbedding):
    """gamma [B, C, H, W] -> a conditioning vector for each position, [B, H, W, 4 width]; MuLAN's "ldm" network.

    The first layer reads the sines and cosines of the times of all ``channels``, one after another. A class and a
    context add the same everywhere. Sahoo et al. 2024.
    """

    def __init__(
        self,
        width: int,
        time: NetworkTime,
        num_labels: int | None = None,
        context_size: int | None = None,
        channels: int = 3,
    ) -> None:
        super().__init__(width, time, num_labels, context_size)
        require_positive(channels=channels)
        self.dense0 = dense(channels * width, 4 * width)

    def forward(self, gamma: Dual, labels: Tensor | None = None, context: Tensor | None = None) -> Dual:
        """The conditioning vectors. Raises ValueError where labels or contexts are missing or extra."""
        t = self.time(gamma).value.movedim(1, -1)
        waves = sinusoids(Dual(t.flatten()), self.width).value.reshape(*t.shape[:-1], -1)
        same = self.context(self.labels(waves.new_zeros(len(t), 4 * self.width), labels), context)
        return swish(affine(self.dense1, swish(Dual(self.dense0(waves) + same[:, None, None]))))


def sinusoids(t: Dual, width: int) -> Dual:
    """[B] -> [B, width]: sines, then cosines, of 1000 t at frequencies from 1 down to 1e-4."""
    half = width // 2
    steps = torch.arange(half, dtype=t.value.dtype, device=t.value.device)
    frequencies = torch.exp(steps * (-math.log(10_000) / (half - 1)))
    angles = (1000 * t.value).unsqueeze(1) * frequencies
    sin, cos = angles.sin(), angles.cos()
    value = torch.cat([sin, cos], dim=1)
    if t.tangent is None:
        return Dual(value)
    rates = (1000 * t.tangent).unsqueeze(1) * frequencies
    return Dual(value, torch.cat([cos * rates, -sin * rates], dim=1))


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
        """[B, C, H, W] and conditioning [B, D] or [B, H, W, D] -> [B, C', H, W]."""
        shift = affine(self.cond_proj, cond)
        residual = add_(affine(self.conv1, self.norm1(h)), _over_positions(shift))
        residual = affine(self.conv2, self.dropout(self.norm2(residual)))
        return add_(residual, h if self.shortcut is None else pointwise(self.shortcut, h))


def _over_positions(shift: Dual) -> Dual:
    """[B, C] as [B, C, 1, 1], and [B, H, W, C] as [B, C, H, W]."""

    def moved(part: Tensor) -> Tensor:
        return part[:, :, None, None] if part.dim() == 2 else part.movedim(-1, 1)

    return Dual(moved(shift.value), None if shift.tangent is None else moved(shift.tangent))


class AttentionBlock(nn.Module):
    """h + proj_out(attention(norm(h))) with one head, the identity at the start. Kingma et al. 2021."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = DualGroupNorm(groups, channels)
        self.q = dense(channels, channels)
        self.k = dense(channels, channels)
        self.v = dense(channels, channels)
        self.proj_out = dense(channels, channels, zero=True)

    def forward(self, h: Dual) -> Dual:
        """[B, C, H, W] -> [B, C, H, W]."""
        tokens = _tokens(self.norm(h))
        out = attention(affine(self.q, tokens), affine(self.k, tokens), affine(self.v, tokens))
        return _image(add_(affine(self.proj_out, out), _tokens(h)), h.value.shape)


def attention(q: Dual, k: Dual, v: Dual) -> Dual:
    """softmax(q k^T / sqrt(C)) v for [B, N, C].

    A plain pass over many positions takes torch's fused kernel, which saves the N x N weights but has no derivative in
    forward mode. Otherwise the weights are built: encoders attend at their coarsest resolution only.
    """
    plain = q.tangent is None or k.tangent is None or v.tangent is None
    if plain and q.value.shape[1] > FEW_POSITIONS:
        return Dual(F.scaled_dot_product_attention(q.value, k.value, v.value))
    scale = 1 / math.sqrt(q.value.shape[-1])
    weights = torch.softmax(scale * (q.value @ k.value.mT), dim=-1)
    if q.tangent is None or k.tangent is None or v.tangent is None:
        return Dual(weights @ v.value)
    rates = scale * (q.tangent @ k.value.mT + q.value @ k.tangent.mT)
    d_weights = weights * (rates - (weights * rates).sum(-1, keepdim=True))
    return Dual(weights @ v.value, d_weights @ v.value + weights @ v.tangent)


def _tokens(h: Dual) -> Dual:
    return Dual(h.value.flatten(2).mT, None if h.tangent is None else h.tangent.flatten(2).mT)


def _image(tokens: Dual, shape: torch.Size) -> Dual:
    def unfold(tensor: Tensor) -> Tensor:
        return tensor.mT.view(shape)

    return Dual(unfold(tokens.value), None if tokens.tangent is None else unfold(tokens.tangent))


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
