"""Measures on the samples themselves: two representations [N, M] and [N, M'] of the same N inputs.

Each such measure is in two steps. ``prepare`` computes once what the measure needs of one model: features, or a
matrix [N, N] of relations between samples (similarities, distances, ranks). ``compare`` takes two of these to a
number. All pairs of P models then cost P preparations, and the permutation null, which reorders what was prepared,
costs two.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from likeness.numerics import as_float64, power_of_two, require_finite
from likeness.similarity.pairwise import PairValues
from likeness.similarity.undefined import UndefinedError

S = TypeVar("S")
Prepare = Callable[[Tensor, str], S]
"""From a representation [N, M] and the name that its errors mention."""
Compare = Callable[[S, S], Tensor]
"""To a scalar; to [B] where the second argument holds B reorderings."""

_CONSTANT = 16 * torch.finfo(torch.float64).eps  # what centring leaves of a constant, relative to its size


def compare_two(prepare: Prepare[S], compare: Compare[S], x: Tensor, y: Tensor) -> Tensor:
    """A measure of x [N, M] and y [N, M']. Raises ValueError naming both shapes if N differs."""
    require_same_samples([x, y], ("x", "y"))
    return compare(prepare(x, "x"), prepare(y, "y"))


def compare_all(
    prepare: Prepare[S], compare: Compare[S], samples: Sequence[Tensor], names: Sequence[str], symmetric: bool
) -> PairValues:
    """A measure of all pairs of P representations [N, M_i]; half the work where it is symmetric.

    A model for which the measure is undefined leaves the pairs of the others as they are.
    """
    require_same_samples(samples, names)
    prepared, reasons = prepare_all(prepare, samples, names)
    count = len(samples)
    values = torch.full((count, count), torch.nan, dtype=torch.float64, device=samples[0].device)
    undefined: dict[tuple[int, int], str] = {}
    for i in range(count):
        for j in range(i if symmetric else 0, count):
            reason = reasons.get(i) or reasons.get(j)
            try:
                if reason is None:
                    values[i, j] = compare(prepared[i], prepared[j])
            except UndefinedError as error:
                reason = str(error)
            if reason is not None:
                undefined[i, j] = reason
            if symmetric:
                values[j, i] = values[i, j]
                undefined |= {(j, i): reason} if reason is not None else {}
    return PairValues(values, undefined, {})


def prepare_all(
    prepare: Prepare[S], samples: Sequence[Tensor], names: Sequence[str]
) -> tuple[dict[int, S], dict[int, str]]:
    """What is prepared of each model, by number, and why not where the measure is undefined for it."""
    prepared: dict[int, S] = {}
    reasons: dict[int, str] = {}
    for model, (x, name) in enumerate(zip(samples, names, strict=True)):
        try:
            prepared[model] = prepare(as_float64(x), name)
        except UndefinedError as error:
            reasons[model] = str(error)
    return prepared, reasons


def centred(x: Tensor, name: str, at_least: int = 2) -> Tensor:
    """x [N, M] in float64 less its mean over samples, in units of a power of two that makes its largest entry about 1.

    Raises ValueError naming the shape if x is no matrix, or the sample that is not finite; UndefinedError if there
    are fewer than ``at_least`` samples or x is the same for all.
    """
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"representation {name!r} must be [samples, dimensions], but its shape is {list(x.shape)}")
    if len(x) < at_least:
        raise UndefinedError(f"this measure needs at least {at_least} samples, but {name!r} is {list(x.shape)}")
    x = as_float64(x)
    require_finite([x], [name])
    x = x / power_of_two(x)
    offset = x - x.mean(0)
    if bool(offset.abs().max() <= _CONSTANT * x.abs().max()):
        raise UndefinedError(f"representation {name!r} of shape {list(x.shape)} is the same for every sample")
    return offset / power_of_two(offset)


def compact(x: Tensor) -> Tensor:
    """Rows with the same inner products as those of x [N, M], in at most N dimensions: [N, min(N, M)]."""
    if x.shape[1] <= x.shape[0]:
        return x
    triangle: Tensor = torch.linalg.qr(x.T, mode="r")[1]
    return triangle.T


def reorder_samples(x: Tensor, orders: Tensor) -> Tensor:
    """x [N, M] with its samples in each of B orders [B, N]: [B, N, M]."""
    return x[orders]


def require_same_samples(samples: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise ValueError naming the shapes of P representations [N_i, M_i] if N differs."""
    if len({x.shape[:1] for x in samples}) > 1:
        shapes = ", ".join(f"{name!r} is {list(x.shape)}" for x, name in zip(samples, names, strict=True))
        raise ValueError(f"representations of the same samples are compared, but {shapes}")


def from_pairs(values: Tensor, n: int) -> Tensor:
    """The symmetric matrix [N, N] of a value for each pair i < j, in row-major order, with a zero diagonal."""
    matrix = values.new_zeros(n, n)
    matrix[tuple(torch.triu_indices(n, n, offset=1, device=values.device))] = values
    return matrix + matrix.T


def unit_norm(matrix: Tensor, name: str, what: str) -> Tensor:
    """A matrix over its Frobenius norm. Raises UndefinedError, with the words ``what``, if that is 0."""
    norm: Tensor = torch.linalg.matrix_norm(matrix)
    if bool(norm == 0):
        raise UndefinedError(
            f"{what} of the {len(matrix)} samples of {name!r} are all equal, so nothing can be compared"
        )
    return matrix / norm


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of matrices [N, N] and [..., N, N] of unit norm, [...], in [-1, 1]."""
    return (b.flatten(-2) @ a.flatten()).clamp(-1, 1)


def reorder_relations(matrix: Tensor, orders: Tensor) -> Tensor:
    """A matrix [N, N] with the samples in each of B orders [B, N]: [B, N, N]."""
    return torch.stack([matrix.index_select(1, order).index_select(0, order) for order in orders])
