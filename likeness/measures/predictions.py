"""What P models predict on the same inputs, and how far apart the predictions of all pairs are, in one pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import blocks
from likeness.measures.distribution import jensen_shannon, kl_sum, logits

_LEAST_ROWS = 64  # of the logits [P, n, K] that are held at once
_NEARLY_EQUAL = 1e-5  # relative: under it a difference of sums has lost digits that count


class Predictions(NamedTuple):
    """Of P models on the same N inputs, K labels; divergences are means over the inputs, in nats."""

    log_partitions: Tensor  # [P, N] Z(x)
    lowest: Tensor  # [P] the smallest log-probability
    likeliest: Tensor  # [P, N] labels
    kl: Tensor  # [P, P] KL(p_i || p_j)
    js: Tensor  # [P, P]
    total_variation: Tensor  # [P, P]
    agreement: Tensor  # [P, P] fraction of the inputs with the same likeliest label


def predictions(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Predictions:
    """Of models with f_i [N, M_i] and g_i [K, M_i], in float64 and blocks of inputs."""
    parts = [_summarised(scores) for scores in _blocks_of_logits(embeddings, unembeddings)]
    log_partitions, lowest, likeliest, *sums = zip(*parts, strict=True)
    means = [torch.stack(values).sum(0) / len(embeddings[0]) for values in sums]
    return Predictions(
        torch.cat(log_partitions, dim=1), torch.stack(lowest).amin(0), torch.cat(likeliest, dim=1), *means
    )


def js_sum(log_p: Tensor) -> Tensor:
    """Jensen-Shannon divergence summed over samples for all pairs, [P, P], from log-probabilities [P, N, K].

    As entropy of the mixture less mean of the entropies: one logarithm an element and pair. Nearly equal models,
    where that cancels, are summed term by term.
    """
    return _js_sum(log_p, log_p.exp())


def total_variation_sum(log_p: Tensor) -> Tensor:
    """Total variation distance summed over samples for all pairs, [P, P], from log-probabilities [P, N, K]."""
    return _total_variation_sum(log_p.exp())


def _js_sum(log_p: Tensor, p: Tensor) -> Tensor:
    entropies = -(p * log_p).sum((1, 2))
    halves = 0.5 * p.flatten(1).clamp(min=torch.finfo(p.dtype).tiny)
    total = p.new_zeros(len(p), len(p))
    for i in range(len(p) - 1):
        mixture = halves[i + 1 :] + halves[i]
        entropy = -(mixture * mixture.log()).sum(1)
        total[i, i + 1 :] = entropy - (entropies[i + 1 :] + entropies[i]) / 2
        for j in (total[i] < _NEARLY_EQUAL * entropies[i]).nonzero().flatten().tolist():
            if j > i:
                total[i, j] = jensen_shannon(log_p[i], log_p[j]).sum()
    return total + total.T


def _total_variation_sum(p: Tensor) -> Tensor:
    return 0.5 * torch.cdist(p.flatten(1), p.flatten(1), p=1)


def _blocks_of_logits(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Iterator[Tensor]:
    """[P, n, K] for consecutive blocks of inputs."""
    width = len(embeddings) * len(unembeddings[0])
    for rows in blocks(len(embeddings[0]), width, embeddings[0].device, _LEAST_ROWS):
        yield logits([f[rows] for f in embeddings], unembeddings)


def _summarised(scores: Tensor) -> Predictions:
    """As :class:`Predictions`, with sums over the inputs in the place of means."""
    log_partitions = scores.logsumexp(-1)
    log_p = scores - log_partitions[..., None]
    likeliest = scores.argmax(-1)
    same = (likeliest[:, None] == likeliest[None]).sum(-1).double()
    p = log_p.exp()
    divergences = kl_sum(log_p), _js_sum(log_p, p), _total_variation_sum(p)
    return Predictions(log_partitions, log_p.amin((1, 2)), likeliest, *divergences, same)
