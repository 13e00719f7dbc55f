"""What the inner encoder's last layer goes through: bounds on y and, if asked, fixed values at an end of time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.networks.dual import Dual, multiply, tanh


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
