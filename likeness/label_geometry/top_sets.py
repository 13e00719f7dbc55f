"""Which labels of a softmax head can win at all, and which sets of labels can be the most probable ones.

Exact, by linear programming, and each answer with its proof: a feature vector that does it, or a point that the
hull of the set and the hull of all other labels share. Features are any of R^M: a set that some network's features
never reach may still be feasible here, and an infeasible one is so for every network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelRows, Progress, row_blocks
from likeness.numerics import as_float64

MAX_ENTRIES = 20_000_000  # of a linear programme's matrix: 160 MB, and minutes
_MAX_LOGITS = 2**24  # of a temporary: 128 MB
_ROUNDING = 1e-10  # of a margin relative to the largest logit
_TINY = 1e-300

Labels = tuple[int, ...]


@dataclass(frozen=True)
class TopSet:
    """Whether a set of labels can have the highest logits, all of them above all others', and the proof."""

    labels: Labels
    feasible: bool | None  # None: undecided, because the linear programme would have over 20 million entries
    features: Tensor | None = None  # [M] at which the set is on top, if feasible
    weights: Tensor | None = None  # [K] if infeasible: convex weights of the set and of the others with equal mixtures


def can_be_top(g: LabelRows, labels: Sequence[int], bias: Tensor | None = None) -> TopSet:
    """Whether some x puts the logits of all ``labels`` above all others'; see :func:`top_sets`."""
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
    empty, everything, or holds a repeated or unknown label. Derived, after Grivas, Bogoychev & Lopez 2022.
    """
    chosen = [_checked(labels, g.shape[0]) for labels in sets]
    mean = torch.stack([as_float64(g[block]).sum(0) for block in row_blocks(g.shape)]).sum(0) / g.shape[0]
    size = max(1, _MAX_LOGITS // g.shape[0])
    witnesses: list[Tensor | None] = []
    for start in range(0, len(chosen), size):
        witnesses += _mean_directions(g, chosen[start : start + size], bias, mean, progress)
    small = g.shape[0] * g.shape[1] <= MAX_ENTRIES
    rows = as_float64(g[:]) if small and None in witnesses else None
    return [_decide(rows, labels, bias, x) for labels, x in zip(chosen, witnesses, strict=True)]


def _decide(rows: Tensor | None, labels: Labels, bias: Tensor | None, witness: Tensor | None) -> TopSet:
    if witness is not None:
        return TopSet(labels, True, witness)
    return TopSet(labels, None) if rows is None else _solve(rows, labels, bias)


def _mean_directions(
    g: LabelRows, sets: Sequence[Labels], bias: Tensor | None, mean: Tensor, progress: Progress
) -> list[Tensor | None]:
    """For each set its own mean around the mean of all labels, [M], where that already puts it on top."""
    own = [torch.cat([as_float64(g[label : label + 1]) for label in labels]) - mean for labels in sets]
    directions = torch.stack([vectors.mean(0) for vectors in own])
    lowest = torch.stack([(vectors @ x).min() for vectors, x in zip(own, directions, strict=True)])
    highest, largest = torch.full_like(lowest, -torch.inf), torch.zeros_like(lowest)
    for block in progress(row_blocks(g.shape)):
        logits = directions @ (as_float64(g[block]) - mean).T
        largest = torch.maximum(largest, logits.abs().amax(1))
        highest = torch.maximum(highest, _others(logits, sets, block.start).amax(1))
    margins = lowest - highest
    wins = margins > _ROUNDING * largest
    if bias is not None:  # far enough along a direction that wins without the bias, no bias matters
        spread = as_float64(bias.max() - bias.min())
        directions = directions * (2 * spread / margins.where(wins, 1.0)).clamp(min=1).unsqueeze(1)
    return [x if won else None for x, won in zip(directions, wins.tolist(), strict=True)]


def _others(logits: Tensor, sets: Sequence[Labels], first: int) -> Tensor:
    """Logits [Q, B] of the labels from ``first`` on, with minus infinity for those of each row's own set."""
    for row, labels in zip(logits, sets, strict=True):
        row[[label - first for label in labels if 0 <= label - first < logits.shape[1]]] = -torch.inf
    return logits


def _solve(g: Tensor, labels: Labels, bias: Tensor | None) -> TopSet:
    """By linear programming: the largest t <= 1 with g_i x + b_i s >= tau + t inside and <= tau - t outside.

    The features (x, s), s >= 0, form a cone, so the optimum is 0 or 1, and at 0 the multipliers are the weights of
    the two hulls' common point.
    """
    rows, scale = _within_unit_ball(g)
    columns = [rows]
    if bias is not None:
        offsets, bias_scale = _within_unit_ball(as_float64(bias).unsqueeze(1))
        columns.append(offsets)
    solution, multipliers = _maximise_margin(torch.cat(columns, dim=1), labels, cone=bias is not None)
    if solution[-1] <= 0.5:
        weights = torch.from_numpy(-2 * multipliers).clamp(min=0)
        return TopSet(labels, False, weights=weights.to(g.device))
    features = torch.from_numpy(solution[: g.shape[1]]).to(g.device) / scale
    if bias is not None:  # |b| <= 1 and margins of 2: s may rise to 1/2 without harm
        features = features * bias_scale / max(0.5, float(solution[g.shape[1]]))
    return TopSet(labels, True, features)


def _maximise_margin(rows: Tensor, labels: Labels, cone: bool) -> tuple[np.ndarray, np.ndarray]:
    """The optimal (x, tau, t) and the multiplier of each label; with ``cone`` the last coordinate of x is >= 0."""
    from scipy.optimize import linprog

    inside = -torch.ones(len(rows), 1, dtype=torch.float64, device=rows.device)
    inside[list(labels)] = 1
    matrix = torch.cat([-inside * rows, inside, torch.ones_like(inside)], dim=1)
    bounds: list[Any] = [(None, None)] * (rows.shape[1] + 1) + [(None, 1)]
    if cone:
        bounds[rows.shape[1] - 1] = (0, None)
    objective = np.zeros(matrix.shape[1])
    objective[-1] = -1
    result = linprog(objective, matrix.cpu().numpy(), np.zeros(len(rows)), bounds=bounds, method="highs")
    if result.x is None:
        raise ArithmeticError(f"the linear programme for labels {list(labels)} was not solved: {result.message}")
    return result.x, result.ineqlin.marginals


def _within_unit_ball(rows: Tensor) -> tuple[Tensor, float]:
    """Centred rows [K, D], the longest of length 1, and the length it had."""
    centred = rows - rows.mean(0)
    scale = max(float(centred.norm(dim=1).max()), _TINY)
    return centred / scale, scale


def _checked(labels: Sequence[int], count: int) -> Labels:
    chosen = tuple(int(label) for label in labels)
    if len(set(chosen)) != len(chosen) or not 0 < len(chosen) < count or not all(0 <= y < count for y in chosen):
        raise ValueError(f"a top set is some but not all of the labels 0 to {count - 1}, each once; got {list(chosen)}")
    return chosen
