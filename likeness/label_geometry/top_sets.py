"""Which labels of a softmax head can win at all, and which sets of labels can be the most probable ones.

Exact, and each answer with its proof: a feature vector that does it, or a point that the hull of the set and the hull
of all other labels share. A linear programme in floating point proposes the proof, and no answer rests on its
tolerances: the proof is checked with bounds on every rounding, or found by pivoting whole numbers. What neither
decides is called undecided. Features are any of R^M: a set that some network's features never reach may still be
feasible here, and an infeasible one is so for every network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelRows, Progress, require_finite_rows, row_blocks
from likeness.numerics import as_float64

MAX_ENTRIES = 20_000_000  # of a linear programme's matrix: 160 MB, and minutes
MAX_EXACT = 4_000_000  # products of whole numbers in a pivoting: some seconds
_MAX_PIVOTS = 10_000
_MAX_LOGITS = 2**24  # of a temporary: 128 MB
_ROUNDING = 2.0**-53
_UNDERFLOW = 2.0**-1074
_TINY = 1e-300

Labels = tuple[int, ...]


@dataclass(frozen=True)
class TopSet:
    """Whether a set of labels can have the highest logits, all of them above all others', and the proof."""

    labels: Labels
    feasible: bool | None  # None: undecided, because the head is too large to be certain
    features: Tensor | None = None  # [M] at which the set is on top, if feasible and if float64 has such features
    weights: Tensor | None = None  # [K] if infeasible: convex weights of the set and of the others with equal mixtures


def can_be_top(g: LabelRows, labels: Sequence[int], bias: Tensor | None = None) -> TopSet:
    """Whether some x puts the logits of all ``labels`` above all others'; see :func:`top_sets`.

    The third label stands between the first two, so it never wins:

    >>> g = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    >>> can_be_top(g, [2]).feasible, can_be_top(g, [0, 3]).feasible
    (False, True)
    """
    return top_sets(g, [labels], bias)[0]


def never_top(g: LabelRows, bias: Tensor | None = None) -> list[TopSet]:
    """The labels that no feature vector makes the prediction, with their proofs; see :func:`top_sets`."""
    answers = top_sets(g, [[label] for label in range(g.shape[0])], bias)
    return [answer for answer in answers if answer.feasible is False]


def top_sets(
    g: LabelRows, sets: Iterable[Sequence[int]], bias: Tensor | None = None, progress: Progress = iter
) -> list[TopSet]:
    """For each set of labels whether some x in R^M puts all its logits g x + bias above all others'.

    g [K, M]; bias [K]. A set of one label: whether it can be the prediction, its argmax region having an inside.
    Several: whether they can be the top k, in some order. Infeasible exactly where the convex hulls of the two groups
    of label vectors meet (with a bias: in a point where the set's mixture of biases is not the higher one). The
    direction of the set's mean is tried before a linear programme is solved. Raises ValueError for a set that is
    empty, everything, or holds a repeated or unknown label, and for values that are not finite. Derived, after
    Grivas, Bogoychev & Lopez 2022.
    """
    chosen = [_checked(labels, g.shape[0]) for labels in sets]
    if bias is not None:
        require_finite_rows(bias.unsqueeze(1))
    size = max(1, _MAX_LOGITS // g.shape[0])
    witnesses: list[Tensor | None] = []
    for start in range(0, len(chosen), size):
        witnesses += _mean_directions(g, chosen[start : start + size], bias, progress)
    small = g.shape[0] * g.shape[1] <= MAX_ENTRIES
    rows = as_float64(g[:]) if small and None in witnesses else None
    steps = progress([slice(index, index + 1) for index in range(len(chosen))]) if rows is not None else []
    answers = [TopSet(labels, x is not None or None, x) for labels, x in zip(chosen, witnesses, strict=True)]
    for step in steps:
        if rows is not None and answers[step.start].feasible is None:
            answers[step.start] = _decide(rows, chosen[step.start], None if bias is None else as_float64(bias))
    return answers


def _mean_directions(
    g: LabelRows, sets: Sequence[Labels], bias: Tensor | None, progress: Progress
) -> list[Tensor | None]:
    """For each set its own mean around the mean of all labels, [M], where that certainly puts it on top."""
    mean = torch.stack([as_float64(g[block]).mean(0) for block in row_blocks(g.shape)]).mean(0)
    own = [torch.cat([as_float64(g[label : label + 1]) for label in labels]) - mean for labels in sets]
    directions = torch.stack([vectors.mean(0) for vectors in own])
    directions = directions / directions.abs().amax(1, keepdim=True).clamp(min=_TINY)
    lowest = torch.stack([(vectors @ x).min() for vectors, x in zip(own, directions, strict=True)])
    highest, longest = torch.full_like(lowest, -torch.inf), 0.0
    for block in progress(row_blocks(g.shape)):
        rows = as_float64(g[block])
        require_finite_rows(rows, block.start)
        centred = rows - mean
        longest = max(longest, float(centred.abs().sum(1).max()))
        highest = torch.maximum(highest, _others(directions @ centred.T, sets, block.start).amax(1))
    margins = lowest - highest
    # |x| <= 1 everywhere: a logit is off by (M + 2) roundings of the row's sum of absolute values at most.
    wins = margins > 8 * (len(mean) + 4) * (_ROUNDING * longest + _UNDERFLOW)
    if bias is not None:  # far enough along a direction that wins without the bias, no bias matters
        spread = as_float64(bias.max()) - as_float64(bias.min())
        directions = directions * (4 * spread / margins.where(wins, 1.0)).clamp(min=1).unsqueeze(1)
    return [x if won else None for x, won in zip(directions, wins.tolist(), strict=True)]


def _others(logits: Tensor, sets: Sequence[Labels], first: int) -> Tensor:
    """Logits [Q, B] of the labels from ``first`` on, with minus infinity for those of each row's own set."""
    for row, labels in zip(logits, sets, strict=True):
        row[[label - first for label in labels if 0 <= label - first < logits.shape[1]]] = -torch.inf
    return logits


def _decide(g: Tensor, labels: Labels, bias: Tensor | None) -> TopSet:
    """The answer for one set, by the cheapest proof that is certain."""
    twins = _twin_outside(g, labels, bias)
    if twins is not None:
        return TopSet(labels, False, weights=_weights_of(dict.fromkeys(twins, 1.0), g))
    x, support = _propose(g, labels, bias)
    if x is not None and _certainly_on_top(g, labels, bias, x):
        return TopSet(labels, True, x)
    system = _HullSystem(g, labels, bias)
    weights = system.positive_solution(support)
    if weights is not None:
        return TopSet(labels, False, weights=_weights_of(weights, g))
    if system.work > MAX_EXACT:
        return TopSet(labels, None)
    exact, separation = system.solve_exactly(support)
    if separation is None:
        return TopSet(labels, None if exact is None else False, weights=_weights_of(exact or {}, g))
    x = torch.tensor(separation, dtype=torch.float64, device=g.device)
    return TopSet(labels, True, x if _certainly_on_top(g, labels, bias, x) else None)


def _twin_outside(g: Tensor, labels: Labels, bias: Tensor | None) -> Labels | None:
    """A label of the set and one outside with the same vector and no lower bias, if there are such."""
    for label in labels:
        same = (g == g[label]).all(1)
        if bias is not None:
            same &= bias >= bias[label]
        same[list(labels)] = False
        if bool(same.any()):
            return label, int(same.nonzero()[0])
    return None


def _weights_of(weights: dict[int, Any], g: Tensor) -> Tensor:
    """Weights [K] from those of some labels."""
    result = torch.zeros(len(g), dtype=torch.float64, device=g.device)
    for label, weight in weights.items():
        if label < len(g):
            result[label] = float(weight)
    return result


def _certainly_on_top(g: Tensor, labels: Labels, bias: Tensor | None, x: Tensor) -> bool:
    """Whether the set's logits at x exceed all others' whatever the rounding: by differences, with error bounds."""
    others = torch.ones(len(g), dtype=torch.bool, device=g.device)
    others[list(labels)] = False
    for label in labels:
        apart = g[label] - g[others]
        margin, size = apart @ x, apart.abs() @ x.abs()
        if bias is not None:
            margin, size = margin + (bias[label] - bias[others]), size + (bias[label] - bias[others]).abs()
        if not bool((margin > (len(x) + 8) * (_ROUNDING * size + _UNDERFLOW)).all()):
            return False
    return True


def _propose(g: Tensor, labels: Labels, bias: Tensor | None) -> tuple[Tensor | None, list[int]]:
    """Features [M] that may put the set on top, and labels whose hulls may meet, by linear programming.

    The largest t <= 1 with g_i x + b_i s >= tau + t inside and <= tau - t outside. The features (x, s), s >= 0, form
    a cone, so the optimum is 0 or 1, and at 0 the multipliers are the weights of the two hulls' common point.
    """
    from scipy.optimize import linprog

    columns, scale = _within_unit_ball(g)
    if bias is not None:
        offsets, bias_scale = _within_unit_ball(bias.unsqueeze(1))
        columns = torch.cat([columns, offsets], dim=1)
    inside = -torch.ones(len(g), 1, dtype=torch.float64, device=g.device)
    inside[list(labels)] = 1
    matrix = torch.cat([-inside * columns, inside, torch.ones_like(inside)], dim=1)
    bounds: list[Any] = [(None, None)] * (columns.shape[1] + 1) + [(None, 1)]
    if bias is not None:
        bounds[g.shape[1]] = (0, None)
    objective = np.zeros(matrix.shape[1])
    objective[-1] = -1
    result = linprog(objective, matrix.cpu().numpy(), np.zeros(len(g)), bounds=bounds, method="highs")
    if result.x is None:
        return None, []
    x = torch.from_numpy(result.x[: g.shape[1]]).to(g.device) / scale
    if bias is not None:  # |b| <= 1 and margins of 2: s may rise to 1/2 without harm
        x = x * bias_scale / max(0.5, float(result.x[g.shape[1]]))
    support = np.flatnonzero(result.ineqlin.marginals < -1e-9)
    return (x if bool(x.isfinite().all()) else None), [int(label) for label in support]


def _within_unit_ball(rows: Tensor) -> tuple[Tensor, float]:
    """Centred rows [K, D], the longest of length about 1, and the length it had."""
    centred = rows - rows.mean(0)
    scale = max(float(centred.abs().sum(1).max()), _TINY)
    return centred / scale, scale


class _HullSystem:
    """The equations of a common point of two hulls: weights w >= 0 [n] with ``matrix`` w = ``right`` [m].

    One column a label, the rows being the coordinates (with a minus outside the set) and the two sums of weights;
    with a bias one more row, and a last column for how much lower the set's mixture of biases is.
    """

    def __init__(self, g: Tensor, labels: Labels, bias: Tensor | None) -> None:
        inside = np.zeros(len(g), dtype=bool)
        inside[list(labels)] = True
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
        if self.biased and len(columns) == len(self.right) - 1:
            columns.append(self.matrix.shape[1] - 1)
        if len(columns) != len(self.right):
            return None
        size = np.abs(self.matrix[:, columns]).max(axis=1, keepdims=True)
        if not (size > 0).all():
            return None
        powers = np.exp2(-np.frexp(size)[1].clip(-1000, 1000).astype(float))
        a, right = self.matrix[:, columns] * powers, self.right * powers[:, 0]
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


def _checked(labels: Sequence[int], count: int) -> Labels:
    chosen = tuple(int(label) for label in labels)
    if len(set(chosen)) != len(chosen) or not 0 < len(chosen) < count or not all(0 <= y < count for y in chosen):
        raise ValueError(f"a top set is some but not all of the labels 0 to {count - 1}, each once; got {list(chosen)}")
    return chosen
