"""How far apart the predictive distributions of several softmax models are, in nats and in float64.

What P models predict on the same inputs, and how far apart the predictions of all pairs are, in one pass.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import as_float64
from likeness.similarity.cloud import blocks, padded

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


_LEAST_ROWS = 64  # of the logits [P, n, K] that are held at once
_NEARLY_EQUAL_SUMS = 1e-5  # nats a sample and relative: under it a difference of sums has lost digits that count
_LOG_2 = 0.6931471805599453


class Predictions(NamedTuple):
    """Of P models on the same N inputs, K labels; divergences are means over the inputs, in nats."""

    log_partitions: Tensor  # [P, N] Z(x)
    likeliest: Tensor  # [P, N] labels
    kl: Tensor  # [P, P] KL(p_i || p_j)
    js: Tensor  # [P, P]
    total_variation: Tensor  # [P, P]
    agreement: Tensor  # [P, P] fraction of the inputs with the same likeliest label


class _Block(NamedTuple):
    """Of a block of n inputs with logits largest(x) + d(x, y); the last three are sums over them."""

    largest: Tensor  # [P, n]
    likeliest: Tensor  # [P, n] its label
    total: Tensor  # [P, n] sum over labels of exp d
    products: Tensor  # [P, P] sum over labels of p_i d_j
    mixtures: Tensor  # [P (P - 1) / 2] what :func:`_mixtures` says
    variations: Tensor  # [P (P - 1) / 2] L1 distances


def predictions(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Predictions:
    """Of models with f_i [N, M_i] and g_i [K, M_i] in float64, in blocks of inputs.

    KL and Jensen-Shannon divergence are differences of entropies, except between nearly equal models, where that
    cancels: these are summed term by term.
    """
    f, g = padded(embeddings), padded(unembeddings)
    models, samples, _ = f.shape
    fields = list(zip(*_blocks(f, g), strict=True))
    largest, likeliest, total = (torch.cat(values, dim=1) for values in fields[:3])
    products, mixtures, variations = (torch.stack(values).sum(0) / samples for values in fields[3:])
    log_total = total.log()
    entropies = log_total.mean(1) - products  # cross-entropies of p_i and p_j
    own = entropies.diagonal()
    divergence, js = entropies - own[:, None], _symmetric(_LOG_2 - 0.5 * mixtures, models) - 0.5 * (own[:, None] + own)
    for i, j in _nearly_equal(torch.minimum(divergence, js), own):
        divergence[i, j], js[i, j] = _term_by_term(f[[i, j]], g[[i, j]]) / samples
    return Predictions(
        log_partitions=largest + log_total,
        likeliest=likeliest,
        kl=divergence.fill_diagonal_(0),
        js=js.fill_diagonal_(0),
        total_variation=0.5 * _symmetric(variations, models),
        agreement=torch.stack([(likeliest == labels).double().mean(1) for labels in likeliest]),
    )


def lowest_log_probability(
    embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], log_partitions: Tensor
) -> Tensor:
    """The smallest one of P models on all inputs and labels, [P], from f_i [N, M_i], g_i [K, M_i] and Z [P, N]."""
    f, g = padded(embeddings), padded(unembeddings)
    lowest = [(g @ f[:, rows].mT).amin(1) - log_partitions[:, rows] for rows in _rows(f, g)]
    return torch.cat(lowest, dim=1).amin(1)


def total_variation_sum(log_p: Tensor) -> Tensor:
    """Total variation distance summed over samples for all pairs, [P, P], from log-probabilities [P, N, K]."""
    return 0.5 * _symmetric(torch.pdist(log_p.exp().flatten(1), p=1), len(log_p))


def _rows(f: Tensor, g: Tensor) -> Iterator[slice]:
    """Blocks of the inputs of f [P, N, M] whose logits with g [P, K, M] are of a good size."""
    return blocks(f.shape[1], len(f) * g.shape[1], f.device, _LEAST_ROWS)


def _term_by_term(f: Tensor, g: Tensor) -> Tensor:
    """KL and Jensen-Shannon divergence of two models, f [2, N, M] and g [2, K, M], summed over inputs; [2]."""
    total = f.new_zeros(2)
    for rows in _rows(f, g):
        p, q = (f[:, rows] @ g.mT).log_softmax(-1)
        total += torch.stack([kl(p, q).sum(), jensen_shannon(p, q).sum()])
    return total


def _blocks(f: Tensor, g: Tensor) -> Iterator[_Block]:
    """Of all inputs, with shared temporaries: fresh memory for each block would take as long as the arithmetic."""
    memory = f.new_empty(0)
    for rows in _rows(f, g):
        size = g.shape[1] * (rows.stop - rows.start)
        memory = memory if memory.shape[-1] == size else f.new_empty(3, len(f), size)
        yield _summarised(f[:, rows].mT, g, *memory)


def _summarised(f: Tensor, g: Tensor, d: Tensor, p: Tensor, sums: Tensor) -> _Block:
    """Of f [P, M, n] and g [P, K, M]; the rest is memory [P, K n], so that sums over labels are sums of rows."""
    logits, probabilities = (x.view(*g.shape[:2], -1) for x in (d, p))
    largest, likeliest = torch.matmul(g, f, out=logits).max(1)
    total = torch.exp(logits.sub_(largest[:, None]), out=probabilities).sum(1)
    probabilities.mul_(total.reciprocal()[:, None])
    products, variations = p @ d.T, torch.pdist(p, p=1)
    return _Block(largest, likeliest, total, products, _mixtures(p, sums, d), variations)


def _mixtures(p: Tensor, sums: Tensor, logs: Tensor) -> Tensor:
    """Sums of s log s for s = p_i + p_j, i < j, from probabilities [P, ...]; [P (P - 1) / 2].

    Entropies of mixtures with one logarithm an element: -s/2 log(s/2) adds up to log 2 a sample less s/2 log s. Raises
    probabilities that underflow to the least positive number; the other arguments are memory of the shape of p.
    """
    p.clamp_(min=torch.finfo(p.dtype).tiny)
    parts = [p.new_empty(0)]
    for i in range(1, len(p)):
        s = torch.add(p[i:], p[i - 1], out=sums[i:])
        parts.append(torch.log(s, out=logs[i:]).mul_(s).sum(1))
    return torch.cat(parts)


def _nearly_equal(divergence: Tensor, entropies: Tensor) -> list[list[int]]:
    """Pairs whose divergence a sample is small beside what it is a difference of."""
    scale = torch.maximum(entropies[:, None], entropies) + _LOG_2
    close: list[list[int]] = (divergence < _NEARLY_EQUAL_SUMS * scale).fill_diagonal_(False).nonzero().tolist()
    return close


def _symmetric(values: Tensor, size: int) -> Tensor:
    """[P, P] from its entries right of the diagonal, row by row."""
    matrix = values.new_zeros(size, size)
    i, j = torch.triu_indices(size, size, offset=1, device=values.device)
    matrix[i, j] = values
    return matrix + matrix.T
