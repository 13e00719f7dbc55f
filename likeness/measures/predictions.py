"""What P models predict on the same inputs, and how far apart the predictions of all pairs are, in one pass."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import blocks, padded
from likeness.measures.distribution import jensen_shannon, kl

_LEAST_ROWS = 64  # of the logits [P, n, K] that are held at once
_NEARLY_EQUAL = 1e-5  # nats a sample and relative: under it a difference of sums has lost digits that count
_LOG_2 = 0.6931471805599453


class Predictions(NamedTuple):
    """Of P models on the same N inputs, K labels; divergences are means over the inputs, in nats."""

    log_partitions: Tensor  # [P, N] Z(x)
    lowest: Tensor  # [P] the smallest log-probability
    likeliest: Tensor  # [P, N] labels
    kl: Tensor  # [P, P] KL(p_i || p_j)
    js: Tensor  # [P, P]
    total_variation: Tensor  # [P, P]
    agreement: Tensor  # [P, P] fraction of the inputs with the same likeliest label


class _Block(NamedTuple):
    """Of a block of n inputs; the last four are sums over them."""

    log_partitions: Tensor  # [P, n]
    lowest: Tensor  # [P]
    likeliest: Tensor  # [P, n]
    entropies: Tensor  # [P, P] cross-entropies of p_i and p_j
    mixtures: Tensor  # [P (P - 1) / 2] what :func:`_mixtures` says
    variations: Tensor  # [P (P - 1) / 2] L1 distances
    same: Tensor  # [P, P] equal labels


def predictions(embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor]) -> Predictions:
    """Of models with f_i [N, M_i] and g_i [K, M_i] in float64, in blocks of inputs.

    KL and Jensen-Shannon divergence are differences of entropies, except between nearly equal models, where that
    cancels: these are summed term by term.
    """
    f, g = padded(embeddings), padded(unembeddings)
    log_partitions, lowest, likeliest, *sums = zip(*_blocks(f, g), strict=True)
    entropies, mixtures, variations, same = (torch.stack(values).sum(0) / f.shape[1] for values in sums)
    own = entropies.diagonal()
    divergence, js = entropies - own[:, None], _symmetric(mixtures, len(f)) - 0.5 * (own[:, None] + own)
    for i, j in _nearly_equal(torch.minimum(divergence, js), own):
        divergence[i, j], js[i, j] = _term_by_term(f[[i, j]], g[[i, j]]) / f.shape[1]
    return Predictions(
        torch.cat(log_partitions, dim=1),
        torch.stack(lowest).amin(0),
        torch.cat(likeliest, dim=1),
        divergence.fill_diagonal_(0),
        js.fill_diagonal_(0),
        0.5 * _symmetric(variations, len(f)),
        same,
    )


def js_sum(log_p: Tensor) -> Tensor:
    """Jensen-Shannon divergence summed over samples for all pairs, [P, P], from log-probabilities [P, N, K]."""
    models, samples, _ = log_p.shape
    p = log_p.exp()
    own = -(p * log_p).sum((1, 2))
    mixtures = _mixtures(p, torch.empty_like(p), torch.empty_like(p))
    js = _symmetric(mixtures, models) - 0.5 * (own[:, None] + own)
    for i, j in _nearly_equal(js / samples, own / samples):
        js[i, j] = jensen_shannon(log_p[i], log_p[j]).sum()
    return js.fill_diagonal_(0)


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
    scratch = f.new_empty(0)
    transposed = g.mT.contiguous()  # else the product takes several times as long
    for rows in _rows(f, g):
        shape = (3, len(f), rows.stop - rows.start, g.shape[1])
        scratch = scratch if scratch.shape == shape else f.new_empty(shape)
        yield _summarised(f[:, rows], transposed, *scratch)


def _summarised(f: Tensor, transposed: Tensor, log_p: Tensor, p: Tensor, scratch: Tensor) -> _Block:
    """Of f [P, n, M] and g^T [P, M, K]; the rest is memory [P, n, K]."""
    largest, likeliest = torch.matmul(f, transposed, out=log_p).max(-1)
    torch.exp(log_p.sub_(largest[..., None]), out=p)
    total = p.sum(-1)
    p.mul_(total.reciprocal()[..., None])
    log_p.sub_(total.log()[..., None])
    return _Block(
        largest + total.log(),
        log_p.amin((1, 2)),
        likeliest,
        -(p.flatten(1) @ log_p.flatten(1).T),
        _mixtures(p, scratch, log_p),
        torch.pdist(p.flatten(1), p=1),
        (likeliest[:, None] == likeliest[None]).sum(-1).double(),
    )


def _mixtures(p: Tensor, sums: Tensor, logs: Tensor) -> Tensor:
    """Entropies of (p_i + p_j) / 2, i < j, summed over samples, from probabilities [P, n, K]; [P (P - 1) / 2].

    Of the unhalved sum s, -s/2 log(s/2) adds up to log 2 a sample less s/2 log s: one logarithm an element. The other
    arguments are memory [P, n, K].
    """
    tiny, samples, parts = torch.finfo(p.dtype).tiny, p.shape[1], []
    p, sums, logs = (x.flatten(1) for x in (p, sums, logs))
    for i in range(len(p)):
        s = torch.add(p[i + 1 :], p[i], out=sums[i + 1 :]).clamp_(min=tiny)
        parts.append(torch.log(s, out=logs[i + 1 :]).mul_(s).sum(1))
    return samples * _LOG_2 - 0.5 * torch.cat(parts)


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
