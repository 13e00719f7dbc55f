"""Layers of P siblings at once: parameters are stacked [P, ...], and so are inputs and outputs.

What each sibling draws at random comes from a stream of its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.decoder_blocks import WeightedValues


class MemberStreams:
    """Stands in for torch's global generator, once for each member.

    A model trained alone seeds the global generator at the start of a step and its dropout draws from there.
    Siblings share one process: inside ``with streams.member(i, device)`` the global generator of ``device`` is
    member i's, and what is drawn there is what member i alone would draw. Until ``reseed`` is called the global
    generator is left alone.
    """

    def __init__(self) -> None:
        self._seeds: list[int] | None = None
        self._states: dict[tuple[int, torch.device], Tensor] = {}

    def reseed(self, seeds: Sequence[int]) -> None:
        """Start stream i from ``seeds[i]``, as ``torch.manual_seed`` does."""
        self._seeds = list(seeds)
        self._states.clear()

    @contextmanager
    def member(self, index: int, device: torch.device) -> Iterator[None]:
        """Draw from member ``index``'s stream on ``device`` inside the block."""
        if self._seeds is None:
            yield
            return
        generator = _global_generator(device)
        outer = generator.get_state()
        if (index, device) in self._states:
            generator.set_state(self._states[index, device])
        else:
            generator.manual_seed(self._seeds[index])
        try:
            yield
        finally:
            self._states[index, device] = generator.get_state()
            generator.set_state(outer)


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def stack_parameter(members: Sequence[nn.Module], name: str) -> nn.Parameter:
    """The members' parameters of this name as one, [P, ...]."""
    return nn.Parameter(torch.stack([member.get_parameter(name).detach() for member in members]))


class StackedLinear(nn.Module):
    """P linear layers as one batched product: [B, in] or [P, ..., in] -> [P, ..., out]."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight = stack_parameter(layers, "weight")
        self.bias = None if layers[0].bias is None else stack_parameter(layers, "bias")

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer p to x[p], or to x where it has no member dimension."""
        if x.dim() == 2:
            x = x.expand(len(self.weight), -1, -1)
        rows: Tensor = _BatchedLinear.apply(x.flatten(1, -2), self.weight, self.bias)
        return rows.view(*x.shape[:-1], -1)


class _BatchedLinear(torch.autograd.Function):
    """x W^T + b for each p, with the products that ``nn.Linear`` makes for one.

    Autograd's own gradient of ``bmm`` is the transpose of the product below. It rounds otherwise, and Adam turns that
    into a drift along the directions that leave p(y | x) as it is, where a gradient is nothing but rounding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return _products(x, weight.mT)
        if _is_tiny(x, weight.mT):
            return torch.stack([torch.addmm(*parts) for parts in zip(bias, x, weight.mT, strict=True)])
        return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dy, x = dy.to(weight.dtype), x.to(weight.dtype)  # autocast may have made them smaller
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _products(dy, weight) if wants_x else None,
            _products(dy.mT, x) if wants_weight else None,
            dy.sum(1) if wants_bias else None,
        )


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a[p] @ b[p] for each p."""
    if _is_tiny(a, b):
        return torch.stack([left @ right for left, right in zip(a, b, strict=True)])
    return torch.bmm(a, b)


def _is_tiny(a: Tensor, b: Tensor) -> bool:
    # For fewer multiplications than this torch.bmm has a kernel of its own on the CPU, which rounds otherwise than mm.
    return a.device.type == "cpu" and a.shape[1] * a.shape[2] * b.shape[2] < 400


class MemberDropout(nn.Module):
    """Dropout on [P, ...] whose mask p is the one that member p alone would draw."""

    def __init__(self, p: float, num_members: int, streams: MemberStreams) -> None:
        super().__init__()
        self.p = p
        self.num_members = num_members
        self.streams = streams

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the members' masks while training."""
        if not self.training:
            return x
        ones = torch.ones_like(x[0])
        masks = []
        for i in range(self.num_members):
            with self.streams.member(i, x.device):
                masks.append(F.dropout(ones, self.p))
        return x * torch.stack(masks)


class StackedEmbedding(nn.Module):
    """P tables of vectors as one, read at once: ids [P, B, T], or fewer dimensions for all, -> [P, ..., M]."""

    def __init__(self, tables: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight = stack_parameter(tables, "weight")

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of table p, at ids[p] or at ids that all share."""
        count, size = self.weight.shape[:2]
        own = ids if ids.ndim == 3 else ids.expand(count, *ids.shape)
        first = size * torch.arange(count, device=ids.device).view(-1, *(1,) * (own.ndim - 1))
        return F.embedding(own + first, self.weight.flatten(0, 1))


class StackedNorm(nn.Module):
    """P LayerNorms or RMSNorms, each with scales of its own: [P, ..., M] -> [P, ..., M]."""

    def __init__(self, norms: Sequence[Any]) -> None:
        super().__init__()
        self.rms, self.eps = isinstance(norms[0], nn.RMSNorm), norms[0].eps
        self.weight = stack_parameter(norms, "weight")
        self.bias = stack_parameter(norms, "bias") if getattr(norms[0], "bias", None) is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the last dimension, then scale as member p does."""
        one = (len(x), *(1,) * (x.ndim - 2), -1)
        normalise = F.rms_norm if self.rms else F.layer_norm
        unit = normalise(x, x.shape[-1:], eps=self.eps)
        if self.bias is None:
            return unit * self.weight.view(one)
        return torch.addcmul(self.bias.view(one), unit, self.weight.view(one))


class MemberWeightedValues(nn.Module):
    """Attention's weighted values of P siblings with dropout, each from its own stream."""

    def __init__(self, dropout: float, streams: MemberStreams) -> None:
        super().__init__()
        self.of_one = WeightedValues(dropout)
        self.streams = streams

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """As ``WeightedValues``, of q, k and v [P, B, H, T, d] and masks that are shared or [P, B, 1, T, T]."""
        answers = []
        for i, heads in enumerate(zip(q, k, v, strict=True)):
            with self.streams.member(i, q.device):
                answers.append(self.of_one(*heads, mask[i] if mask is not None and mask.ndim == 5 else mask))
        return torch.stack(answers)
