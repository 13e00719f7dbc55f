"""Linear CKA of all pairs of layers from sums over batches: at fixed memory, over any number of samples.

The Gram matrix of a batch is all that is kept of a layer, whatever its width, and of that, once the batch is over,
one number for each pair of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.numerics import at_least_float32, full_precision

AT_ONCE = 2**20  # numbers of a layer that are centred and multiplied at once
FEATURES = 2048  # and that many of each sample at least
BLOCKS = 8  # of rows: of a symmetric matrix the part above the diagonal is not computed
FEWEST = 128  # rows in a block
ROUNDING = 16  # units of the last place in which a constant may differ from its mean
COLUMNS = 2**16  # entries of Gram matrices whose products are summed at once
AT_LEAST = 4  # samples in a batch


class Gram(NamedTuple):
    """The Gram matrix [N, N] of a layer over one batch, in units of its trace, with what its centring needs."""

    pairs: Tensor  # [n] of the entries off the diagonal, so packed that a product of two counts each pair twice
    diagonal: Tensor  # [N] float64
    sums: Tensor  # [N] float64, of the rows without the diagonal
    trace: Tensor  # scalar


def gram(rows: Tensor) -> Gram:
    """The Gram matrix of rows [N, d], less their mean as far as the rows' precision has it, float32 at least.

    What is left of the mean does not matter: the matrix is centred exactly by its sums.
    """
    rows = at_least_float32(rows)
    n, step = len(rows), max(FEWEST, -(-len(rows) // BLOCKS))
    blocks = {start: rows.new_zeros(min(step, n - start), min(start + step, n)) for start in range(0, n, step)}
    removed = rows.new_zeros(())
    width = min(max(FEATURES, AT_ONCE // n), rows.shape[1])
    equal, room = rows.new_full((n,), 1 / n), rows.new_empty(n * width)
    with full_precision(rows.device):
        for part in torch.split(rows, width, dim=1):
            mean = part.T @ equal
            removed += n * mean.square().sum()
            own = torch.sub(part, mean, out=room[: part.numel()].view(part.shape))
            for start, block in blocks.items():
                block.addmm_(own[start : start + step], own[: start + step].T)
        return _packed(blocks, (ROUNDING * torch.finfo(rows.dtype).eps) ** 2 * removed)


def _packed(blocks: Mapping[int, Tensor], flat: Tensor) -> Gram:
    """From the blocks of rows from ``start`` on, each [n, start + n], of a symmetric matrix.

    A trace of no more than ``flat`` is what rounding leaves of a layer that is the same for all samples.
    """
    diagonal = _exact(torch.cat([block.diagonal(start) for start, block in blocks.items()]))
    trace = diagonal.sum()
    trace = torch.where(trace <= flat, 0, trace)
    scale = torch.where(trace == 0, 1, trace)
    sums = -diagonal
    for start, block in blocks.items():
        sums[start : start + len(block)] += block.sum(1)
        sums[:start] += block[:, :start].T @ block.new_ones(len(block))
        block.diagonal(start).zero_()
        block *= 1 / scale
        block[:, :start] *= 2**0.5
    return Gram(torch.cat([block.flatten() for block in blocks.values()]), diagonal / scale, sums / scale, trace)


def _exact(tensor: Tensor) -> Tensor:
    """In float64, or float32 on Apple's MPS."""
    return tensor if tensor.device.type == "mps" else tensor.double()


class KernelSums:
    """Sums over batches from which linear CKA follows, for all pairs of layers of two models.

    HSIC of each batch is summed with equal weights, and the ratio taken of the sums: Nguyen et al. 2021
    (arXiv 2010.15327), eq. 3. With ``unbiased`` it is HSIC_1 of Song et al. 2012 (JMLR 13), eq. 5, whose expectation
    does not depend on the size of the batches; that of the biased one does. Batches of fewer than 4 samples, of which
    HSIC_1 says nothing, are passed over.
    """

    def __init__(self, unbiased: bool) -> None:
        self.unbiased = unbiased
        self.samples = 0
        self.cross = self.own_a = self.own_b = torch.zeros((), dtype=torch.float64)

    def add(self, a: Sequence[Gram], b: Sequence[Gram] | None, size: int) -> None:
        """Add the layers of a batch of so many samples; ``b`` is None where a model is compared with itself."""
        if size < AT_LEAST:
            return
        rows, first = _distinct(a)
        columns, second = (rows, first) if b is None else _distinct(b)
        cross = self._hsic(_products(first, second), first, second, torch.outer, lambda x, y: x @ y.T)
        own = [self._hsic(_squares(one), one, one, torch.mul, lambda x, y: (x * y).sum(1)) for one in (first, second)]
        self.cross = self.cross + cross[rows][:, columns].cpu()
        self.own_a = self.own_a + own[0][rows].cpu()
        self.own_b = self.own_b + own[1][columns].cpu()
        self.samples += size

    def values(self) -> Tensor:
        """CKA [L, L'] in float64 on the CPU; NaN for a layer that tells no two samples apart."""
        scale = self.own_a.clamp(min=0).sqrt()[:, None] * self.own_b.clamp(min=0).sqrt()
        return torch.where(scale > 0, self.cross / scale, torch.nan).clamp(-1, 1)

    def _hsic(self, pairs: Tensor, a: _Layers, b: _Layers, outer: Product, inner: Product) -> Tensor:
        """HSIC of one batch: with matrix products [L, L'] of all layers of a with those of b, else [L] of each.

        ``pairs`` are the inner products of the Gram matrices without their diagonals.
        """
        n = a.sums.shape[1]
        if self.unbiased:
            means = outer(a.sums.sum(1), b.sums.sum(1)) / ((n - 1) * (n - 2))
            hsic = (pairs + means - 2 / (n - 2) * inner(a.sums, b.sums)) / (n * (n - 3))
        else:
            whole_a, whole_b = a.sums + a.diagonal, b.sums + b.diagonal
            means = outer(whole_a.sum(1), whole_b.sum(1)) / n**2
            hsic = (pairs + inner(a.diagonal, b.diagonal) + means - 2 / n * inner(whole_a, whole_b)) / (n - 1) ** 2
        return hsic * outer(a.traces, b.traces)


Product = Callable[[Tensor, Tensor], Tensor]


class _Layers(NamedTuple):
    """The Gram matrices of L layers, none twice."""

    pairs: list[Tensor]  # L of [n]
    diagonal: Tensor  # [L, N]
    sums: Tensor  # [L, N]
    traces: Tensor  # [L]


def _distinct(grams: Sequence[Gram]) -> tuple[list[int], _Layers]:
    """The different ones, and which of them is each layer's."""
    own = {id(one): one for one in grams}
    places = {key: place for place, key in enumerate(own)}
    pairs, *rest = zip(*own.values(), strict=True)
    return [places[id(one)] for one in grams], _Layers(list(pairs), *map(torch.stack, rest))


def _products(a: _Layers, b: _Layers) -> Tensor:
    """Inner products [L, L'] of the Gram matrices without their diagonals, in float64."""
    total = a.sums.new_zeros(len(a.pairs), len(b.pairs))
    for start in range(0, len(a.pairs[0]), COLUMNS):
        chosen = slice(start, start + COLUMNS)
        first, second = (torch.stack([one[chosen] for one in layers.pairs]).to(total) for layers in (a, b))
        total += first @ second.T
    return total


def _squares(a: _Layers) -> Tensor:
    """What ``_products`` has on its diagonal, [L]."""
    return torch.stack([one.to(a.sums).square().sum() for one in a.pairs])
