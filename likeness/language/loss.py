"""The loss of next-token prediction, and what is said of each token, without ever holding the logits of all positions.

At N = 8,192 positions and V = 49,152 labels one copy of the logits takes 1.6 GB, and a loss made of them holds several.
Here a block of rows at a time goes from logits to probabilities to gradients, in one buffer. Products are in float32
under autocast too: logits in bfloat16 are wrong by up to 0.2, though TF32 is used where a process allows it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from likeness.numerics import at_least_float32

IGNORED = -1  # the target of a position at which nothing is predicted
_ROWS = 128  # of a block at least: fewer make products slow
_ELEMENTS = {"cpu": 2**20, "cuda": 2**25}  # of its logits beyond that: more leave the cache of a CPU


class TokenScores(NamedTuple):
    """What a model says of the next token at N positions."""

    nll: Tensor  # [N] -log p(y | x) in nats; 0 where nothing is predicted
    correct: Tensor  # [N] bool, whether y is the likeliest token; False where nothing is predicted


def next_token_loss(
    f: Tensor, g: Tensor, targets: Tensor, bias: Tensor | None = None, rows: int | None = None
) -> Tensor:
    """Mean of -log softmax(f g^T + bias)[y] over the targets [N] that are not -1, in nats; NaN of none.

    f: [N, M], g: [V, M], bias: [V]; of P models at once each has a first dimension P, and so has the answer. ``rows``
    positions are worked on at a time; by default as many as fit a block of fixed size. Gradients are formed in the
    forward pass, so that the backward pass costs nothing.

    Example:
        >>> import torch
        >>> f, g = torch.zeros(3, 2), torch.zeros(8, 2)
        >>> round(float(next_token_loss(f, g, torch.tensor([5, -1, 0])).exp()), 4)
        8.0
    """
    if torch.is_grad_enabled():
        loss: Tensor = _NextTokenLoss.apply(f, g, bias, targets, rows)
        return loss
    scores = token_scores(f, g, targets, bias, rows)
    return scores.nll.sum(-1) / (targets != IGNORED).sum(-1)


@torch.no_grad()
def token_scores(
    f: Tensor, g: Tensor, targets: Tensor, bias: Tensor | None = None, rows: int | None = None
) -> TokenScores:
    """Negative log-likelihood and whether the likeliest token is right, position by position; as above."""
    f, g = at_least_float32(f), at_least_float32(g)
    nll, correct = f.new_zeros(f.shape[:-1]), torch.zeros_like(targets, dtype=torch.bool)
    with torch.autocast(f.device.type, enabled=False):
        for block, logits in _blocks(f, g, bias, rows):
            y = targets[..., block]
            correct[..., block] = logits.argmax(-1) == y
            logits -= logits.amax(-1, keepdim=True)
            of_target = logits.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
            nll[..., block] = (logits.exp_().sum(-1).log() - of_target).where(y != IGNORED, 0)
    return TokenScores(nll, correct)


class _NextTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, f: Tensor, g: Tensor, bias: Tensor | None, targets: Tensor, rows: int | None) -> Tensor:
        ctx.save_for_backward(f, g, bias, targets)
        ctx.rows = rows
        loss, ctx.gradients = _loss_and_gradients(f, g, bias, targets, rows, ctx.needs_input_grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients are handed on, not copied; a second pass over a graph that was kept forms them again."""
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            f, g, bias, targets = ctx.saved_tensors
            _, gradients = _loss_and_gradients(f, g, bias, targets, ctx.rows, ctx.needs_input_grad)
        return *(None if gradient is None else _times(gradient, scale) for gradient in gradients), None, None


def _times(gradient: Tensor, scale: Tensor) -> Tensor:
    """Each model's gradient times the number that is its own, in its place."""
    return gradient.mul_(scale.view(*scale.shape, *(1,) * (gradient.ndim - scale.ndim)))


def _loss_and_gradients(
    f: Tensor, g: Tensor, bias: Tensor | None, targets: Tensor, rows: int | None, wanted: Sequence[bool]
) -> tuple[Tensor, list[Tensor | None]]:
    """The losses, and the gradients of their sum by f, g and bias as far as they are wanted, in their dtypes.

    d loss / d logits = (softmax - onehot(y)) / n at the n positions that count, and 0 at the others.
    """
    given = (f, g, bias)
    f, g = at_least_float32(f), at_least_float32(g)
    counts = targets != IGNORED
    weights = counts.to(f.dtype) / counts.sum(-1, keepdim=True)
    nll = f.new_empty(f.shape[:-1])
    df = torch.empty_like(f) if wanted[0] else None
    dg = torch.zeros_like(g) if wanted[1] else None
    db = g.new_zeros(g.shape[:-1]) if wanted[2] else None
    add_product = torch.Tensor.addmm_ if g.ndim == 2 else torch.Tensor.baddbmm_
    with torch.autocast(f.device.type, enabled=False):
        for block, logits in _blocks(f, g, bias, rows):
            y, weight = targets[..., block].clamp(min=0).unsqueeze(-1), weights[..., block].unsqueeze(-1)
            logits -= logits.amax(-1, keepdim=True)
            of_target = logits.gather(-1, y)
            total = logits.exp_().sum(-1, keepdim=True)
            nll[..., block] = (total.log() - of_target).squeeze(-1)
            d_logits = logits.mul_(weight / total).scatter_add_(-1, y, -weight)
            if df is not None:
                df[..., block, :] = d_logits @ g
            if dg is not None:
                add_product(dg, d_logits.mT, f[..., block, :])
            if db is not None:
                db += d_logits.sum(-2)
    gradients = [
        None if value is None or of is None else value.to(of.dtype)
        for value, of in zip((df, dg, db), given, strict=True)
    ]
    return nll.where(counts, 0).sum(-1) / counts.sum(-1), gradients


def _blocks(f: Tensor, g: Tensor, bias: Tensor | None, rows: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Consecutive positions and their logits [..., n, V], in a buffer that each block overwrites."""
    positions, labels = f.shape[-2], g.shape[:-1]
    rows = rows or max(_ROWS, _ELEMENTS.get(f.device.type, 2**25) // labels.numel())
    rows = max(1, min(positions, rows))
    buffer = f.new_empty(rows * labels.numel())
    for start in range(0, positions, rows):
        block = slice(start, min(start + rows, positions))
        shape = (*labels[:-1], block.stop - start, labels[-1])
        logits = torch.matmul(f[..., block, :], g.mT, out=buffer[: math.prod(shape)].view(shape))
        yield block, logits if bias is None else logits.add_(bias.unsqueeze(-2))
