"""How far apart the predictive distributions of several softmax models are, in nats and in float64."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from likeness.measures.moments import as_float64

Divergence = Callable[[Tensor, Tensor], Tensor]
"""From log-probabilities [..., K] and [..., K] (broadcast) to one value per sample [...]."""

_MAX_ELEMENTS = 2**20  # of a temporary: 8 MB
_NEARLY_EQUAL = 1e-3  # KL over cross-entropy below which their difference loses digits that count


def logits(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Tensor:
    """f(x) . g(y) of P models in float64, [P, N, K], from f_i [N, M_i] and g_i [K, M_i]; M may differ."""
    pairs = zip(embeddings, unembeddings, strict=True)
    return torch.stack([as_float64(f) @ as_float64(g).T for f, g in pairs])


def log_probabilities(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Tensor:
    """log p(y | x) of P models in float64, [P, N, K], from f_i [N, M_i] and g_i [K, M_i]."""
    return logits(embeddings, unembeddings).log_softmax(-1)


def nll(log_p: Tensor, y: Tensor) -> Tensor:
    """-log p(y | x) in nats per sample [..., N], from log-probabilities [..., N, K] and labels [N]."""
    return -log_p.gather(-1, y.expand(log_p.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def is_correct(log_p: Tensor, y: Tensor) -> Tensor:
    """Whether the likeliest label is y, [..., N], from log-probabilities [..., N, K] and labels [N]."""
    return log_p.argmax(-1) == y


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q) in nats per sample [...], from [..., K] and [..., K].

    Summed as p (r - 1 - log r) with r = q / p: no term is negative, and errors in the normalisation of nearly
    equal p and q enter at second order, where the textbook sum of p log(p / q) loses every digit.
    """
    p, q, log_ratio = log_p.exp(), log_q.exp(), log_q - log_p
    difference = torch.where(log_ratio < 1, p * torch.expm1(log_ratio), q - p)
    return (difference - p * log_ratio).sum(-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats per sample [...], at most log 2, from [..., K] and [..., K]."""
    log_middle = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return 0.5 * (kl(log_p, log_middle) + kl(log_q, log_middle))


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Total variation distance per sample [...], between 0 and 1, from [..., K] and [..., K]."""
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def pairwise(divergence: Divergence, log_p: Tensor) -> Tensor:
    """divergence(p_i, p_j) per sample for all ordered pairs, [P, P, N], from log-probabilities [P, N, K]."""
    parts = [divergence(part[:, None], part[None]) for part in _over_samples(log_p)]
    return torch.cat(parts, dim=-1)


def pairwise_sum(divergence: Divergence, log_p: Tensor) -> Tensor:
    """divergence(p_i, p_j) summed over samples for all ordered pairs, [P, P], from log_p [P, N, K]."""
    total = log_p.new_zeros(len(log_p), len(log_p))
    for part in _over_samples(log_p):
        total += divergence(part[:, None], part[None]).sum(-1)
    return total


def agreement_sum(log_p: Tensor) -> Tensor:
    """Samples with the same likeliest label for all pairs, [P, P], from log-probabilities [P, N, K]."""
    likeliest = log_p.argmax(-1)
    return (likeliest[:, None] == likeliest).sum(-1)


def kl_sum(log_p: Tensor) -> Tensor:
    """KL(p_i || p_j) summed over samples for all ordered pairs, [P, P], from log-probabilities [P, N, K].

    One matrix product gives every cross-entropy. Their differences are exact enough, except between nearly
    equal models, which are summed term by term as in :func:`kl`.
    """
    total = log_p.new_zeros(len(log_p), len(log_p))
    for part in _over_samples(log_p):
        flat = part.flatten(1)
        cross_entropy = -flat.exp() @ flat.T
        sums = cross_entropy - cross_entropy.diagonal()[:, None]
        close = (sums < _NEARLY_EQUAL * cross_entropy).fill_diagonal_(False)
        for i, j in close.nonzero().tolist():
            sums[i, j] = kl(part[i], part[j]).sum()
        total += sums
    return total


def _over_samples(log_p: Tensor) -> Iterator[Tensor]:
    """Slices of [P, N, K] along N, small enough for temporaries of all P x P pairs to stay bounded."""
    models, samples, labels = log_p.shape
    size = max(1, _MAX_ELEMENTS // (models * models * labels))
    return (log_p[:, start : start + size] for start in range(0, samples, size))
