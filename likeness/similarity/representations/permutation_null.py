"""What unrelated representations would score: the permutation null of a measure.

Most measures of similarity are not 0 for unrelated representations, and what they are depends on N and M. Pairing
the samples of one side with those of the other at random keeps N, M and both clouds, and breaks the relation.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.numerics import as_float64
from likeness.seeding import generator
from likeness.similarity.catalogue import RepresentationMeasure
from likeness.similarity.representations.samples import S, prepare_all, require_same_samples
from likeness.similarity.undefined import UndefinedError

_MAX_ELEMENTS = 2**22  # of a batch of reordered representations: 32 MB
_ROUNDING = 1e-12  # closer values than this are equal: a batched sum rounds in another way than a single one


@dataclass(frozen=True)
class NullDistribution:
    """The value observed, and those of the same representations with the samples of one side permuted."""

    observed: float
    values: Tensor  # [n] float64, on the CPU
    larger_is_more_alike: bool

    @property
    def mean(self) -> float:
        """What unrelated representations of this shape score on average."""
        return float(self.values.mean())

    def quantile(self, level: float) -> float:
        """The value below which this share of the null lies."""
        return float(self.values.quantile(level))

    @property
    def p_value(self) -> float:
        """(1 + how many permutations are at least as alike as observed) / (n + 1), between 1 / (n + 1) and 1.

        Phipson & Smyth 2010. A small value says that the representations are related, not that they are alike:
        any two classifiers of the same labels are.
        """
        towards_alike = 1 if self.larger_is_more_alike else -1
        as_extreme = towards_alike * (self.values - self.observed) >= -_ROUNDING
        return (1 + int(as_extreme.sum())) / (len(self.values) + 1)


class PairwiseNulls(NamedTuple):
    """Of all ordered pairs of P representations, in float64 on the CPU; the diagonal is nan, and what is undefined."""

    mean: Tensor  # [P, P]
    p_value: Tensor  # [P, P]


def null_distribution(
    measure: RepresentationMeasure[S], x: Tensor, y: Tensor, *, n: int = 999, seed: int = 0
) -> NullDistribution:
    """Values of a measure of x [N, M] and y [N, M'] under n random permutations of the samples of y.

    ``measure`` is one of ``REPRESENTATION_MEASURES``, or any function through ``of_function``. What a measure needs of
    a model (a Gram matrix, ranks, neighbours) is computed once and reordered. The samples must be exchangeable: where
    some belong together (augmentations of one image), permute groups instead. A pure function of the arguments, the
    same on every device up to rounding. Raises ValueError for n < 1 and as the measure does.

    Example:
        >>> import torch
        >>> from likeness.similarity.catalogue import REPRESENTATION_MEASURES
        >>> x = torch.randn(30, 3, generator=torch.manual_seed(0)).double()
        >>> null = null_distribution(REPRESENTATION_MEASURES["linear_cka"], x, x + 1, n=99)
        >>> round(null.observed, 6), null.p_value
        (1.0, 0.01)
    """
    require_positive("the permutations", n=n)
    require_same_samples([x, y], ("x", "y"))
    a, b = (measure.prepare(as_float64(z), name) for z, name in ((x, "x"), (y, "y")))
    return _null(measure, a, b, Draws(n, len(x), seed))


def pairwise_nulls(
    measure: RepresentationMeasure[S], samples: Sequence[Tensor], names: Sequence[str], *, n: int = 999, seed: int = 0
) -> PairwiseNulls:
    """:func:`null_distribution` of all pairs of P representations [N, M_i], the second of a pair being permuted.

    Of a symmetric measure each pair is permuted once; a pair for which the measure is undefined has no null. ``names``
    are for messages.
    """
    require_positive("the permutations", n=n)
    require_same_samples(samples, names)
    prepared, _ = prepare_all(measure.prepare, samples, names)
    draws = Draws(n, len(samples[0]), seed)
    mean, p_value = torch.full((2, len(samples), len(samples)), torch.nan, dtype=torch.float64)
    for i, j in permutations(prepared, 2):
        if measure.symmetric and i > j:
            mean[i, j], p_value[i, j] = mean[j, i], p_value[j, i]
            continue
        with suppress(UndefinedError):
            null = _null(measure, prepared[i], prepared[j], draws)
            mean[i, j], p_value[i, j] = null.mean, null.p_value
    return PairwiseNulls(mean, p_value)


class Draws(NamedTuple):
    """Of permutations."""

    n: int
    size: int  # N
    seed: int

    def batches(self, size: int) -> Iterator[Tensor]:
        """The permutations in batches [B, N] of at most this size, the same at any size."""
        for start in range(0, self.n, size):
            numbers = range(start, min(start + size, self.n))
            yield torch.stack([torch.randperm(self.size, generator=generator(self.seed, i)) for i in numbers])


def _null(measure: RepresentationMeasure[S], a: S, b: S, draws: Draws) -> NullDistribution:
    observed = measure.compare(a, b)
    batches = draws.batches(max(1, _MAX_ELEMENTS // _elements(b)))
    values = [measure.compare(a, measure.reorder(b, orders.to(observed.device))).cpu() for orders in batches]
    return NullDistribution(float(observed), torch.cat(values), measure.larger_is_more_alike)


def _elements(prepared: Tensor | tuple[Tensor, ...] | object) -> int:
    """How many numbers were prepared of a model."""
    tensors = prepared if isinstance(prepared, tuple) else (prepared,)
    return sum(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))
