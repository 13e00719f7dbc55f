"""Which predictions a head's label vectors allow over all features: sign patterns and rankings of the logits.

A sigmoid head can answer with the sign vectors of W x, a softmax head rank its labels as W x does: one answer for each
region into which hyperplanes through the origin cut the space of features, with the rows of W as normals or, for
rankings, the differences of its rows (the braid arrangement). Nielsen & Grivas (arXiv 2603.29488). Features do not
scale a bias, so its patterns are those of [W, b] (x, s) with s > 0; this case is derived, not in the paper.

The lengths of the rows play no part. Hyperplanes coincide where their directions agree within the rounding of float64,
which is followed through every projection; where it leaves open whether they do, ArithmeticError says so. The signs of
maximal minors, in the last part, decide whether two heads allow the same patterns.
"""

import math
from collections.abc import Iterator
from functools import cache
from itertools import combinations, islice, pairwise
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from likeness.numerics import as_float64

MAX_REGIONS = 100_000
MAX_MINORS = 2_000_000
ZERO = 1e-10  # of a minor relative to the product of its rows' lengths
_RANK_TOLERANCE = 1e-10  # of singular values relative to the largest
_CHUNK = 2**16  # minors at a time
_ROUNDING = 2.0**-50  # of a unit normal
_DEGENERATE = "the hyperplanes are degenerate within rounding: their regions cannot be told"
_COINCIDE, _APART = 8.0, 80.0  # sines, in units of the two normals' rounding, up to and from which it is certain


class TooManyPatternsError(ValueError):
    """An enumeration would exceed its cap; the message says by how much."""


def sign_patterns(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The sign vectors of W x + b over all x off the borders, int8 [R, K], from g [K, M] and bias [K].

    Raises as :func:`regions` does.
    """
    return torch.from_numpy(_signs(_homogeneous(g, bias), bias is not None, max_regions))


def rankings(g: Tensor, bias: Tensor | None = None, max_regions: int = MAX_REGIONS) -> Tensor:
    """The orders in which W x + b can rank the labels, ascending, int64 [R, K], from g [K, M] and bias [K].

    Labels whose vectors and biases are equal are always tied; they stand in the order of their indices. Raises as
    :func:`regions` does.
    """
    signs = _signs(differences(_homogeneous(g, bias)), bias is not None, max_regions)
    beaten = np.zeros((len(g), len(signs)), dtype=np.int64)  # by each label, from the differences' signs
    first, second = np.triu_indices(len(g), 1)
    np.add.at(beaten, first, (signs > 0).T)
    np.add.at(beaten, second, (signs < 0).T)
    return torch.from_numpy(beaten.T.copy()).argsort(dim=1, stable=True)


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
    would have more than ``max_regions``, ArithmeticError if the hyperplanes are degenerate within rounding, and
    ValueError for a normal that is not finite.
    """
    rows = as_float64(normals).cpu()
    if not bool(rows.isfinite().all()):
        raise ValueError("a label vector or a bias is not finite")
    hyperplanes = _Hyperplanes.of(rows.numpy()).distinct()
    units = hyperplanes.units
    singular = np.linalg.svd(units, compute_uv=False)
    rank = int((singular > _RANK_TOLERANCE * singular.max(initial=0.0)).sum())
    most = generic_regions(len(units), rank)
    if most > max_regions:
        raise TooManyPatternsError(
            f"{len(units)} hyperplanes in {rank} dimensions have up to {most:,} regions, and at most "
            f"{max_regions:,} are enumerated"
        )
    points = _regions(hyperplanes)
    if len(set(_sides(units, points))) < len(points):
        raise ArithmeticError(_DEGENERATE)
    return torch.from_numpy(points)


def differences(g: Tensor) -> Tensor:
    """g(i) - g(j) for i < j in lexicographic order, [K(K-1)/2, M]: the braid matrix times W."""
    first, second = torch.triu_indices(len(g), len(g), 1, device=g.device)
    return as_float64(g)[first] - as_float64(g)[second]


def _homogeneous(g: Tensor, bias: Tensor | None) -> Tensor:
    """[W, b] on the CPU, or W."""
    rows = as_float64(g).cpu()
    return rows if bias is None else torch.column_stack([rows, as_float64(bias).cpu()])


def _signs(normals: Tensor, bias: bool, max_regions: int) -> np.ndarray:
    """The sign of every normal [n, d] in each region, int8 [R, n]; with a bias in the regions with s > 0."""
    if bias:  # s = 0 is a hyperplane too, so that opposite regions come in pairs, one of them with s > 0
        infinity = torch.zeros(1, normals.shape[1], dtype=normals.dtype)
        infinity[0, -1] = 1
        points = regions(torch.cat([infinity, normals]), 2 * max_regions)
        points = points[points[:, -1] > 0]
    else:
        points = regions(normals, max_regions)
    signs: np.ndarray = np.sign(points.numpy() @ _unit_rows(normals.numpy()).T).astype(np.int8)
    return signs


class _Hyperplanes(NamedTuple):
    """Unit normals and how far each may be off through rounding."""

    units: np.ndarray  # [n, d]
    rounding: np.ndarray  # [n]

    @classmethod
    def of(cls, normals: np.ndarray) -> Self:
        """The hyperplanes of the normals [n, d] that are not zero."""
        normals = normals[normals.any(axis=1)]
        return cls(_unit_rows(normals), np.full(len(normals), _ROUNDING))

    def distinct(self) -> Self:
        """The different ones; raises ArithmeticError where rounding leaves open which are."""
        kept: list[int] = []
        for index, unit in enumerate(self.units):
            others = self.units[kept]
            sines = np.linalg.norm(unit - (others @ unit)[:, None] * others, axis=1)
            in_roundings = sines / (self.rounding[kept] + self.rounding[index])
            if ((in_roundings > _COINCIDE) & (in_roundings < _APART)).any():
                raise ArithmeticError(_DEGENERATE)
            if not (in_roundings <= _COINCIDE).any():
                kept.append(index)
        return type(self)(self.units[kept], self.rounding[kept])

    def traces(self, count: int) -> tuple["_Hyperplanes", np.ndarray]:
        """The distinct traces of the first ``count`` hyperplanes in the next one, and a basis [d, d-1] of it."""
        basis = np.linalg.svd(self.units[count][None])[2][1:].T
        within = self.units[:count] @ basis
        lengths = np.linalg.norm(within, axis=1)
        rounding = (self.rounding[:count] + self.rounding[count] + _ROUNDING) / lengths
        return _Hyperplanes(within / lengths[:, None], rounding).distinct(), basis


def _regions(hyperplanes: _Hyperplanes) -> np.ndarray:
    """A point in each region of distinct hyperplanes, [R, d]."""
    count, dim = hyperplanes.units.shape
    if count == 0 or dim == 0:
        return np.zeros((1, dim))
    if dim == 1:
        return np.array([[1.0], [-1.0]])
    if dim == 2:
        return _sectors(hyperplanes.units)
    points = np.zeros((1, dim))
    for index, normal in enumerate(hyperplanes.units):
        traces, basis = hyperplanes.traces(index)
        points = _cut(points, hyperplanes.units[:index], normal, _regions(traces) @ basis.T)
    return points


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows [n, d] at length 1, whatever their scale; a row of zeros stays."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _sectors(normals: np.ndarray) -> np.ndarray:
    """Unit vectors in the middle of the sectors between lines in the plane."""
    lines = np.sort(np.arctan2(normals[:, 0], -normals[:, 1]) % np.pi)
    borders = np.concatenate([lines, lines + np.pi, lines[:1] + 2 * np.pi])
    middles = np.array([(low + high) / 2 for low, high in pairwise(borders)])
    return np.stack([np.cos(middles), np.sin(middles)], axis=1)


def _cut(points: np.ndarray, earlier: np.ndarray, normal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The points [R, d] of all regions of ``earlier`` [n, d], with two for one that the hyperplane cuts.

    ``inside`` [R', d] are points within the hyperplane, one for each region that it cuts.
    """
    where = {key: row for row, key in enumerate(_sides(earlier, points))}
    cut = [where.get(key, -1) for key in _sides(earlier, inside)]
    if -1 in cut or len(set(cut)) < len(cut):
        raise ArithmeticError(_DEGENERATE)
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


def _sides(normals: np.ndarray, points: np.ndarray) -> list[bytes]:
    """On which side of each hyperplane each point lies, as something to look up."""
    return [row.tobytes() for row in np.packbits(points @ normals.T > 0, axis=1)]


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
