"""The joint second moments of several models' representations, streamed in float64.

Everything on the label side of softmax models, and every correlation between their representations, is a function of
the mean and the scatter over inputs of a(x) = [f_1; Z_1; ...; f_P; Z_P], where Z is the log-partition. Their size
depends neither on the number of inputs nor on the number of labels.

Of the scatter a factor is kept. What is equal in equivalent models is then equal to 1e-15 of its length, where the
scatter itself, of squares, would leave 1e-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.numerics import as_float64, merge_means, triangle

_ROWS = 2  # of a factor, in units of D: with room for new ones, each row takes part in few factorisations


class FactoredMoments(NamedTuple):
    """Count, mean and a factor of the centred scatter of D-dimensional samples, in float64."""

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
        """[D, D]."""
        return self.factor.T @ self.factor

    @property
    def root(self) -> Tensor:
        """[min(R, D), D], a factor of the covariance with N - 1 in the denominator. ValueError for N < 2."""
        if self.n < 2:
            raise ValueError(f"a variance over inputs needs two of them, but there are {int(self.n)}")
        rows = self.factor if len(self.factor) <= len(self.mean) else triangle(self.factor)
        return rows / (self.n - 1).sqrt()

    def pack(self) -> Tensor:
        """One matrix [2 D + 1, D + 1], whatever R: the factor and zeros, then the mean with the count beside it."""
        dim = len(self.mean)
        packed = self.mean.new_zeros(_ROWS * dim + 1, dim + 1)
        packed[: len(self.factor), :-1] = self.factor
        packed[-1, :-1], packed[-1, -1] = self.mean, self.n
        return packed

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of :meth:`pack`, but for rows of zeros, which stand for nothing; of zeros no samples."""
        rows = packed[:-1, :-1]
        return cls(packed[-1, -1], packed[-1, :-1], rows[rows.any(1)])


@dataclass(frozen=True)
class JointMoments:
    """Moments of a(x) = [f_1; Z_1; ...; f_P; Z_P] over inputs, with the layout of its P models.

    ``dims`` are the models' representation dimensions M_i; D = sum of (M_i + 1). ``names`` are for messages.
    """

    moments: FactoredMoments
    dims: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, embeddings: Sequence[Tensor], log_partitions: Tensor, names: Sequence[str]) -> Self:
        """Of f_i [N, M_i] and Z [P, N]."""
        moments = FactoredMoments.of(joint_features(embeddings, log_partitions))
        return cls(moments, tuple(f.shape[1] for f in embeddings), tuple(names))

    def embedding(self, model: int) -> slice:
        """Where f of a model lies among the D features, without the constant coordinate of a biased head."""
        start = self._starts[model]
        return slice(start, start + self.bare_dim(model))

    def bare_dim(self, model: int) -> int:
        """M_i without the constant coordinate of a biased head."""
        return self.dims[model] - self.has_bias(model)

    def log_partition(self, model: int) -> int:
        """Where Z of a model lies among the D features."""
        return self._starts[model] + self.dims[model]

    def has_bias(self, model: int) -> bool:
        """Whether the last of several coordinates of f was 1 on every input: it carries a head's bias."""
        last = self.log_partition(model) - 1
        _, mean, factor = self.moments
        return self.dims[model] > 1 and bool((mean[last] == 1) & ~factor[:, last].any())

    @property
    def _starts(self) -> list[int]:
        return [0, *accumulate(dim + 1 for dim in self.dims)]


def joint_features(embeddings: Sequence[Tensor], log_partitions: Tensor) -> Tensor:
    """Rows [f_1; Z_1; ...; f_P; Z_P], [N, D] in float64, from f_i [N, M_i] and Z [P, N]."""
    models = zip(embeddings, log_partitions, strict=True)
    return torch.cat([torch.column_stack([as_float64(f), z]) for f, z in models], dim=1)


def _condensed(rows: Tensor) -> Tensor:
    """At most 2 D rows with the scatter of these [R, D]."""
    return rows if len(rows) <= _ROWS * rows.shape[1] else triangle(rows)
