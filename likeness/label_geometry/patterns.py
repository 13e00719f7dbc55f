"""Which predictions a head's label vectors allow over all features: sign patterns and rankings of the logits.

A sigmoid head can answer with the sign vectors of W x, a softmax head rank its labels as W x does. Both sets are
decided by the signs of maximal minors: of W, and of the differences of its rows (the braid arrangement). Nielsen &
Grivas (arXiv 2603.29488). Features do not scale a bias, so its patterns are those of [W, b] (x, s) with s > 0; this
case is derived, not in the paper.

The regions into which hyperplanes through the origin cut space, one point in each, and how many there can be.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import combinations, islice, pairwise

import numpy as np
import torch
from torch import Tensor

from likeness.numerics import as_float64

PARALLEL = 1e-9  # sine of the angle below which two hyperplanes are one; relative length below which a normal is zero
MAX_REGIONS = 100_000


class TooManyPatternsError(ValueError):
    """An enumeration would exceed its cap; the message says by how much."""


def generic_regions(hyperplanes: int, dim: int) -> int:
    """Regions of hyperplanes through the origin in general position, the most there can be: 2 sum C(n-1, i), i < M.

    Schlaefli; Cover 1965.
    """
    return 2 * sum(math.comb(hyperplanes - 1, i) for i in range(dim)) if hyperplanes and dim else 1


def generic_affine_regions(hyperplanes: int, dim: int) -> int:
    """Regions of hyperplanes anywhere in general position: sum C(n, i), i <= M."""
    return sum(math.comb(hyperplanes, i) for i in range(dim + 1))


@cache
def stirling(n: int, k: int) -> int:
    """Unsigned Stirling number of the first kind: permutations of n labels with k cycles."""
    if n == k:
        return 1
    return 0 if not 0 < k < n else stirling(n - 1, k - 1) + (n - 1) * stirling(n - 1, k)


def regions(normals: Tensor, max_regions: int = MAX_REGIONS) -> Tensor:
    """A point inside each region of the hyperplanes normals @ x = 0, [R, d], from normals [n, d].

    Zero normals and repeated hyperplanes do not count. Computed on the CPU by adding one hyperplane after the
    other: it cuts exactly those regions that stand among the regions of the earlier hyperplanes' traces in it
    (deletion and restriction). Raises TooManyPatternsError, before any work, if hyperplanes in general position
    would have more than ``max_regions``, and ArithmeticError if the hyperplanes are degenerate within rounding.
    """
    distinct = _distinct(as_float64(normals).cpu().numpy())
    basis = _span(distinct)
    most = generic_regions(len(distinct), basis.shape[1])
    if most > max_regions:
        raise TooManyPatternsError(
            f"{len(distinct)} hyperplanes in {basis.shape[1]} dimensions have up to {most:,} regions, and at most "
            f"{max_regions:,} are enumerated"
        )
    return torch.from_numpy(_regions(_distinct(distinct @ basis)) @ basis.T)


def _regions(normals: np.ndarray) -> np.ndarray:
    """:func:`regions` of distinct unit normals [n, d]."""
    count, dim = normals.shape
    if count == 0 or dim == 0:
        return np.zeros((1, dim))
    if dim == 1:
        return np.array([[1.0], [-1.0]])
    if dim == 2:
        return _sectors(normals)
    points = np.zeros((1, dim))
    for index, normal in enumerate(normals):
        points = _cut(points, normals[:index], normal)
    return points


def _sectors(normals: np.ndarray) -> np.ndarray:
    """Unit vectors in the middle of the sectors between lines in the plane."""
    lines = np.sort(np.arctan2(normals[:, 0], -normals[:, 1]) % np.pi)
    borders = np.concatenate([lines, lines + np.pi, lines[:1] + 2 * np.pi])
    middles = np.array([(low + high) / 2 for low, high in pairwise(borders)])
    return np.stack([np.cos(middles), np.sin(middles)], axis=1)


def _cut(points: np.ndarray, earlier: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The points [R, d] of all regions of ``earlier`` [n, d], with those that a new hyperplane cuts in two."""
    basis = _complement(normal)
    inside = _regions(_distinct(earlier @ basis)) @ basis.T
    where = {key: row for row, key in enumerate(_keys(earlier, points))}
    try:
        cut = [where[key] for key in _keys(earlier, inside)]
    except KeyError as error:
        raise ArithmeticError("the hyperplanes are degenerate within rounding: their regions cannot be told") from error
    step = _half_way(earlier, inside, normal)[:, None] * normal
    return np.concatenate([np.delete(points, cut, axis=0), inside + step, inside - step])


def _half_way(earlier: np.ndarray, points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """How far each point [R] may go along ``normal`` and stay well inside its region of ``earlier``."""
    if not len(earlier):
        return np.ones(len(points))
    with np.errstate(divide="ignore"):
        steps = np.abs(points @ earlier.T) / np.abs(earlier @ normal)
    half: np.ndarray = np.minimum(0.5 * steps.min(axis=1), 1.0)
    return half


def _keys(normals: np.ndarray, points: np.ndarray) -> list[bytes]:
    """On which side of each hyperplane each point lies, as something to look up."""
    return [row.tobytes() for row in np.packbits(points @ normals.T > 0, axis=1)]


def _complement(normal: np.ndarray) -> np.ndarray:
    """An orthonormal basis [d, d-1] of the hyperplane."""
    return np.asarray(np.linalg.svd(normal[None])[2][1:].T)


def _span(normals: np.ndarray) -> np.ndarray:
    """An orthonormal basis [d, r] of what the unit normals [n, d] span."""
    _, singular, right = np.linalg.svd(normals, full_matrices=False)
    return np.asarray(right[singular > PARALLEL * singular.max(initial=0.0)].T)


def _distinct(normals: np.ndarray) -> np.ndarray:
    """Unit normals [n', d] of the different hyperplanes among [n, d]."""
    lengths = np.linalg.norm(normals, axis=1)
    kept = lengths > PARALLEL * lengths.max(initial=0.0)
    units = normals[kept] / lengths[kept, None]
    chosen: list[np.ndarray] = []
    for unit in units:
        others = np.array(chosen).reshape(len(chosen), normals.shape[1])
        sines = np.linalg.norm(unit - (others @ unit)[:, None] * others, axis=1)
        if sines.min(initial=1.0) > PARALLEL:
            chosen.append(unit)
    return np.array(chosen).reshape(len(chosen), normals.shape[1])


MAX_MINORS = 2_000_000
ZERO = 1e-10  # of a minor relative to the product of its rows' lengths
_CHUNK = 2**16  # minors at a time
_RANK_TOLERANCE = 1e-10


def sign_patterns(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The sign vectors of W x + b over all x off the borders, int8 [R, K], from g [K, M] and bias [K].

    Raises as ``likeness.label_geometry.patterns.regions`` does.
    """
    rows = _homogeneous(g, bias)
    return (_points(rows, bias, max_regions) @ rows.T).sign().to(torch.int8)


def rankings(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The orders in which W x + b can rank the labels, ascending, int64 [R, K], from g [K, M] and bias [K].

    Labels whose vectors and biases are equal are always tied; they stand in the order of their indices. Raises as
    ``likeness.label_geometry.patterns.regions`` does.
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
