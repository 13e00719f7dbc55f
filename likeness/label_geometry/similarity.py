"""How alike the labels of a softmax head are, in three inner products of their vectors g(y).

Probabilities stay what they are under f -> A f, g -> A^-T g + v. The raw cosine changes with A and with v, the
centred one with A; the correlation of centred logits over inputs changes with neither. No similarity depends on the
scale of g: lengths are taken of rows divided by their largest entry, so that none underflows.

Beside them stands how often two labels are probable together. It has another unit, so the two are compared by ranks,
a pair's place among all pairs of labels; derived, not in a paper.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from likeness import numerics
from likeness.numerics import Moments, as_float64, average_ranks

_NEGLIGIBLE = 1e-12  # size of a vector relative to those it is a difference of: below it a direction is rounding
_RANK_TOLERANCE = 1e-6  # of singular values, which come from a scatter with relative errors of 1e-15
_NEGATIVE = 1e-9  # eigenvalue of a covariance relative to the largest: below it this is no covariance
_MAX_WORK = 2**38  # K M^2 up to which rank and condition number are those of all labels
_BLOCK = 2**23  # elements that are read at a time: 64 MB


class LabelRows(Protocol):
    """The unembeddings g [K, M], read in slices of rows: a tensor, or a matrix that stays on disk."""

    @property
    def shape(self) -> Sequence[int]:
        """K and M."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """The label vectors of these rows, in any floating-point type."""
        ...


Progress = Callable[[Sequence[slice]], Iterable[slice]]
"""Passes blocks of rows on, one by one, showing how far they have come."""


@dataclass(frozen=True)
class LabelMetric:
    """An inner product of label vectors: <i, j> = (g_i - shift)^T factor factor^T (g_j - shift)."""

    shift: Tensor | None = None  # [..., M]
    factor: Tensor | None = None  # [..., M, R]

    @classmethod
    def raw(cls) -> Self:
        """The head's own coordinates: any cosine of a pair can be moved to any other by a translation."""
        return cls()

    @classmethod
    def centred(cls, mean: Tensor) -> Self:
        """Around the mean label vector [..., M]: translations are removed, linear maps are not."""
        return cls(as_float64(mean))

    @classmethod
    def invariant(cls, mean: Tensor, feature_cov: Tensor) -> Self:
        """The covariance over inputs of centred logits, from Cov_x(f) [..., M, M]; derived, not in the paper.

        Neither a translation nor a linear map changes it. Raises as :func:`covariance_factor` does.
        """
        if feature_cov.shape[-1] != mean.shape[-1]:
            raise ValueError(
                f"the feature covariance is {list(feature_cov.shape)}, but the label vectors have "
                f"{mean.shape[-1]} dimensions"
            )
        return cls(as_float64(mean), covariance_factor(feature_cov))

    def directions(self, g: Tensor) -> Tensor:
        """Unit vectors [..., K, R] whose dot products are the cosines, from g [..., K, M]; NaN where undefined.

        A label vector that is zero here has no direction, and neither has one within 1e-12 of the shift, relative to
        its entries: what is left of it is rounding.
        """
        g = as_float64(g)
        vectors = g if self.shift is None else g - self.shift.unsqueeze(-2)
        own = _largest(vectors, -1)
        size = torch.maximum(own, _largest(g, -1))
        vectors = vectors / own.where(own > _NEGLIGIBLE * size, torch.nan)
        if self.factor is None:
            return torch.div(vectors, vectors.norm(dim=-1, keepdim=True))
        factor = self.factor / _largest(self.factor, (-2, -1))
        vectors = vectors @ factor
        length = vectors.norm(dim=-1, keepdim=True)
        rounding = _NEGLIGIBLE * factor.square().sum((-2, -1), keepdim=True).sqrt() * size / own
        directions: Tensor = vectors / length.where(length > rounding, torch.nan)
        return directions

    def cosines(self, g: Tensor) -> Tensor:
        """The cosines of all pairs of labels, [..., K, K] in [-1, 1], from g [..., K, M]; NaN where undefined."""
        directions = self.directions(g)
        return (directions @ directions.mT).clamp(-1, 1)


def raw_similarity(g: Tensor) -> Tensor:
    """cos(g(i), g(j)) for all pairs of labels, [..., K, K], from g [..., K, M]; NaN for a label at zero.

    >>> raw_similarity(torch.tensor([[3.0, 0.0], [0.0, 1e-13], [1.0, 1.0]]))[0]
    tensor([1.0000, 0.0000, 0.7071], dtype=torch.float64)
    """
    return LabelMetric.raw().cosines(g)


def centred_similarity(g: Tensor) -> Tensor:
    """Cosines around the mean label vector, [..., K, K], from g [..., K, M]; NaN for a label at the mean.

    >>> centred_similarity(torch.tensor([[5.0, 1.0], [6.0, 1.0], [7.0, 1.0]]))[0]
    tensor([ 1., nan, -1.], dtype=torch.float64)
    """
    return LabelMetric.centred(as_float64(g).mean(-2)).cosines(g)


def logit_correlation(g: Tensor, feature_cov: Tensor) -> Tensor:
    """Correlations over inputs of the centred logits of all pairs of labels, [..., K, K].

    g [..., K, M]; feature_cov [..., M, M] is Cov_x(f). The only one of the three that two models with equal
    probabilities always share. NaN for a label whose centred logit is constant. Derived, not in the paper.

    >>> g, narrow = torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    >>> logit_correlation(g, narrow)[0]
    tensor([ 1.0000, -0.8000, -0.3162], dtype=torch.float64)
    """
    return LabelMetric.invariant(as_float64(g).mean(-2), feature_cov).cosines(g)


def _largest(tensor: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The largest absolute value over these dimensions, which are kept."""
    return tensor.abs().amax(dim, keepdim=True)


def covariance_factor(covariance: Tensor) -> Tensor:
    """L [..., M, M] with L L^T = covariance; singular ones have one too.

    Raises ValueError if the matrix is not finite, not symmetric or has a negative eigenvalue.
    """
    covariance = as_float64(covariance)
    shape = list(covariance.shape)
    if covariance.ndim < 2 or shape[-1] != shape[-2]:
        raise ValueError(f"a covariance is a square matrix, got {shape}")
    if not bool(covariance.isfinite().all()):
        raise ValueError("the covariance holds a value that is not finite")
    largest = float(covariance.abs().max())
    if bool((covariance - covariance.mT).abs().max() > _NEGATIVE * largest):
        raise ValueError("the covariance is not symmetric")
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    if bool((eigenvalues < -_NEGATIVE * largest).any()):
        raise ValueError(f"the covariance has a negative eigenvalue, {float(eigenvalues.min()):.3g}")
    factor: Tensor = vectors * eigenvalues.clamp(min=0).sqrt().unsqueeze(-2)
    return factor


def co_probability(second_moments: Tensor) -> Tensor:
    """How often labels are probable together: E[p_i p_j] / sqrt(E[p_i^2] E[p_j^2]), [..., K, K] in [0, 1].

    second_moments [..., K, K]: sums or means over inputs of p_i p_j. 1 where two labels' probabilities are
    proportional on every input; NaN for a label that is never probable. Derived, not in the paper.
    """
    scale = as_float64(second_moments).diagonal(dim1=-2, dim2=-1).sqrt()
    scale = scale.where(scale > 0, torch.nan)
    return (second_moments / (scale.unsqueeze(-1) * scale.unsqueeze(-2))).clamp(0, 1)


class HeadSummary(NamedTuple):
    """How many directions a head's label vectors span, where they lie, and how unevenly they spread."""

    labels: int
    dim: int
    rank: int  # of the centred label vectors: below ``dim`` some directions of f reach no probability
    mean: Tensor  # [M] the mean label vector, which any translation moves
    mean_ratio: float  # its length over the mean length of the label vectors: 0 centred, 1 all alike
    spread: float  # root mean square length of the centred label vectors
    condition: float  # largest over smallest non-zero singular value of the centred vectors: any A changes it
    judged: int  # how many labels rank and condition are those of; of fewer than K, the rank is a lower bound


def summarise_head(g: LabelRows, device: torch.device | str = "cpu", progress: Progress = iter) -> HeadSummary:
    """The summary of g [K, M], read block by block; its memory is that of a few M x M matrices.

    Singular values under 1e-6 of the largest count as zero. Where K M^2 passes 3e11, they are those of every n-th
    label, of 4 M labels at least. Lengths are right from 1e-150 to 1e150. Raises ValueError naming the first label
    whose vector is not finite.
    """
    labels, dim = g.shape
    stride = max(1, min(labels // (4 * dim), labels * dim * dim // _MAX_WORK))
    mean, lengths = torch.zeros(dim, dtype=torch.float64, device=device), 0.0
    seen, deviations = 0, 0.0

    def judged() -> Iterator[Tensor]:
        nonlocal mean, lengths, seen, deviations
        for block in progress(row_blocks(g.shape)):
            rows = as_float64(g[block].to(device))
            require_finite_rows(rows, block.start)
            lengths += float(rows.norm(dim=1).sum())
            # Mean and deviations of all rows so far (Chan, Golub & LeVeque 1983): exact far from the origin.
            of_block = rows.mean(0)
            apart, share = of_block - mean, len(rows) / (seen + len(rows))
            deviations += float((rows - of_block).square().sum() + apart.square().sum() * seen * share)
            mean, seen = mean + share * apart, seen + len(rows)
            yield rows[-block.start % stride :: stride]

    n, _, scatter = moments_of(judged())
    singular = torch.linalg.eigvalsh(scatter).clamp(min=0).sqrt()
    kept = singular[singular > _RANK_TOLERANCE * singular.max()]
    return HeadSummary(
        labels,
        dim,
        rank=len(kept),
        mean=mean,
        mean_ratio=float(mean.norm()) * labels / lengths if lengths else torch.nan,
        spread=(deviations / labels) ** 0.5,
        condition=float(kept.max() / kept.min()) if len(kept) else torch.nan,
        judged=int(n),
    )


def row_blocks(shape: Sequence[int]) -> list[slice]:
    """Slices of the rows of a [K, M] matrix, of 64 MB in float64 or less."""
    labels, dim = shape
    size = max(1, _BLOCK // dim)
    return [slice(start, min(start + size, labels)) for start in range(0, labels, size)]


def require_finite_rows(rows: Tensor, first: int = 0) -> None:
    """Raise ValueError naming the first label vector of rows [B, M] that is not finite; ``first`` is rows[0]'s."""
    bad = (~rows.isfinite()).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        value = float(rows[row][~rows[row].isfinite()][0])
        raise ValueError(f"the vector of label {first + row} is not finite: {value} ({int(bad.sum())} such labels)")


def moments_of(blocks: Iterable[Tensor]) -> Moments:
    """Moments of samples that come in blocks [n, D], at least one; no more than one block is in memory."""
    total: Moments | None = None
    for block in blocks:
        shard = Moments.of(block)
        if total is None:
            total = shard
        else:
            total = Moments.merge(Moments(*(torch.stack(pair) for pair in zip(total, shard, strict=True))))
    if total is None:
        raise ValueError("there are no moments of no samples")
    return total


class LabelSimilarities(NamedTuple):
    """How alike K labels are by their vectors, and how often the model takes them for each other; [K, K] each."""

    raw: Tensor  # cosines of the label vectors: they change under translations that no probability shows
    centred: Tensor  # cosines around the mean label vector: they change under linear maps that no probability shows
    invariant: Tensor  # correlations over inputs of the centred logits: equal for equal probabilities
    together: Tensor  # co-probability


def label_similarities(f: Tensor, g: Tensor) -> LabelSimilarities:
    """The similarities of all pairs of labels of a softmax model with f [N, M] and g [K, M], in float64.

    The raw and the centred cosine are of label vectors without a bias, so give the bias as a constant last coordinate
    of f and a last column of g. Nielsen & Grivas 2026 (arXiv 2603.29488). Raises ValueError naming what is not finite.

    Example:
        >>> import torch
        >>> f, g = torch.randn(500, 2, generator=torch.manual_seed(0)), torch.tensor([[2.0, 0], [0, 2], [-1, -1]])
        >>> found = label_similarities(f, g)
        >>> moved = label_similarities(f, g + 5)  # the same probabilities
        >>> bool((found.raw - moved.raw).abs().max() > 0.9), torch.allclose(found.invariant, moved.invariant)
        (True, True)
    """
    from likeness.label_geometry.metric import LabelSimilarity

    metric = LabelSimilarity(1, *g.shape)
    metric.update(f[None], g[None])
    return LabelSimilarities(**{name: values[0] for name, values in metric.compute().items()})


class Disagreements(NamedTuple):
    """Pairs of labels, the largest disagreement first; ``gap`` is a difference of ranks, in (-1, 1).

    Positive: similar vectors, seldom probable together. Negative: probable together in spite of their vectors.
    """

    first: Tensor  # [n] int64
    second: Tensor  # [n] int64, larger than ``first``
    gap: Tensor  # [n] float64


def rank_correlation(similarity: Tensor, together: Tensor) -> float:
    """Spearman's correlation over all pairs of labels between two symmetric matrices [K, K], in [-1, 1].

    Pairs with NaN in either do not count; NaN where fewer than two pairs or only ties are left.
    """
    _, values, others = _known_pairs(similarity, together)
    return float(numerics.rank_correlation(values, others))


def largest_disagreements(similarity: Tensor, together: Tensor, count: int) -> Disagreements:
    """The ``count`` pairs of labels that two symmetric matrices [K, K] rank most differently, ties by label."""
    pairs, values, others = _known_pairs(similarity, together)
    gap = (average_ranks(values) - average_ranks(others)) / max(1, len(values))
    order = gap.abs().argsort(descending=True, stable=True)[:count]
    return Disagreements(pairs[0, order], pairs[1, order], gap[order])


def _known_pairs(similarity: Tensor, together: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of labels [2, n] that both matrices know, and their entries [n] in each."""
    if similarity.shape != together.shape:
        raise ValueError(f"the matrices are of different labels: {list(similarity.shape)} and {list(together.shape)}")
    pairs = torch.triu_indices(len(similarity), len(similarity), 1)
    values, others = (matrix.cpu()[pairs[0], pairs[1]] for matrix in (similarity, together))
    known = values.isfinite() & others.isfinite()
    return pairs[:, known], values[known], others[known]
