"""Texts that a language model writes, as token ids."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.seeding import generator


@torch.no_grad()
def sample_tokens(
    next_logits: Callable[[Tensor], Tensor],
    prompt: Tensor,
    length: int,
    max_context: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Tensor:
    """The prompts [B, T] with ``length`` more tokens each, [B, T + length].

    Each token is drawn from softmax(logits / temperature) of the last ``max_context`` tokens, among the ``top_k``
    likeliest where that is given, and is the likeliest one at temperature 0. What is drawn is a function of ``seed``.

    Args:
        next_logits: from contexts [B, T] to the logits [B, V] of the token that follows.
        prompt: ids [B, T], T >= 1.
        length: tokens to add.
        max_context: the longest context.
        temperature: 0 or more.
        top_k: how many tokens may be drawn.
        seed: of the draws.

    Raises ValueError for values that cannot be. Ties at rank k are all kept.

    Example:
        >>> import torch
        >>> successor = lambda ids: torch.nn.functional.one_hot((ids[:, -1] + 1) % 5, 5).float()
        >>> sample_tokens(successor, torch.tensor([[3]]), 4, max_context=8, temperature=0)
        tensor([[3, 4, 0, 1, 2]])
    """
    require_positive(length=length, max_context=max_context, top_k=top_k)
    if temperature < 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        raise ValueError(f"a prompt holds at least one token, [B, T], got shape {list(prompt.shape)}")
    draws = generator(seed, device=prompt.device)
    ids = prompt
    for _ in range(length):
        logits = next_logits(ids[:, -max_context:])
        ids = torch.cat([ids, _drawn(logits, temperature, top_k, draws)], dim=1)
    return ids


def _drawn(logits: Tensor, temperature: float, top_k: int | None, draws: torch.Generator) -> Tensor:
    """One token for each row of logits [B, V], [B, 1]."""
    if temperature == 0:
        return logits.argmax(1, keepdim=True)
    if top_k is not None and top_k < logits.shape[1]:
        lowest = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    return torch.multinomial((logits.float() / temperature).softmax(1), 1, generator=draws)
