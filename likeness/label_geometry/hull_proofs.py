"""Proofs that a set of labels can or cannot have the highest logits among few labels, certain whatever the rounding.

A quadratic programme in floating point proposes features, or weights of a point that the hull of the set and the hull
of the others share. No answer rests on its tolerances: features are checked with bounds on every rounding, weights
likewise, and what is too close for that is decided by pivoting whole numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_EXACT = 4_000_000  # products of whole numbers in a pivoting: some seconds
_MAX_PIVOTS = 10_000
_MARGIN = 0.05  # of the set's own logits at the start
_ROUNDING = 2.0**-53
_UNDERFLOW = 2.0**-1074
_TINY = 1e-300
_PROJECTIONS = 100
_LEAST = 0.01  # of the mean weight


class Proposal(NamedTuple):
    """What the programme found: a direction that may separate, or columns of the hulls' equations that may meet."""

    direction: Tensor | None  # [D]
    support: list[int]


class Decision(NamedTuple):
    """Whether the set can be on top of these labels, None if that is not certain, with the proof."""

    feasible: bool | None
    features: Tensor | None = None  # [M]
    weights: dict[int, float] | None = None  # of rows, if infeasible


@dataclass(frozen=True)
class Contest:
    """Rows g [n, M] in float64 of which the first ``inside`` are a set of labels, and biases [n]."""

    g: Tensor
    inside: int
    bias: Tensor | None = None

    def decide(self, features: Tensor | None, support: Sequence[int]) -> Decision:
        """The answer by the cheapest proof that is certain, from features and columns that were proposed."""
        twins = self.twins()
        if twins is not None:
            return Decision(False, weights=dict.fromkeys(twins, 1.0))
        if features is not None and self.certainly_won(features):
            return Decision(True, features)
        moving = (self.g != self.g[0]).any(0)  # the others' equations are multiples of the sum of weights
        system = HullSystem(self.g[:, moving], self.inside, self.bias)
        weights = system.positive_solution(support)
        if weights is None and len(support) == len(system.right):  # one of them is nearly zero
            weights = system.inner_solution()
        if weights is not None:
            return Decision(False, weights=self._of_rows(weights))
        if system.work > MAX_EXACT:
            return Decision(None)
        exact, separation = system.solve_exactly(support)
        if separation is None:
            return Decision(None if exact is None else False, weights=self._of_rows(exact or {}))
        features = torch.zeros(self.g.shape[1], dtype=torch.float64)
        features[moving] = torch.tensor(separation, dtype=torch.float64)
        return Decision(True, features if self.certainly_won(features) else None)

    def twins(self) -> tuple[int, int] | None:
        """A row of the set and one outside that is the same and has no lower bias, if there are such."""
        for row in range(self.inside):
            same = (self.g[self.inside :] == self.g[row]).all(1)
            if self.bias is not None:
                same &= self.bias[self.inside :] >= self.bias[row]
            if bool(same.any()):
                return row, self.inside + int(same.nonzero()[0])
        return None

    def certainly_won(self, features: Tensor) -> bool:
        """Whether the set's logits exceed all others' whatever the rounding: by differences, with error bounds."""
        for row in range(self.inside):
            apart = self.g[row] - self.g[self.inside :]
            margin, size = apart @ features, apart.abs() @ features.abs()
            if self.bias is not None:
                higher = self.bias[row] - self.bias[self.inside :]
                margin, size = margin + higher, size + higher.abs()
            if not bool((margin > (len(features) + 8) * (_ROUNDING * size + _UNDERFLOW)).all()):
                return False
        return True

    def _of_rows(self, weights: dict[int, Any]) -> dict[int, float]:
        return {row: float(weight) for row, weight in weights.items() if row < len(self.g)}


def propose(points: Tensor, inside: int, start: Tensor, biased: bool) -> Proposal:
    """The direction z [D] nearest to ``start`` with points z >= t + margin inside, <= t - margin outside, for some t.

    points [n, D] have a length of about 1. With a bias the last column is it, and the last entry of z is not
    negative: the directions are a cone, so that any margin serves. Least distance programming (Lawson & Hanson 1974,
    chapter 23): the least |E u - e| over u >= 0 is 0 where the hulls meet, in a point with the weights u, and else
    its residual is the way from the start to z.
    """
    from scipy.optimize import nnls

    signs = np.where(np.arange(len(points)) < inside, 1.0, -1.0)
    v, z = points.cpu().numpy(), start.cpu().numpy()
    logits = v @ z
    lowest, highest = logits[:inside].min(), logits[inside:].max()
    margin = _MARGIN * lowest if lowest > 0 else 1.0
    constraints = signs[:, None] * np.column_stack([v, -np.ones(len(v))])
    missing = margin - constraints @ np.append(z, (lowest + highest) / 2)
    if missing.max() <= 0:
        return Proposal(start, [])
    if biased:
        constraints = np.concatenate([constraints, np.eye(1, v.shape[1] + 1, v.shape[1] - 1)])
        missing = np.append(missing, -z[-1])
    unit = np.abs(missing).max()
    system = np.concatenate([constraints.T, missing[None] / unit])
    wanted = np.eye(1, len(system), len(system) - 1)[0]
    try:
        u, _ = nnls(system, wanted)
    except RuntimeError:  # too many iterations
        return Proposal(None, [])
    residual = system @ u - wanted
    support = [int(row) for row in np.flatnonzero(u > 0)]
    if not residual[-1] < 0:
        return Proposal(None, support)
    z = z - residual[:-2] * (unit / residual[-1])
    if biased:  # its entries are at most 1: it may rise to half the margin without harm
        z[-1] = max(z[-1], margin / 2)
    return Proposal(torch.from_numpy(z) if np.isfinite(z).all() else None, support)


class HullSystem:
    """The equations of a common point of two hulls: weights w >= 0 [n] with ``matrix`` w = ``right`` [m].

    One column a label, the rows being the coordinates (with a minus outside the set) and the two sums of weights;
    with a bias one more row, and a last column for how much lower the set's mixture of biases is.
    """

    def __init__(self, g: Tensor, count: int, bias: Tensor | None) -> None:
        inside = np.arange(len(g)) < count
        self.dim, self.biased = g.shape[1], bias is not None
        rows = g.T.cpu().numpy()
        if bias is not None:
            rows = np.concatenate([rows, bias.cpu().numpy()[None]])
        rows = np.concatenate([np.where(inside, rows, -rows), inside[None], ~inside[None]])
        if bias is not None:
            rows = np.concatenate([rows, np.zeros((len(rows), 1))], axis=1)
            rows[self.dim, -1] = 1
        self.matrix = rows
        self.right = np.concatenate([np.zeros(len(rows) - 2), np.ones(2)])
        self.work = rows.shape[0] ** 2 * (rows.shape[1] + rows.shape[0] + 1)

    def positive_solution(self, support: Sequence[int]) -> dict[int, float] | None:
        """Weights of a square system's columns, if its exact solution is certainly positive; else None.

        |w* - w| <= |B (right - A w)| / (1 - |I - B A|) for any B (Rump 2010), here the computed inverse.
        """
        columns = list(support)
        if len(columns) != len(self.right):
            return None
        a, right = self._balanced(self.matrix[:, columns])
        if not a.any(axis=1).all():
            return None
        try:
            b = np.linalg.inv(a)
        except np.linalg.LinAlgError:
            return None
        w = b @ right
        w += b @ (right - a @ w)
        rounding = (len(w) + 8) * _ROUNDING
        residual = np.abs(right - a @ w) + rounding * (np.abs(a) @ np.abs(w) + np.abs(right)) + _TINY
        defect = np.abs(np.eye(len(w)) - b @ a) + rounding * (np.abs(b) @ np.abs(a) + 1)
        contraction = defect.sum(axis=1).max()
        if not contraction < 0.5:
            return None
        error = 1.01 * (np.abs(b) @ residual).max() / (1 - contraction)
        return dict(zip(columns, w, strict=True)) if w.min() > error else None

    def inner_solution(self) -> dict[int, float] | None:
        """Weights of all columns, if some exact solution near them is certainly positive; else None.

        Projected in turns to what is positive and to the equations. With E = 1 - A B, B being a right inverse, an exact
        solution is w + B z for z = (1 - E)^-1 (right - A w), whose entries are at most |right - A w| / (1 - |E|).
        """
        rows, columns = self.matrix.shape
        if columns <= rows:
            return None
        a, right = self._balanced(self.matrix)
        q, r = np.linalg.qr(a.T)
        try:
            b = np.linalg.solve(r, q.T).T
        except np.linalg.LinAlgError:
            return None
        w = b @ right
        for _ in range(_PROJECTIONS):
            w = np.maximum(w, _LEAST / columns)
            w += b @ (right - a @ w)
        rounding = (columns + 8) * _ROUNDING
        residual = np.abs(right - a @ w) + rounding * (np.abs(a) @ np.abs(w) + np.abs(right)) + _TINY
        defect = np.abs(np.eye(rows) - a @ b) + rounding * (np.abs(a) @ np.abs(b) + 1)
        contraction = defect.sum(axis=1).max()
        if not contraction < 0.5:
            return None
        error = 1.01 * np.abs(b).sum(axis=1) * residual.max() / (1 - contraction)
        return dict(enumerate(w)) if (w > error).all() else None

    def _balanced(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Equations times powers of two, which is exact, so that all have entries of about 1; a row of zeros stays."""
        size = np.abs(matrix).max(axis=1, keepdims=True)
        powers = np.exp2(-np.frexp(size)[1].clip(-1000, 1000).astype(float))
        return matrix * powers, self.right * powers[:, 0]

    def solve_exactly(self, support: Sequence[int]) -> tuple[dict[int, Fraction] | None, list[float] | None]:
        """The weights of a common point, or features that separate the hulls; both None after too many pivots.

        The dual simplex method with Bland's rule from the columns ``support``, on whole numbers (Edmonds 1967):
        ``table`` [m, n + 1 + m] holds the columns, the right side and the row operations, times ``scale``.
        """
        whole = [_whole_numbers(row) for row in self.matrix]
        rows, count = len(whole), self.matrix.shape[1]
        extra = np.concatenate([self.right[:, None], np.eye(rows)], axis=1).astype(int)
        table = np.concatenate([np.array([row for row, _ in whole], dtype=object), extra.astype(object)], axis=1)
        basis: dict[int, int] = {}  # column of each row
        scale = 1

        def pivot(row: int, column: int) -> None:
            nonlocal table, scale
            entry, kept = table[row, column], table[row].copy()
            table = (entry * table - np.outer(table[:, column], kept)) // scale
            table[row], scale = kept, entry
            if scale < 0:
                table, scale = -table, -scale
            basis[row] = column

        # A basis: the proposed columns as far as they are independent, then the first others that are.
        for column in [*support, *range(count)]:
            free = [row for row in range(rows) if row not in basis and table[row, column] != 0]
            if free and column not in basis.values():
                pivot(free[0], column)
            if len(basis) == rows:
                break
        for row in set(range(rows)) - basis.keys():  # no column is left: 0 = right side
            if table[row, count] != 0:
                sign = -1 if table[row, count] > 0 else 1
                return None, self._separation(sign * table[row, count + 1 :], whole)
        for _ in range(_MAX_PIVOTS):
            negative = [row for row in basis if table[row, count] < 0]
            if not negative:
                return {column: Fraction(table[row, count], scale) for row, column in basis.items()}, None
            row = min(negative, key=basis.__getitem__)
            entering = next((column for column in range(count) if table[row, column] < 0), None)
            if entering is None:  # a combination of the equations with entries >= 0 and a negative right side
                return None, self._separation(table[row, count + 1 :], whole)
            pivot(row, entering)
        return None, None

    def _separation(self, y: np.ndarray, whole: Sequence[tuple[list[int], int]]) -> list[float] | None:
        """Features x, in float64, from multipliers y of the equations with y A >= 0 and y right < 0.

        Inside the set y . (x, s) >= -y_S, outside it <= y_O, and y_S + y_O < 0; s >= 0 belongs to the bias.
        """
        x = [Fraction(int(value) * power) for value, (_, power) in zip(y, whole, strict=True)]
        gap = -(x[-1] + x[-2])
        if self.biased:
            largest = max(abs(Fraction(float(value))) for value in self.matrix[self.dim, :-1])
            # Half of the gap suffices, so that s may be positive in any case.
            share = max(x[self.dim], gap / (4 * largest)) if largest else Fraction(1)
        else:
            share = max(abs(value) for value in x[: self.dim])
        try:
            return [float(value / share) for value in x[: self.dim]]
        except OverflowError:
            return [float("nan")] * self.dim


def _whole_numbers(values: Iterable[float]) -> tuple[list[int], int]:
    """The values times the smallest power of two that makes all of them whole, and that power."""
    ratios = [float(value).as_integer_ratio() for value in values]
    power = max(denominator for _, denominator in ratios)
    return [numerator * (power // denominator) for numerator, denominator in ratios], power
