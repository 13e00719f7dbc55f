"""The regions into which hyperplanes through the origin cut space, one point in each, and how many there can be."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from likeness.measures.moments import as_float64

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
