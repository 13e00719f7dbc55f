"""Refusals of values that cannot be meant: each raises ValueError with the name and the value received."""

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor


def require_positive(owner: str = "", /, **sizes: int | None) -> None:
    """Raise ValueError naming the first of ``sizes`` that is below 1, and whose it is; None is a size left out."""
    for name, value in sizes.items():
        if value is not None and value < 1:
            of = f" of {owner}" if owner else ""
            raise ValueError(f"{name}{of} must be at least 1, got {value}")


def require_shape(name: str, shape: Sequence[int], length: int | None = None) -> None:
    """Raise ValueError unless ``shape`` is a non-empty sequence of positive sizes (of ``length``, where given)."""
    if len(shape) == 0 or any(size < 1 for size in shape) or (length is not None and len(shape) != length):
        wanted = f"{length} positive sizes" if length else "positive sizes"
        raise ValueError(f"{name} must hold {wanted}, got {list(shape)}")


def require_probability(name: str, value: float) -> None:
    """Raise ValueError unless 0 <= value < 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value}")


def require_default(function: Callable[..., Any], why: str, **options: object) -> None:
    """Raise ValueError naming the options of a function that were given where they would say nothing."""
    defaults = signature(function).parameters
    if given := [name for name, value in options.items() if value != defaults[name].default]:
        raise ValueError(f"{', '.join(given)} cannot be given here: {why}")


def require_labels(y: Tensor, num_classes: int, *, wait: bool = True) -> None:
    """Raise ValueError naming a label outside {0 .. K-1}.

    Reading a label makes a GPU's queue run empty, so off the CPU it happens only where ``wait`` allows it; compiled
    code cannot read one.
    """
    if y.numel() == 0 or not (wait or y.device.type == "cpu") or torch.compiler.is_compiling():
        return
    lowest, highest = (int(end) for end in torch.aminmax(y))
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"label {wrong} lies outside 0..{num_classes - 1} (num_classes={num_classes})")


def require_batch(
    name: str, batch: Tensor, gamma: Tensor, shape: Sequence[int | str], each_dimension: bool = False
) -> None:
    """Raise ValueError unless ``batch`` is [B, *shape] and ``gamma`` is [B]; a size given as a name is free.

    Where ``each_dimension`` allows it, gamma may have the shape of the batch.
    """
    sizes = batch.shape[1:]
    if len(sizes) != len(shape) or any(isinstance(b, int) and a != b for a, b in zip(sizes, shape, strict=True)):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape {list(batch.shape)}, the network takes [B, {wanted}]")
    if gamma.shape != batch.shape[:1] and not (each_dimension and gamma.shape == batch.shape):
        raise ValueError(f"gamma has shape {list(gamma.shape)}, not [{len(batch)}] for a batch of {len(batch)}")


def require_one_of(value: str, choices: Sequence[str], what: str) -> None:
    """Raise ValueError unless the value of the option ``what`` is one of its choices."""
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, but it is {value!r}")
