"""What unrelated models would score over all pairs of layers, and how far values would move with other samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from likeness.checks import require_positive
from likeness.seeding import generator
from likeness.similarity.catalogue import Measure
from likeness.similarity.layers.matrices import Matrices
from likeness.similarity.representations.permutation_null import Draws, NullDistribution
from likeness.similarity.undefined import UndefinedError

_ROUNDING = 1e-12  # closer values than this are equal: a product of permuted matrices sums in another order
AT_ONCE = 16  # permutations
BAND = (0.05, 0.95)  # of the null of a single pair of layers


@dataclass(frozen=True)
class LayerNull:
    """The null of all pairs of layers at once: one permutation of the samples for the whole matrix, the same for all.

    The statistic is the largest similarity (the smallest distance) of any pair, so that searching among many layers is
    paid for. Gröger, Wen & Brbić, "Revisiting the Platonic Representation Hypothesis: An Aristotelian View", ICML 2026
    (arXiv 2602.14486), algorithm 2; the p-values of single pairs against it are Westfall & Young's of 1993.
    """

    best: NullDistribution  # of the statistic, with its p-value
    alpha: float
    threshold: float  # that unrelated models pass with a chance of at most alpha
    p_values: Tensor  # [L, L'], corrected for all pairs
    scores: Tensor  # [L, L'] (value - threshold) / (limit - threshold), at least 0
    score: float  # of the statistic
    low: Tensor  # [L, L'] 5 % of the null of each pair
    high: Tensor  # [L, L'] 95 %

    @property
    def significant(self) -> Tensor:
        """Which pairs are more alike than unrelated models would be at this level, [L, L']."""
        return self.p_values <= self.alpha


@dataclass(frozen=True)
class LayerIntervals:
    """Bootstrap intervals over samples, of percentiles, one pair of layers at a time."""

    low: Tensor  # [L, L']
    high: Tensor  # [L, L']
    confidence: float
    replicates: int


def layer_null(
    cells: Matrices, samples: int, *, n: int = 199, alpha: float = 0.05, seed: int = 0, observed: Tensor | None = None
) -> LayerNull:
    """The null of a matrix of layers over N samples, from n permutations.

    The p-value of a pair is (1 + how many permutations have a best pair at least as alike) / (n + 1). The threshold is
    the ceil((1 - alpha)(n + 1))-th of the statistics, the observed one among them, from the least alike on. Scores are
    0 up to the threshold and 1 for the most alike there can be; without such a limit they are in the measure's units.
    Raises ValueError for n < 1 and alpha outside (0, 1), UndefinedError where no pair has a value.
    """
    require_positive("the permutations", n=n)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}")
    values = cells.observed() if observed is None else observed
    if bool(values.isnan().all()):
        raise UndefinedError(f"{cells.measure.label} is undefined for all pairs of layers, and so is its null")
    null = torch.cat([cells.permuted(orders) for orders in Draws(n, samples, seed).batches(AT_ONCE)])
    return _null(values, null, cells.measure, alpha)


def layer_intervals(
    cells: Matrices,
    samples: int,
    *,
    n: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    observed: Tensor | None = None,
) -> LayerIntervals:
    """Percentile intervals from n draws of N samples with replacement, the same ones for all layers.

    Of a measure that is a cosine of relations between samples, pairs of two draws of one sample are dropped, and
    kernels, centring and neighbours stay those of all samples. Any other (Procrustes, SVCCA, PWCCA, m_CCA) is computed
    again of the samples drawn; since those drawn twice make everything look more alike, its interval is shifted by
    what the draws' mean lies off the observed value. Raises ValueError for n < 2 and a
    confidence outside (0, 1).
    """
    if n < 2 or not 0 < confidence < 1:
        raise ValueError(f"intervals need at least 2 draws and a confidence in (0, 1), got {n} and {confidence}")
    draws = (torch.randint(samples, (samples,), generator=generator(seed, number, 1)) for number in range(n))
    values = torch.stack([cells.resampled(drawn) for drawn in draws])
    tail = (1 - confidence) / 2
    low, high = _quantiles(values, (tail, 1 - tail))
    if cells.repeats_inflate:
        shift = (cells.observed() if observed is None else observed) - values.nanmean(0)
        low, high = low + shift, high + shift
    return LayerIntervals(low, high, confidence, n)


def _null(values: Tensor, null: Tensor, measure: Measure, alpha: float) -> LayerNull:
    sign = 1 if measure.larger_is_more_alike else -1
    undefined, n = values.isnan(), len(null)
    alike = (sign * null).masked_fill(undefined | null.isnan(), -torch.inf)
    best = alike.flatten(1).amax(1)
    own = float((sign * values).masked_fill(undefined, -torch.inf).max())
    rank = math.ceil((1 - alpha) * (n + 1))
    threshold = float(torch.cat([best, best.new_tensor([own])]).sort().values[rank - 1])
    at_least = (best[:, None, None] >= sign * values - _ROUNDING).sum(0)
    limit = (measure.limit if sign > 0 else 0.0) if measure.limit is not None or sign < 0 else None
    scores = calibrated(values, sign * threshold, limit, sign)
    low, high = _quantiles(null, BAND)
    return LayerNull(
        best=NullDistribution(sign * own, sign * best, measure.larger_is_more_alike),
        alpha=alpha,
        threshold=sign * threshold,
        p_values=((1 + at_least).double() / (n + 1)).masked_fill(undefined, torch.nan),
        scores=scores,
        score=float(scores[~undefined].max()),
        low=low,
        high=high,
    )


def calibrated(values: Tensor, threshold: float, limit: float | None, sign: int) -> Tensor:
    """(value - threshold) / (limit - threshold), at least 0 and at most 1; undivided without a limit.

    Gröger et al. 2026, section 5. For distances, with ``sign`` -1, the limit is 0.
    """
    excess = (sign * (values - threshold)).clamp(min=0)
    if limit is None:
        return excess
    room = sign * (limit - threshold)
    return (excess / room).clamp(max=1) if room > 0 else torch.zeros_like(values).masked_fill(values.isnan(), math.nan)


def _quantiles(values: Tensor, levels: Iterable[float]) -> tuple[Tensor, Tensor]:
    """Of [n, L, L'] over n, where anything is defined."""
    low, high = (values.nanquantile(level, dim=0) for level in levels)
    return low, high
