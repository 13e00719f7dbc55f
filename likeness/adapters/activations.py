"""What the layers of a model answer while it runs, as a vector for each sample or position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from likeness.numerics import at_least_float32

Pooling = Literal["mean", "flatten", "cls", "last", "positions"]
POOLINGS = ("mean", "flatten", "cls", "last", "positions")
_WRAPPERS = ("_orig_mod", "module")  # torch.compile's, and those of data parallelism


class LayerError(ValueError):
    """A layer that does not exist, did not run, or answers what is no representation; the message names it."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers."""
    while type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel"):
        model = next(getattr(model, name) for name in _WRAPPERS if name in dict(model.named_children()))
    return model


def matching_layers(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """The names of submodules that match, in the order of the model; a pattern is a name or has ``*``, ``?``, ``[]``.

    A ``*`` matches dots too, as in ``blocks.*.mlp``. Raises LayerError for a pattern that matches nothing.

    Example:
        >>> from torch import nn
        >>> matching_layers(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4)), ["[02]"])
        ['0', '2']
    """
    known = [name for name, _ in model.named_modules() if name]
    found: set[str] = set()
    for pattern in patterns:
        matches = {name for name in known if fnmatchcase(name, pattern)}
        if not matches:
            near = get_close_matches(pattern, known, n=5, cutoff=0.4) or known[:5]
            raise LayerError(f"{type(model).__name__} has no layer {pattern!r}: did you mean {', '.join(near)}?")
        found |= matches
    return [name for name in known if name in found]


class Activations:
    """The outputs of named layers while a model runs, pooled when they come, so that later changes do not reach them.

    A context manager: hooks are there inside alone, and are gone after an error too. Of a layer that runs several times
    in one pass the last output counts; of a tuple its first entry, of a Hugging Face output its last hidden state.

    Args:
        model: whose submodules are named.
        layers: their names; see :func:`matching_layers` for patterns.
        pooling: how an output becomes a vector for each sample; see :func:`pooled`. A function of one's own takes an
            output to [N, d].

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(5))
        >>> with Activations(model, ["0", "1"]) as activations:
        ...     _ = model(torch.randn(2, 1, 8, 8))
        >>> {name: list(rows.shape) for name, rows in activations.take().items()}
        {'0': [2, 4], '1': [2, 4]}
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[str], pooling: Pooling | Callable[[Tensor], Tensor] = "mean"
    ) -> None:
        if not callable(pooling) and pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)} or a function, got {pooling!r}")
        self.model, self.layers, self.pooling = unwrapped(model), tuple(layers), pooling
        self.mask: Tensor | None = None  # [N, T] of the batch that runs: which tokens count
        self._rows: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Self:
        for name in self.layers:
            hook = self._hook(name)
            self._hooks.append(self.model.get_submodule(name).register_forward_hook(hook))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def take(self) -> dict[str, Tensor]:
        """What was collected since the last time, by layer. Raises LayerError naming a layer that did not run."""
        missing = [name for name in self.layers if name not in self._rows]
        if missing:
            raise LayerError(f"layer {missing[0]!r} of {type(self.model).__name__} did not run")
        rows, self._rows = {name: self._rows[name] for name in self.layers}, {}
        return rows

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def collect(module: nn.Module, inputs: Any, output: Any) -> None:
            self._rows[name] = pooled(output, self.pooling, name, self.mask)

        return collect


def pooled(
    output: Any, pooling: Pooling | Callable[[Tensor], Tensor] = "mean", name: str = "", mask: Tensor | None = None
) -> Tensor:
    """A vector for each sample, [N, d], of a layer's output; a copy, without gradient.

    Vectors [N, d] stay. Of sequences [N, T, d]: ``mean`` over the tokens, the first (``cls``) or the last one
    (``last``), all side by side (``flatten``), or each as a row of its own (``positions``, [N T, d]); tokens that
    ``mask`` [N, T] leaves out do not count. Of feature maps [N, C, ...] with two spatial dimensions or more: ``mean``
    over positions, ``flatten``, or ``positions``. Raises LayerError for another output or pooling.
    """
    value = representation(output)
    if value is None or value.ndim < 2 or not value.is_floating_point():
        found = list(value.shape) if value is not None else type(output).__name__
        raise LayerError(f"layer {name!r} answers {found}, which is no vector, sequence or feature map a sample")
    value = value.detach()
    if callable(pooling):
        return _copy(pooling(value), value)
    if value.ndim == 2:
        return value.clone()
    if pooling == "flatten":
        return value.flatten(1).clone()
    if value.ndim == 3:
        return _copy(_of_sequence(value, pooling, mask), value)
    if pooling == "mean":
        return value.flatten(2).mean(2)
    if pooling == "positions":
        return value.flatten(2).transpose(1, 2).flatten(0, 1).clone()
    raise LayerError(f"layer {name!r} answers feature maps {list(value.shape)}, which have no token {pooling!r}")


def representation(output: Any) -> Tensor | None:
    """The tensor that an output is about: itself, the last hidden state, the first entry; None where there is none."""
    if isinstance(output, Tensor):
        return output
    for name in ("last_hidden_state", "logits", "value"):
        if isinstance(getattr(output, name, None), Tensor):
            return getattr(output, name)  # type: ignore[no-any-return]
    if isinstance(output, Mapping):
        output = list(output.values())
    return representation(output[0]) if isinstance(output, list | tuple) and output else None


def _of_sequence(value: Tensor, pooling: str, mask: Tensor | None) -> Tensor:
    """[N, d], or with ``positions`` [n, d], of [N, T, d]; the mask is one of other lengths where a layer changes T."""
    mask = None if mask is None or mask.shape != value.shape[:2] else mask.to(value.device, torch.bool)
    if pooling == "cls":
        return value[:, 0]
    if pooling == "positions":
        return value.flatten(0, 1) if mask is None else value[mask]
    if pooling == "last":
        if mask is None:
            return value[:, -1]
        last = value.shape[1] - 1 - mask.flip(1).int().argmax(1)
        return value[torch.arange(len(value), device=value.device), last]
    if mask is None:
        return value.mean(1)
    wide = at_least_float32(value)
    weights = mask.unsqueeze(-1).to(wide.dtype)
    return ((wide * weights).sum(1) / weights.sum(1)).to(value.dtype)


def _copy(rows: Tensor, source: Tensor) -> Tensor:
    """Rows that share no memory with what they were taken from."""
    return rows.clone() if rows.untyped_storage().data_ptr() == source.untyped_storage().data_ptr() else rows
