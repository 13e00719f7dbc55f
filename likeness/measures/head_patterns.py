"""Which predictions a head's label vectors allow over all features: sign patterns and rankings of the logits.

A sigmoid head can answer with the sign vectors of W x, a softmax head rank its labels as W x does. Both sets are
decided by the signs of maximal minors: of W, and of the differences of its rows (the braid arrangement). Nielsen &
Grivas (arXiv 2603.29488). Features do not scale a bias, so its patterns are those of [W, b] (x, s) with s > 0; this
case is derived, not in the paper.
"""

import math
from collections.abc import Iterator
from itertools import combinations, islice

import torch
from torch import Tensor

from likeness.measures.arrangements import (
    MAX_REGIONS,
    TooManyPatternsError,
    generic_affine_regions,
    generic_regions,
    regions,
    stirling,
)
from likeness.measures.moments import as_float64

MAX_MINORS = 2_000_000
ZERO = 1e-10  # of a minor relative to the product of its rows' lengths
_CHUNK = 2**16  # minors at a time
_RANK_TOLERANCE = 1e-10


def sign_patterns(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The sign vectors of W x + b over all x off the borders, int8 [R, K], from g [K, M] and bias [K].

    Raises as ``likeness.measures.arrangements.regions`` does.
    """
    rows = _homogeneous(g, bias)
    return (_points(rows, bias, max_regions) @ rows.T).sign().to(torch.int8)


def rankings(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The orders in which W x + b can rank the labels, ascending, int64 [R, K], from g [K, M] and bias [K].

    Labels whose vectors and biases are equal are always tied; they stand in the order of their indices. Raises as
    ``likeness.measures.arrangements.regions`` does.
    """
    rows = _homogeneous(g, bias)
    logits = _points(differences(rows), bias, max_regions) @ rows.T
    return logits.argsort(dim=1, stable=True)


def generic_sign_count(labels: int, dim: int, bias: bool = False) -> int:
    """Sign patterns of K label vectors in general position in M dimensions, the most there can be."""
    return generic_affine_regions(labels, dim) if bias else generic_regions(labels, dim)


def generic_ranking_count(labels: int, dim: int, bias: bool = False) -> int:
    """Rankings of K label vectors in general position in M dimensions, the most there can be; K! for M >= K - 1.

    Cover 1967: Q(n+1, d) = Q(n, d) + n Q(n, d-1), which sums Stirling numbers of every second order; with a bias
    of every order, derived.
    """
    if labels == 1:
        return 1
    orders = range(dim + 1) if bias else range(dim - 1, -1, -2)
    return (1 if bias else 2) * sum(stirling(labels, labels - i) for i in orders if i < labels)


def differences(g: Tensor) -> Tensor:
    """g(i) - g(j) for i < j in lexicographic order, [K(K-1)/2, M]: the braid matrix times W."""
    first, second = torch.triu_indices(len(g), len(g), 1, device=g.device)
    return as_float64(g)[first] - as_float64(g)[second]


def same_sign_pattern(g: Tensor, other: Tensor, zero: float = ZERO) -> bool:
    """Whether two heads [K, M] and [K, M'] without bias allow the same sign vectors of their logits.

    Raises ValueError for different K, TooManyPatternsError as :func:`chirotope` does.
    """
    if len(g) != len(other):
        raise ValueError(f"sign patterns are of the same labels, but the heads are {[*g.shape]} and {[*other.shape]}")
    first, second = chirotope(g, zero), chirotope(other, zero)
    return torch.equal(first, second.to(first.device))


def same_ranking_pattern(g: Tensor, other: Tensor, zero: float = ZERO) -> bool:
    """Whether two heads [K, M] and [K, M'] without bias allow the same rankings of their labels.

    Raises as :func:`same_sign_pattern` does.
    """
    return same_sign_pattern(differences(g), differences(other), zero)


def chirotope(g: Tensor, zero: float = ZERO) -> Tensor:
    """Signs of the maximal minors of g [K, M], int8 [C(K, r)] over the r-subsets of rows in lexicographic order.

    r is the rank of g. Minors are relative to the product of their rows' lengths, so that positive scaling of rows
    changes nothing, and count as zero up to ``zero``; a common sign is fixed by making the first other one
    positive. The oriented matroid that this is determines the sign patterns. Raises TooManyPatternsError for more
    than 2,000,000 minors.
    """
    minors = maximal_minors(g)
    signs = minors.sign() * (minors.abs() > zero)
    others = signs[signs != 0]
    return (signs * (others[0] if len(others) else 1)).to(torch.int8)


def maximal_minors(g: Tensor) -> Tensor:
    """The r x r minors of g [K, M] of rank r, relative to the product of their rows' lengths, [C(K, r)].

    Of a head with r < M they are taken in an orthonormal basis of the space that its rows span, so their common
    sign is arbitrary. Raises TooManyPatternsError for more than 2,000,000.
    """
    rows = _spanning(as_float64(g))
    labels, rank = rows.shape
    if math.comb(labels, rank) > MAX_MINORS:
        raise TooManyPatternsError(
            f"{labels} rows of rank {rank} have {math.comb(labels, rank):,} maximal minors, and at most "
            f"{MAX_MINORS:,} are computed"
        )
    length = rows.norm(dim=1, keepdim=True)
    units = rows / length.where(length > 0, 1.0)
    return torch.cat([torch.linalg.det(units[subset]) for subset in _subsets(labels, rank)])


def vectors_of_gram(gram: Tensor) -> Tensor:
    """Vectors [K, r] with these inner products (or cosines) [K, K] of rank r, up to an orthogonal map.

    Their minors are those of the original vectors up to a common factor, so cosines determine sign patterns. The
    rounding of a square root remains: compare them with ``zero=1e-7``.
    """
    eigenvalues, vectors = torch.linalg.eigh(as_float64(gram))
    kept = eigenvalues > _RANK_TOLERANCE * eigenvalues.max()
    factor: Tensor = vectors[:, kept] * eigenvalues[kept].sqrt()
    return factor


def _homogeneous(g: Tensor, bias: Tensor | None) -> Tensor:
    """[W, b] on the CPU, or W."""
    rows = as_float64(g).cpu()
    return rows if bias is None else torch.column_stack([rows, as_float64(bias).cpu()])


def _points(normals: Tensor, bias: Tensor | None, max_regions: int) -> Tensor:
    """A point in each region; with a bias only in those with s > 0."""
    if bias is None:
        return regions(normals, max_regions)
    infinity = torch.zeros_like(normals[:1])
    infinity[0, -1] = 1
    # Opposite regions come in pairs, of which one has s > 0.
    points = regions(torch.cat([infinity, normals]), 2 * max_regions)
    return points[points[:, -1] > 0]


def _spanning(rows: Tensor) -> Tensor:
    """The rows [K, M] themselves if their rank is M, else in r coordinates [K, r]."""
    left, singular, _ = torch.linalg.svd(rows, full_matrices=False)
    rank = int((singular > _RANK_TOLERANCE * singular.max()).sum())
    return rows if rank == rows.shape[1] else left[:, :rank] * singular[:rank]


def _subsets(labels: int, size: int) -> Iterator[Tensor]:
    """All subsets of a size, in lexicographic order and in chunks [B, size]."""
    subsets = combinations(range(labels), size)
    while chunk := list(islice(subsets, _CHUNK)):
        yield torch.tensor(chunk, dtype=torch.long)
