"""Mean and scatter over inputs of a(x) = [f_1; Z_1; ...; f_P; Z_P], the embeddings and log-partitions of P models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from likeness.numerics import FactoredMoments, as_float64, length, triangle
from likeness.spans import CONSTANT, Span, coarsest, span_tolerance, spanned_axes, spanned_rank


@dataclass(frozen=True)
class JointMoments:
    """Moments of a(x) = [f_1; Z_1; ...; f_P; Z_P] over inputs, with the layout of its P models.

    ``dims`` are the models' representation dimensions M_i; D = sum of (M_i + 1). ``names`` are for messages, and
    ``dtype`` is the type that the embeddings came in, which says what of them is rounding.
    """

    moments: FactoredMoments
    dims: tuple[int, ...]
    names: tuple[str, ...]
    dtype: torch.dtype = torch.float64

    @classmethod
    def of(cls, embeddings: Sequence[Tensor], log_partitions: Tensor, names: Sequence[str]) -> Self:
        """Of f_i [N, M_i] and Z [P, N]."""
        moments = FactoredMoments.of(joint_features(embeddings, log_partitions))
        return cls(moments, tuple(f.shape[1] for f in embeddings), tuple(names), coarsest(embeddings))

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
        return self._biased[model]

    @cached_property
    def _biased(self) -> tuple[bool, ...]:
        _, mean, factor = self.moments
        last = [self.log_partition(model) - 1 for model in range(len(self.dims))]
        constant = ((mean[last] == 1) & ~factor[:, last].any(0)).tolist()
        return tuple(dim > 1 and own for dim, own in zip(self.dims, constant, strict=True))

    @cached_property
    def root(self) -> Tensor:
        """[R, D], of which the covariance over inputs is root^T root."""
        return self.moments.root

    def functions(self) -> list[tuple[Tensor, Tensor]]:
        """Of each model f(x) as functions of the input, [R, M_i], biases left out, and the means of all, [M_i]."""
        found = []
        for model, (start, dim) in enumerate(zip(self._starts, self.dims, strict=False)):
            mean = self.moments.mean[start : start + dim]
            bare = self.bare_dim(model)
            found.append((_live(self.root[:, self.embedding(model)], mean[:bare]), mean))
        return found

    def span(self, model: int) -> "Span":
        """What the embeddings of a model span, around their mean."""
        block = self.embedding(model)
        n, mean, factor = self.moments
        tolerance = span_tolerance(None, self.dtype, (int(n), block.stop - block.start))
        return Span.of(factor[:, block], n.sqrt() * mean[block].abs(), tolerance)

    def span_basis(self, model: int, tau: float | None = None) -> Tensor | None:
        """An orthonormal basis [M, r] of what the embeddings of a model span, 0 < r < M; None where they span all.

        None too for N <= M, where no more can be spanned, and for constant embeddings; ``tau`` as in
        :func:`likeness.spans.reduce_to_span`.
        """
        n, mean, factor = self.moments
        block, dim = self.embedding(model), self.bare_dim(model)
        if n <= dim:
            return None
        rows, size = triangle(factor[:, block]), n.sqrt() * mean[block].abs()
        tau = span_tolerance(tau, self.dtype, (int(n), dim))
        if spanned_rank(rows, size, tau) == dim:
            return None
        basis = spanned_axes(rows, size, tau)
        return basis if 0 < basis.shape[1] < dim else None

    def in_bases(self, bases: Sequence[Tensor | None]) -> "JointMoments":
        """Of [f_i B_i, 1] in the place of the f_i that have a basis B_i [M_i, r_i], less their means."""
        _, mean, factor = self.moments
        means: list[Tensor] = []
        factors: list[Tensor] = []
        dims: list[int] = []
        for model, basis in enumerate(bases):
            whole, z = slice(self._starts[model], self.log_partition(model)), [self.log_partition(model)]
            if basis is None:
                means, factors = [*means, mean[whole], mean[z]], [*factors, factor[:, whole], factor[:, z]]
                dims.append(self.dims[model])
                continue
            spanned = factor[:, self.embedding(model)] @ basis
            rank = spanned.shape[1]
            means += [mean.new_zeros(rank), mean.new_ones(1), mean[z]]
            factors += [spanned, spanned.new_zeros(len(spanned), 1), factor[:, z]]
            dims.append(rank + 1)
        moments = FactoredMoments(self.moments.n, torch.cat(means), torch.cat(factors, dim=1))
        return JointMoments(moments, tuple(dims), self.names, self.dtype)

    @property
    def _starts(self) -> list[int]:
        return [0, *accumulate(dim + 1 for dim in self.dims)]


def joint_features(embeddings: Sequence[Tensor], log_partitions: Tensor) -> Tensor:
    """Rows [f_1; Z_1; ...; f_P; Z_P], [N, D] in float64, from f_i [N, M_i] and Z [P, N]."""
    models = zip(embeddings, log_partitions, strict=True)
    return torch.cat([torch.column_stack([as_float64(f), z]) for f, z in models], dim=1)


def _live(root: Tensor, mean: Tensor) -> Tensor:
    """The coordinates [R, M] of functions with means [M], without what rounding leaves of the constant ones."""
    return root * (length(root, 0) > CONSTANT * mean.abs())
