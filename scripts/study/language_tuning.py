"""Copies of a language model that were pruned, or trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.nn.utils.prune import L1Unstructured

from lightning_modules.optimization import LanguageAdamW
from likeness.adapters.causal_scorers import TokenScorer
from likeness.comparisons.language_layers import TokenLayers
from likeness.language.token_batches import encoded
from likeness.progress import tracked
from likeness.seeding import generator

BLOCKS, STEPS, RATE = 4, 100, 2e-4  # the last blocks, which alone are trained
WINDOWS, LENGTH = 2, 128  # of a step, and their tokens


@torch.no_grad()
def prune(matrices: Iterable[Tensor], share: float) -> None:
    """Set the ``share`` of each matrix that is smallest in magnitude to 0, in place."""
    for matrix in matrices:
        matrix.copy_(L1Unstructured(share).prune(matrix))


def tune(model: TokenScorer, texts: Sequence[str]) -> None:
    """Train the last ``BLOCKS`` blocks on the next tokens of the texts, in place, with AdamW at a constant rate.

    Raises ValueError for texts with fewer windows than the training takes.
    """
    module, trained = model.model, TokenLayers(model).blocks[-BLOCKS:]
    module.requires_grad_(False)
    parameters = [parameter.requires_grad_() for block in trained for parameter in block.parameters()]
    optimizer = LanguageAdamW(parameters, lr=RATE)
    for ids in tracked(list(_batches(model, texts)), "training a copy"):
        optimizer.zero_grad()
        module(input_ids=ids.to(parameters[0].device), labels=ids.to(parameters[0].device)).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    optimizer.zero_grad()
    module.requires_grad_(False)


def _batches(model: TokenScorer, texts: Sequence[str]) -> Iterator[Tensor]:
    """Windows [B, T] of the texts, each behind the separator, one after another; drawn by a seed, each once."""
    ids = torch.tensor(list(chain.from_iterable(encoded(model.tokenizer, texts, model.prefix("separator")))))
    windows, needed = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH), STEPS * WINDOWS
    if len(windows) < needed:
        raise ValueError(f"the texts have {len(windows)} windows of {LENGTH} tokens, and training takes {needed}")
    order = torch.randperm(len(windows), generator=generator(0))
    return iter(windows[order[:needed]].split(WINDOWS))
