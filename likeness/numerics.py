"""Arithmetic that every measure shares: streamed moments in float64, ranks, and lengths at any scale.

:class:`Moments` and :class:`FactoredMoments` are mean and scatter of samples that come in batches and on ranks;
:class:`FeatureMoments` are those of each dimension alone. Lengths are taken after division by a power of two, which
is exact, so that no square overflows or vanishes. :func:`full_precision` and :func:`threads_for` say how products and
small operations run.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

DEAD = 1e-6  # a dimension whose standard deviation is at most this share of the others' median one is dead
ROUNDING = 1e-14  # of a dimension's mean: a standard deviation at most as large is that of a constant
ROW_EPS = 1e-6  # added to a row's standard deviation, as in the modules of Nielsen & Hansen
_FACTOR_ROWS = 2  # in units of D: with room for new ones, each row takes part in few factorisations
_SMALL = 2**22  # elements of the largest tensor for which one thread is enough
_ROUNDINGS = 8  # of float32 that the values of a network carry, relative to its largest singular value


class Moments(NamedTuple):
    """Count, mean and centred scatter of D-dimensional samples, in float64; leading dimensions are shards."""

    n: Tensor  # [...] count
    mean: Tensor  # [..., D]
    scatter: Tensor  # [..., D, D] sum of (a - mean)(a - mean)^T

    @classmethod
    def of(cls, samples: Tensor) -> Self:
        """Moments of the samples [N, D]; centring first keeps the scatter exact far from the origin."""
        samples = as_float64(samples)
        mean = samples.mean(0) if len(samples) else samples.new_zeros(samples.shape[1])
        centred = samples - mean
        return cls(samples.new_tensor(float(len(samples))), mean, centred.T @ centred)

    @classmethod
    def merge(cls, shards: Self) -> Self:
        """One state from S stacked ones (n [S], mean [S, D], scatter [S, D, D]); empty shards weigh nothing.

        Chan, Golub & LeVeque 1983, for any number of shards.
        """
        count, mean, deviations = merge_means(shards.n, shards.mean)
        return cls(count, mean, shards.scatter.sum(0) + deviations.T @ deviations)

    def pack(self) -> Tensor:
        """One matrix [..., D+1, D+1]: the scatter, bordered by the mean, with the count in the corner."""
        body = torch.cat([self.scatter, self.mean.unsqueeze(-2)], dim=-2)
        border = torch.cat([self.mean, self.n.unsqueeze(-1)], dim=-1)
        return torch.cat([body, border.unsqueeze(-1)], dim=-1)

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of :meth:`pack`."""
        return cls(packed[..., -1, -1], packed[..., -1, :-1], packed[..., :-1, :-1])


class FactoredMoments(NamedTuple):
    """Count, mean and a factor of the centred scatter of D-dimensional samples, in float64.

    What is equal in equivalent models is equal in a factor to 1e-15 of its length, where the scatter itself, of
    squares, would leave 1e-8.
    """

    n: Tensor  # count
    mean: Tensor  # [D]
    factor: Tensor  # [R, D], R <= 2 D: factor^T factor = sum of (a - mean)(a - mean)^T

    @classmethod
    def of(cls, samples: Tensor) -> Self:
        """Moments of the samples [N, D]."""
        samples = as_float64(samples)
        mean = samples.mean(0) if len(samples) else samples.new_zeros(samples.shape[1])
        return cls(samples.new_tensor(float(len(samples))), mean, _condensed(samples - mean))

    @classmethod
    def merge(cls, shards: Sequence[Self]) -> Self:
        """One state from several; empty ones weigh nothing.

        Chan, Golub & LeVeque 1983, with the QR factorisation of stacked factors in the place of a sum of scatters.
        """
        n, means = torch.stack([shard.n for shard in shards]), torch.stack([shard.mean for shard in shards])
        count, mean, deviations = merge_means(n, means)
        return cls(count, mean, _condensed(torch.cat([*(shard.factor for shard in shards), deviations])))

    @property
    def scatter(self) -> Tensor:
        """Sum of (a - mean)(a - mean)^T, [D, D]."""
        return self.factor.T @ self.factor

    @property
    def root(self) -> Tensor:
        """[min(R, D), D], a factor of the covariance with N - 1 in the denominator; of zeros for N = 1."""
        rows = self.factor if len(self.factor) <= len(self.mean) else triangle(self.factor)
        return rows / (self.n - 1).clamp(min=1).sqrt()

    def pack(self) -> Tensor:
        """One matrix [2 D + 1, D + 1], whatever R: the factor and zeros, then the mean with the count beside it."""
        dim = len(self.mean)
        packed = self.mean.new_zeros(_FACTOR_ROWS * dim + 1, dim + 1)
        packed[: len(self.factor), :-1] = self.factor
        packed[-1, :-1], packed[-1, -1] = self.mean, self.n
        return packed

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of :meth:`pack`, but for rows of zeros, which stand for nothing; of zeros no samples."""
        rows = packed[:-1, :-1]
        return cls(packed[-1, -1], packed[-1, :-1], rows[rows.any(1)])


def merge_means(n: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean [D] and weighted deviations [S, D] of S shards with counts n [S] and means [S, D].

    The deviations' scatter is what the scatters within the shards lack of that of all samples.
    """
    count, weight = n.sum(0), n[:, None]
    merged = (weight * mean).sum(0) / count.clamp(min=1)
    # Summing the deviations again recovers what rounding took from a mean far from the origin.
    merged = merged + (weight * (mean - merged)).sum(0) / count.clamp(min=1)
    return count, merged, weight.sqrt() * (mean - merged)


def require_finite(
    tensors: Sequence[Tensor],
    names: Sequence[str],
    what: str = "embedding",
    row_is: str = "sample",
    ids: Tensor | None = None,
) -> None:
    """Raise ValueError naming the first model, row and value if any of P tensors [N, ...] is not finite.

    ``ids`` [N] are the rows' names, such as samples' positions in their split; by default their numbers.
    """
    if bool(torch.stack([tensor.sum() for tensor in tensors]).isfinite().all()):
        return
    for tensor, name in zip(tensors, names, strict=True):
        bad = (~tensor.isfinite()).flatten(1)
        if bool(bad.any()):
            row = int(bad.any(1).nonzero()[0])
            value = float(tensor[row].flatten()[bad[row]][0])
            place = row if ids is None else int(ids[row])
            raise ValueError(f"the {what} of model {name!r} is not finite at {row_is} {place}: {value}")


def as_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, where it is; on the CPU if its device has no float64 (Apple's MPS)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def triangle(rows: Tensor) -> Tensor:
    """R [min(N, D), D] of the QR of rows x [N, D]: R^T R = x^T x."""
    factor: Tensor = torch.linalg.qr(rows, mode="r")[1]
    return factor


def triangle_of_blocks(blocks: Iterable[Tensor]) -> Tensor:
    """R [min(N, D), D] of the QR of rows [N, D] that come in blocks, of which one is held at a time."""
    stacked: Tensor | None = None
    for block in blocks:
        rows = block if stacked is None else torch.cat([stacked, block])
        stacked = triangle(rows) if len(rows) > rows.shape[1] else rows
    if stacked is None:
        raise ValueError("there are no rows to factorise")
    return stacked


def _condensed(rows: Tensor) -> Tensor:
    """At most 2 D rows with the scatter of these [R, D]."""
    return rows if len(rows) <= _FACTOR_ROWS * rows.shape[1] else triangle(rows)


def power_of_two(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """The largest power of two up to the largest |x|, over ``dim`` (kept) or of all of x; 1 where all are 0.

    Dividing by it is exact, and leaves nothing whose square overflows or vanishes beside the largest.
    """
    largest: Tensor = torch.linalg.vector_norm(x, torch.inf, dim, keepdim=dim is not None)
    return (largest / (2 * torch.frexp(largest).mantissa)).where(largest > 0, 1.0)


def length(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Euclidean length over ``dim`` for components of any size."""
    scale = power_of_two(x, dim)
    norm: Tensor = torch.linalg.vector_norm(x / scale, dim=dim, keepdim=True)
    return (norm * scale).squeeze(dim)


def median(values: Tensor) -> Tensor:
    """The median of values [L], a scalar; of an even number the mean of the two in the middle."""
    ordered = values.sort().values
    return ordered[(len(values) - 1) // 2] / 2 + ordered[len(values) // 2] / 2


def first_copies(points: Tensor) -> Tensor:
    """For each row of points [n, d] the number of the first row that is equal to it, [n]."""
    place: Tensor = torch.unique(points, dim=0, return_inverse=True)[1]
    numbers = torch.arange(len(points), device=points.device)
    first = numbers.new_full((int(place.max()) + 1,), len(points)).scatter_reduce(0, place, numbers, "amin")
    return first[place]


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 of values [L], equal values sharing the mean of theirs, in float64."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts - 1).double() / 2
    return ranks.index_select(0, place)


def rank_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Spearman's correlation of x [L] and y [L], a float64 scalar; NaN where either is constant.

    Sums of halves of integers are exact, so no order of the entries changes it.
    """
    ranks = torch.stack([average_ranks(x), average_ranks(y)])
    deviations = ranks - (ranks.shape[1] + 1) / 2
    products = deviations @ deviations.T
    return products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()


def rank_tolerance(dtype: torch.dtype, shape: Sequence[int]) -> float:
    """Singular values of a matrix [n, M] below this times the largest are rounding, by the type it was given in.

    For float64 the usual max(n, M) eps. What a network computes in fewer digits carries a few of their roundings,
    which do not add up over samples: 8 eps, for float32 1e-6.
    """
    if dtype.is_floating_point and dtype != torch.float64:
        return _ROUNDINGS * torch.finfo(dtype).eps
    return max(shape) * torch.finfo(torch.float64).eps


class FeatureMoments(NamedTuple):
    """Mean and population variance of each of D dimensions."""

    mean: Tensor  # [D]
    variance: Tensor  # [D]

    @classmethod
    def of(cls, embeddings: Tensor) -> Self:
        """Moments over the rows of the embeddings [N, D], in float64."""
        variance, mean = torch.var_mean(as_float64(embeddings), dim=0, correction=0)
        return cls(mean, variance)

    def live(self, eps: float = DEAD) -> Tensor:
        """Which dimensions vary, bool [D]: the others hold rounding errors, which no z-score must blow up.

        A dimension is dead if it is constant to the rounding of its own mean, or if it varies by at most ``eps`` times
        as much as the median of those that vary. How large the means are, and how wide a few dimensions, does not
        count, nor does a common factor.
        """
        spread = self.variance.sqrt()
        varies = spread > ROUNDING * self.mean.abs()
        if not bool(varies.any()):
            return varies
        return varies & (spread > eps * spread[varies].median())

    def inverse_std(self, eps: float = DEAD) -> Tensor:
        """1 / standard deviation [D]; 0 where the dimension is dead, which a z-score therefore sets to 0."""
        return torch.where(self.live(eps), self.variance, torch.inf).rsqrt()


def row_centre(embeddings: Tensor) -> Tensor:
    """Each row [N, D] minus the mean of its own components."""
    wide = at_least_float32(embeddings)
    return wide - wide.mean(-1, keepdim=True)


def row_z_score(embeddings: Tensor) -> Tensor:
    """Each row [N, D] with mean 0 and population standard deviation 1, so norm sqrt(D); a constant row becomes 0."""
    wide = at_least_float32(embeddings)
    std, mean = torch.std_mean(wide, dim=-1, correction=0, keepdim=True)
    return (wide - mean) / (std + ROW_EPS)


def unit_length(vectors: Tensor) -> Tensor:
    """Vectors [..., D] divided by their lengths, however short or long those are in their dtype; zero stays zero."""
    return F.normalize(_near_one(vectors), dim=-1)


def cosines(u: Tensor, v: Tensor) -> Tensor:
    """The cosine of the angle between the vectors [..., D] of u and v, whatever their lengths; 0 where one is zero."""
    return F.cosine_similarity(_near_one(u), _near_one(v), dim=-1)


def _near_one(vectors: Tensor) -> Tensor:
    """Each vector divided by the power of two at or below its largest component, which rounds nothing.

    The squares then neither underflow nor overflow, and torch's epsilons of 1e-12 and 1e-8 are below every length.
    """
    largest = vectors.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / largest.log2().floor().exp2()


def at_least_float32(tensor: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Inside the block neither autocast nor TF32 nor bfloat16 products stand in for float32 on the device.

    Trainings set `torch.set_float32_matmul_precision` for the whole process, and callbacks may run under autocast:
    near neighbours would be told apart by the first three digits of their distances.
    """
    with torch.autocast(torch.device(device).type, enabled=False), _plain_products():
        yield


@contextmanager
def _plain_products() -> Iterator[None]:
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch 2.8
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    # The getter of the older form raises where the newer one was used.
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    asked = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, asked, strict=True):
            backend.fp32_precision = precision


@contextmanager
def threads_for(elements: int) -> Iterator[None]:
    """One thread of torch for the block where the largest tensor is small, as many as before otherwise.

    Hundreds of small operations gain little from a second thread. On a busy machine each of them waits until both
    have run: ten times as long in all, and by chance.
    """
    before = torch.get_num_threads()
    if elements <= _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
