"""What P models predict on the same inputs, and how far apart the predictions of all pairs are, in one pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import blocks
from likeness.measures.distribution import jensen_shannon, kl, logits

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
    """Jensen-Shannon divergence summed over samples for all pairs, [P, P], from log-probabilities [P, N, K]."""
    return _divergence_sums(log_p, log_p.exp())[1]


def total_variation_sum(log_p: Tensor) -> Tensor:
    """Total variation distance summed over samples for all pairs, [P, P], from log-probabilities [P, N, K]."""
    return _divergence_sums(log_p, log_p.exp())[2]


def _divergence_sums(log_p: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """KL, JS and total variation of all pairs, [P, P], summed over samples.

    The first two are differences of entropies: of the cross-entropies, which one matrix product gives, and of the
    mixtures, which cost one logarithm an element. Between nearly equal models, where that cancels, they are summed
    term by term.
    """
    entropy = -(p.flatten(1) @ log_p.flatten(1).T)  # of the first under the second
    own = entropy.diagonal()
    divergence = entropy - own[:, None]
    js = _mixture_entropies(p.flatten(1)) - 0.5 * (own[:, None] + own)
    close = torch.minimum(divergence, js) < _NEARLY_EQUAL * torch.maximum(own[:, None], own)
    for i, j in close.fill_diagonal_(False).nonzero().tolist():
        divergence[i, j], js[i, j] = kl(log_p[i], log_p[j]).sum(), jensen_shannon(log_p[i], log_p[j]).sum()
    variation = 0.5 * _symmetric(torch.pdist(p.flatten(1), p=1), len(p))
    return divergence.fill_diagonal_(0), js.fill_diagonal_(0), variation


def _mixture_entropies(p: Tensor) -> Tensor:
    """Of (p_i + p_j) / 2 for all pairs, [P, P], from probabilities [P, n]."""
    halves = (0.5 * p).clamp_(min=torch.finfo(p.dtype).tiny)
    mixtures = (halves[i + 1 :] + halves[i] for i in range(len(p) - 1))
    return _symmetric(torch.cat([-(m.log() * m).sum(1) for m in mixtures]), len(p))


def _symmetric(values: Tensor, size: int) -> Tensor:
    """[P, P] from its entries right of the diagonal, row by row."""
    matrix = values.new_zeros(size, size)
    i, j = torch.triu_indices(size, size, offset=1, device=values.device)
    matrix[i, j] = values
    return matrix + matrix.T


def _blocks_of_logits(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Iterator[Tensor]:
    """[P, n, K] for consecutive blocks of inputs."""
    width = len(embeddings) * len(unembeddings[0])
    for rows in blocks(len(embeddings[0]), width, embeddings[0].device, _LEAST_ROWS):
        yield logits([f[rows] for f in embeddings], unembeddings)


def _summarised(scores: Tensor) -> Predictions:
    """As :class:`Predictions`, with sums over the inputs in the place of means; overwrites the logits [P, n, K]."""
    largest, likeliest = scores.max(-1)
    log_p = scores.sub_(largest[..., None])
    p = log_p.exp()
    total = p.sum(-1)
    p.div_(total[..., None])
    log_p.sub_(total.log()[..., None])
    same = (likeliest[:, None] == likeliest[None]).sum(-1).double()
    return Predictions(largest + total.log(), log_p.amin((1, 2)), likeliest, *_divergence_sums(log_p, p), same)
