"""The inner encoder of DiffEnc: y(x, gamma), where the depth-dependent mean x_t = alpha^2 x + sigma^2 y.

What the inner encoder's last layer goes through: bounds on y and, if asked, fixed values at an end of time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from likeness.checks import require_batch, require_positive, require_shape
from likeness.networks.dual import Dual, affine, concat, multiply, swish, tanh
from likeness.networks.unet import ConditionedUNet, ConstantUNet, Downsampling, PyramidUNet
from likeness.networks.unet_blocks import NetworkTime, TimeEmbedding, dense


@dataclass(frozen=True)
class EncoderOutput:
    """y(x, t) from the last layer's h; the options of Nielsen et al. 2024 and, beside them, their configuration's keys.

    They apply in this order, and all published models use ``tanh`` alone.

    vanish_at_zero: multiply by t, so that y = 0 at t = 0 (gamma_reg)
    vanish_at_one: multiply by 1 - t (end_reg)
    vanish_after_half: multiply by max(t / 2 - t^2, 0) (end_half_reg). The published code takes the maximum over the
        batch here instead of the elementwise one that is meant.
    tanh: bound y to (-1, 1) (m1_to_1)
    factor: multiply by a constant (k)
    max_variance: scale y down where the variance of its entries, image by image, exceeds this; 0 for none (init_var)
    min_variance: after such a maximum only, scale y up where its variance is smaller than this; 0 for none. Variances
        below 0.001 count as 0.001 (min_var)
    cap_by_input_variance: where there is no maximum, scale y down where its variance exceeds that of x (use_x_var)
    identity_at_zero: add x; with ``tanh``, also divide by max(1, max |y|), image by image (id_at_zero)

    Raises ValueError for a negative variance.
    """

    tanh: bool = True
    vanish_at_zero: bool = False
    vanish_at_one: bool = False
    vanish_after_half: bool = False
    factor: float = 1.0
    max_variance: float = 0.0
    min_variance: float = 0.0
    cap_by_input_variance: bool = False
    identity_at_zero: bool = False

    def __post_init__(self) -> None:
        for name in ("max_variance", "min_variance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def __call__(self, h: Dual, x: Tensor, t: Dual) -> Dual:
        """y for the last layer's ``h`` [B, ...], the data ``x`` [B, ...] and times ``t`` [B]."""
        h = self._bend(h, Dual(*(None if part is None else _column(part, x) for part in t)))  # type: ignore[arg-type]
        if self.tanh:
            h = tanh(h)
        if self.factor != 1:
            h = multiply(h, Dual(x.new_tensor(self.factor)))
        h = self._bound_variance(h, x)
        if self.identity_at_zero:
            h = Dual(x + h.value, h.tangent)
            h = _divide_by_maximum(h) if self.tanh else h
        return h

    def _bend(self, h: Dual, t: Dual) -> Dual:
        if self.vanish_at_zero:
            h = multiply(h, t)
        if self.vanish_at_one:
            h = multiply(h, Dual(1 - t.value, None if t.tangent is None else -t.tangent))
        if self.vanish_after_half:
            factor = (t.value / 2 - t.value.square()).clamp(min=0)
            slope = None if t.tangent is None else (0.5 - 2 * t.value) * t.tangent * (factor > 0)
            h = multiply(h, Dual(factor, slope))
        return h

    def _bound_variance(self, h: Dual, x: Tensor) -> Dual:
        if self.max_variance > 0:
            maximum = x.new_tensor(self.max_variance)
            h = _scale_variance(h, target=maximum, low=maximum, high=maximum.new_tensor(math.inf))
            if self.min_variance > 0:
                minimum = x.new_tensor(self.min_variance)
                h = _scale_variance(h, target=minimum, low=minimum.new_tensor(0.001), high=minimum)
        elif self.cap_by_input_variance:
            cap = x.var(_dims(x), correction=0, keepdim=True)
            h = _scale_variance(h, target=cap, low=cap, high=torch.full_like(cap, math.inf))
        return h


def _scale_variance(h: Dual, target: Tensor, low: Tensor, high: Tensor) -> Dual:
    """h sqrt(target / v), where v is the variance of its entries, image by image, held between ``low`` and ``high``."""
    variance, mean = torch.var_mean(h.value, _dims(h.value), correction=0, keepdim=True)
    held = variance.clamp(min=low).clamp(max=high)
    factor = (target / held).sqrt()
    if h.tangent is None:
        return Dual(h.value * factor)
    rate = 2 * ((h.value - mean) * h.tangent).mean(_dims(h.value), keepdim=True)
    return multiply(h, Dual(factor, -factor / (2 * held) * torch.where(held == variance, rate, 0)))


def _divide_by_maximum(h: Dual) -> Dual:
    """h / max(1, max |h|), image by image."""
    magnitudes = h.value.abs().flatten(1)
    largest, where = magnitudes.max(1, keepdim=True)
    factor = 1 / largest.clamp(min=1)
    if h.tangent is None:
        return Dual(h.value * _column(factor, h.value))
    rate = (h.value.sign() * h.tangent).flatten(1).gather(1, where) * (largest > 1)
    return multiply(h, Dual(_column(factor, h.value), _column(-factor.square() * rate, h.value)))


def _column(per_image: Tensor, like: Tensor) -> Tensor:
    return per_image.view(-1, *[1] * (like.dim() - 1))


def _dims(h: Tensor) -> tuple[int, ...]:
    return tuple(range(1, h.dim()))


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


class EncoderMLP(nn.Module):
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

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x [B, D], gamma [B] and, with ``num_labels``, labels [B] -> y [B, D]."""
        return self._pass(x, Dual(gamma), labels).value

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and dy/dgamma in one pass; both can be differentiated."""
        y, dy = self._pass(x, Dual(gamma, torch.ones_like(gamma)), labels)
        return y, torch.zeros_like(y) if dy is None else dy

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        require_batch("x", x, gamma.value, self.input_shape)
        with torch.autocast(x.device.type, enabled=False):
            h = concat([Dual(x), self.time_embedding(gamma, labels)])
            for layer in self.hidden:
                h = swish(affine(layer, h))  # type: ignore[arg-type]
            return self.output(affine(self.out, h), x, self.time_embedding.time(gamma))
