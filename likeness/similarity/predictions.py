"""What softmax models predict on the same inputs, and how far apart their predictions are, in nats and float64.

Divergences of two distributions are functions of log-probabilities: :func:`kl`, :func:`jensen_shannon`,
:func:`total_variation`. :func:`predictions` has their means over inputs for all pairs of P models, in one pass.

Everything starts from centred logits, u(x) = W f(x) with W the unembeddings less their mean over labels. Then

    log p(y | x) = u_y(x) - Z(x) - log K,   Z(x) = log mean_y exp u_y(x),

and Z is as small beside the logits as they are beside 1: nothing is lost, however small they are.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import as_float64, power_of_two
from likeness.similarity.cloud import blocks, padded

_LEAST_ROWS = 64  # of the logits [P, n, K] that are held at once
_NEARLY_EQUAL = 1e-4  # nats a sample and relative: under it a difference of sums has lost digits that count
_FLAT = 0.6  # mean of exp(logit - largest) above which its logarithm is taken of its distance from 1
SERIES = 1e-2  # |log(q / p)| up to which a term of KL is a series
_LOG_2 = math.log(2)


def centred_head(unembeddings: Tensor, weights: Tensor | None = None) -> Tensor:
    """W = g less its mean over the labels, [K, M] in float64: the same probabilities, with nothing in common.

    With weights w [K] of the labels, of sum 1, sqrt(w) (g - sum w g).
    """
    centred = as_float64(unembeddings) - mean_row(unembeddings, weights)
    return centred if weights is None else weights.sqrt()[:, None] * centred


def mean_row(unembeddings: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean of g [K, M] over the labels, [M] in float64, with weights [K] of sum 1 where they are given."""
    scale = as_float64(power_of_two(unembeddings))
    if weights is None:
        scaled = unembeddings / scale.to(unembeddings)
        return scale * (as_float64(scaled) if scaled.device.type == "mps" else scaled).mean(0, dtype=torch.float64)
    return scale * (weights @ (as_float64(unembeddings) / scale))


def logits(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Tensor:
    """Centred logits u(x) of P models in float64, [P, N, K], from f_i [N, M_i] and g_i [K, M_i]; M may differ."""
    pairs = zip(embeddings, unembeddings, strict=True)
    return torch.stack([as_float64(f) @ centred_head(g).T for f, g in pairs])


def log_probabilities(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Tensor:
    """log p(y | x) of P models in float64, [P, N, K], from f_i [N, M_i] and g_i [K, M_i]."""
    return logits(embeddings, unembeddings).log_softmax(-1)


def nll(log_p: Tensor, y: Tensor) -> Tensor:
    """-log p(y | x) in nats per sample [..., N], from log-probabilities [..., N, K] and labels [N]."""
    return -log_p.gather(-1, y.expand(log_p.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def is_correct(scores: Tensor, y: Tensor) -> Tensor:
    """Whether the likeliest label is y, [..., N], from logits or log-probabilities [..., N, K] and labels [N]."""
    return scores.argmax(-1) == y


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(p || q) in nats per sample [...], from [..., K] and [..., K].

    Summed as p (r - 1 - log r) with r = q / p: no term is negative, and errors in the normalisation of nearly
    equal p and q enter at second order, where the textbook sum of p log(p / q) loses every digit.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> print(f"{kl(p.log(), q.log()):.4f}")
        0.1438
    """
    p, q, log_ratio = log_p.exp(), log_q.exp(), log_q - log_p
    terms = torch.where(log_ratio < 1, p * (torch.expm1(log_ratio) - log_ratio), q - p - p * log_ratio)
    terms = torch.where(log_ratio.abs() < SERIES, p * exponential_remainder(log_ratio), terms)
    return torch.where(p > 0, terms, q).sum(-1)


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats per sample [...], at most log 2, from [..., K] and [..., K].

    Example:
        >>> import torch
        >>> p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> print(f"{jensen_shannon(p.log(), q.log()):.4f}")
        0.6931
    """
    middle = torch.maximum(log_p, log_q) + torch.log1p(0.5 * torch.expm1(-_distance(log_p, log_q)))
    return 0.5 * (kl(log_p, middle) + kl(log_q, middle))


def total_variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Total variation distance per sample [...], between 0 and 1, from [..., K] and [..., K].

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> print(f"{total_variation(p.log(), q.log()):.2f}")
        0.25
    """
    return -0.5 * (torch.maximum(log_p, log_q).exp() * torch.expm1(-_distance(log_p, log_q))).sum(-1)


def exponential_remainder(x: Tensor) -> Tensor:
    """e^x - 1 - x for |x| < 1e-2, by its series: the difference would lose every digit."""
    series = x / 5040 + 1 / 720
    for coefficient in (1 / 120, 1 / 24, 1 / 6, 1 / 2):
        series = series * x + coefficient
    return series * x.square()


def _distance(log_p: Tensor, log_q: Tensor) -> Tensor:
    """|log p - log q|; 0 where both probabilities are 0."""
    return (log_p - log_q).abs().where(log_p != log_q, 0.0)


class Predictions(NamedTuple):
    """Of P models on the same N inputs, K labels; divergences are means over the inputs, in nats."""

    log_partitions: Tensor  # [P, N] Z(x), of centred logits and less log K
    likeliest: Tensor  # [P, N] labels
    kl: Tensor  # [P, P] KL(p_i || p_j)
    js: Tensor  # [P, P]
    total_variation: Tensor  # [P, P]
    agreement: Tensor  # [P, P] fraction of the inputs with the same likeliest label


class _Block(NamedTuple):
    """Of a block of n inputs; the last three are sums over them."""

    largest: Tensor  # [P, n] centred logit
    likeliest: Tensor  # [P, n] its label
    log_mean: Tensor  # [P, n] log of the mean over labels of exp d, for logits largest + d
    products: Tensor  # [P, P] sum over labels of p_i d_j
    mixtures: Tensor  # [P (P - 1) / 2] the sums of :func:`_mixtures`
    variations: Tensor  # [P (P - 1) / 2] L1 distances


def predictions(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Predictions:
    """Of models with f_i [N, M_i] and g_i [K, M_i] in float64, in blocks of inputs.

    KL and Jensen-Shannon divergence are differences of entropies, except between nearly equal models, where that
    cancels: these are summed term by term.
    """
    f, g = padded(embeddings), padded([centred_head(x) for x in unembeddings])
    models, samples, _ = f.shape
    fields = list(zip(*_blocks(f, g), strict=True))
    largest, likeliest, log_mean = (torch.cat(values, dim=1) for values in fields[:3])
    products, mixtures, variations = (torch.stack(values).sum(0) / samples for values in fields[3:])
    # Cross-entropies of p_i and p_j, with the entropies on the diagonal.
    entropies = math.log(g.shape[1]) + log_mean.mean(1) - products
    own = entropies.diagonal()
    divergence, js = entropies - own[:, None], _symmetric(_LOG_2 - 0.5 * mixtures, models) - 0.5 * (own[:, None] + own)
    variation = 0.5 * _symmetric(variations, models)
    # The nearly equal pairs anew.
    for i, j in _nearly_equal(torch.minimum(divergence, js), own):
        sums = _term_by_term(f[[i, j]], g[[i, j]]) / samples
        divergence[i, j], js[i, j], variation[i, j] = sums
    return Predictions(
        log_partitions=largest + log_mean,
        likeliest=likeliest,
        kl=divergence.fill_diagonal_(0),
        js=js.fill_diagonal_(0),
        total_variation=variation,
        agreement=torch.stack([(likeliest == labels).double().mean(1) for labels in likeliest]),
    )


def lowest_log_probability(
    embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], log_partitions: Tensor
) -> Tensor:
    """The smallest one of P models on all inputs and labels, [P], from f_i [N, M_i], g_i [K, M_i] and Z [P, N]."""
    f, g = padded(embeddings), padded([centred_head(x) for x in unembeddings])
    lowest = [(g @ f[:, rows].mT).amin(1) - log_partitions[:, rows] for rows in _rows(f, g)]
    return torch.cat(lowest, dim=1).amin(1) - math.log(g.shape[1])


def _rows(f: Tensor, g: Tensor) -> Iterator[slice]:
    """Blocks of the inputs of f [P, N, M] whose logits with g [P, K, M] are of a good size."""
    return blocks(f.shape[1], len(f) * g.shape[1], f.device, _LEAST_ROWS)


def _term_by_term(f: Tensor, g: Tensor) -> Tensor:
    """KL, Jensen-Shannon and total variation of two models, f [2, N, M] and g [2, K, M], summed over inputs; [3].

    Of K p, whose logarithms are as small as the logits, where those of p are rounded beside log K.
    """
    total = f.new_zeros(3)
    for rows in _rows(f, g):
        u = f[:, rows] @ g.mT
        p, q = u - _log_mean_exp(u)[..., None]
        total += torch.stack([divergence(p, q).sum() for divergence in (kl, jensen_shannon, total_variation)])
    return total / g.shape[1]


def _log_mean_exp(u: Tensor) -> Tensor:
    """Z [..., n] of centred logits u [..., n, K]."""
    largest = u.amax(-1, keepdim=True)
    d = u - largest
    mean = d.exp().mean(-1)
    flat = torch.log1p(torch.expm1(d).mean(-1))
    return largest.squeeze(-1) + torch.where(mean > _FLAT, flat, mean.log())


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
    mean = total / g.shape[1]
    flat, log_mean = mean > _FLAT, mean.log()
    if bool(flat.any()):
        log_mean = torch.where(flat, torch.log1p(torch.expm1(logits).mean(1)), log_mean)
    probabilities.mul_(total.reciprocal()[:, None])
    products, variations = p @ d.T, torch.pdist(p, p=1)
    return _Block(largest, likeliest, log_mean, products, _mixtures(p, sums, d), variations)


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
    close: list[list[int]] = (divergence < _NEARLY_EQUAL * scale).fill_diagonal_(False).nonzero().tolist()
    return close


def _symmetric(values: Tensor, size: int) -> Tensor:
    """[P, P] from its entries right of the diagonal, row by row."""
    matrix = values.new_zeros(size, size)
    i, j = torch.triu_indices(size, size, offset=1, device=values.device)
    matrix[i, j] = values
    return matrix + matrix.T
