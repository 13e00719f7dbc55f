"""Null models of prediction hubs: what frequency alone, one list for all, or second moments alone would give."""

from __future__ import annotations

import torch
from torch import Tensor

from likeness.hubness.indices import k_occurrence
from likeness.language.context_visit import BLOCK
from likeness.neighbours.exact import nearest_neighbours
from likeness.numerics import average_ranks
from likeness.seeding import generator

_FREQUENCY, _GAUSSIAN, _PERMUTED = 101, 102, 103  # tags of what is drawn


def frequency_counts(frequencies: Tensor, contexts: int, k: int, seed: int = 0) -> Tensor:
    """N [V] where each context draws k different tokens, each in turn with probability in proportion to frequency.

    By Gumbel's trick: the k largest of log frequency + noise. Raises ValueError for fewer than k tokens that occur.
    """
    occurring = (frequencies > 0).nonzero().flatten()
    if len(occurring) < k:
        raise ValueError(f"{len(occurring)} tokens occur, of which no {k} different ones can be drawn")
    logs, counts = frequencies[occurring].double().log().float(), torch.zeros(len(frequencies), dtype=torch.long)
    draws, size = generator(seed, _FREQUENCY), max(1, BLOCK // len(occurring))
    for start in range(0, contexts, size):
        noise = torch.empty(min(size, contexts - start), len(occurring)).exponential_(generator=draws)
        chosen = noise.log_().neg_().add_(logs).topk(k, dim=1, sorted=False).indices
        counts += k_occurrence(occurring[chosen], len(frequencies))
    return counts


def constant_counts(frequencies: Tensor, contexts: int, k: int) -> Tensor:
    """N [V] where each context predicts the k most frequent tokens: the most unequal counts that there can be."""
    first = frequencies.double().sort(descending=True, stable=True).indices[:k]
    counts = torch.zeros(len(frequencies), dtype=torch.long)
    counts[first] = contexts
    return counts


def gaussian_counts(f: Tensor, g: Tensor, k: int, seed: int = 0) -> Tensor:
    """N [V] of as many contexts as f [N, M] has, drawn from the normal distribution of its mean and covariance."""
    return k_occurrence(nearest_neighbours(g, k, metric="dot", queries=gaussian_contexts(f, seed)).ids, len(g)).cpu()


def gaussian_contexts(f: Tensor, seed: int = 0) -> Tensor:
    """[N, M] draws from the normal distribution with the mean and covariance of f [N, M], in its type."""
    wide = f.double()
    values, vectors = torch.linalg.eigh(torch.cov(wide.T, correction=0).reshape(2 * wide.shape[1:]))
    noise = torch.randn(f.shape, dtype=torch.float64, generator=generator(seed, _GAUSSIAN)).to(f.device)
    drawn: Tensor = wide.mean(0) + noise * values.clamp(min=0).sqrt() @ vectors.T
    return drawn.to(f.dtype)


def permutation_p(x: Tensor, y: Tensor, draws: int = 999, seed: int = 0) -> float:
    """How often permuted values have a rank correlation as far from 0: (1 + those that have) / (1 + draws)."""
    a, b = (average_ranks(values) - (len(values) + 1) / 2 for values in (x.cpu(), y.cpu()))
    permutations = generator(seed, _PERMUTED)
    others = torch.stack([a @ b[torch.randperm(len(b), generator=permutations)] for _ in range(draws)])
    as_far = others.abs() >= (a @ b).abs() * (1 - 1e-12)
    return (1 + int(as_far.sum())) / (1 + draws)
