"""The label side of d_LLV: terms 1 and 3, and the pivot and left-out label that make term 1 smallest.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Def 4.4. A choice is a pivot label y0 and a
label l that is left out; the others, S, are compared with the pivot:

    sigma(y) = sd_x[lp(y|x) - lp(y0|x)]
    term 1 = max over y in S of max(sd_x[lp(y|x) / sigma(y) - lp'(y|x) / sigma'(y)], the same of y0)
    term 3 = max over y in S of |sigma(y) - sigma'(y)|

The paper's code tries every choice. Since entry (y0, y) does not depend on l, the smallest term 1 is the smallest
second-largest entry of a row, with the largest one left out (derived, not in the paper).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import Pairs, one_pair
from likeness.measures.label_search import (
    MAX_TIES,
    RowMaxima,
    constant_log_ratio,
    entries_of_term_1,
    maxima_of_all_pivots,
    maxima_of_promising_pivots,
    threshold,
)
from likeness.measures.log_probability_vectors import LabelVectors
from likeness.measures.standardised_gap import GapRows, gaps_from

_FEW_LABELS = 4096  # so few that all rows are looked at


class LabelChoice(NamedTuple):
    """The minimisers of term 1 for B pairs of models."""

    term_1: Tensor  # [B]
    pivot: Tensor  # [B], the smallest among ties
    left_out: Tensor  # [B], the smallest among those of this pivot
    ties: Tensor  # [T, 3] rows (pair, pivot, left out), ascending; at most MAX_TIES of each pair


class LabelTerms(NamedTuple):
    """Terms 1 and 3 at given choices, [B]."""

    term_1: Tensor
    term_3: Tensor


def term_1_matrix(vectors: LabelVectors, first: int = 0, second: int = 1) -> tuple[Tensor, Tensor]:
    """The entries of terms 1 and 3 for pivot y0 and label y of two of the models: T1 and T3, [K, K], symmetric.

    The diagonal is 0. Raises ConstantLogRatioError naming the labels and the model.
    """
    pairs = one_pair(first, second, vectors.mean.device)
    labels = torch.arange(vectors.num_labels, device=vectors.mean.device)
    entries = entries_of_term_1(GapRows(vectors.cloud, pairs), labels, vectors, pairs)[0]
    s, t = (torch.cdist(points, points) for points in vectors.cloud.own[[first, second]])
    return entries.fill_diagonal_(0), (s - t).abs()


def choose_labels(vectors: LabelVectors, pairs: Pairs) -> LabelChoice:
    """The pivot and left-out label with the smallest term 1, for B pairs of models.

    Exact; with many labels the rows of hopeless pivots are not computed. Among choices within 1e-6 of each other, or
    under 1e-12, the smallest pivot is taken and then the smallest left-out label; ``ties`` holds the others.

    Raises:
        ValueError: for fewer than 3 labels; ConstantLogRatioError, naming the labels and the model.
    """
    count, labels = len(pairs[0]), vectors.num_labels
    if labels < 3:
        raise ValueError(f"d_LLV needs a pivot, a left-out and a compared label, but there are {labels} labels")
    if labels <= _FEW_LABELS:
        maxima = maxima_of_all_pivots(vectors, pairs)
    else:
        each = [
            maxima_of_promising_pivots(vectors, (i, j))
            for i, j in zip(*(torch.split(x, 1) for x in pairs), strict=True)
        ]
        maxima = RowMaxima(*(torch.cat(fields) for fields in zip(*each, strict=True)))
    term_1 = maxima.largest[..., 1].amin(1)
    ties = _ties(maxima, threshold(term_1))
    start = torch.searchsorted(ties[:, 0].contiguous(), torch.arange(count, device=ties.device))
    return LabelChoice(term_1, ties[start, 1], ties[start, 2], ties)


def label_terms(vectors: LabelVectors, pairs: Pairs, pivot: Tensor, left_out: Tensor) -> LabelTerms:
    """Terms 1 and 3 at pivots and left-out labels [B], for B pairs of models; raises as :func:`choose_labels`."""
    gap, s, t = gaps_from(vectors.cloud, pairs, pivot)
    labels = torch.arange(gap.shape[1], device=gap.device)
    compared = (labels != pivot[:, None]) & (labels != left_out[:, None])
    for pair, label in (gap.isinf() & compared).nonzero().tolist():
        raise constant_log_ratio(vectors, pairs, pair, int(pivot[pair]), label)
    term_1, term_3 = (entries.masked_fill(~compared, -torch.inf).amax(1) for entries in (gap, (s - t).abs()))
    return LabelTerms(term_1, term_3)


def _ties(maxima: RowMaxima, limit: Tensor) -> Tensor:
    """Choices [T, 3] of (pair, pivot, left out) whose term 1 is at most the limit [B]."""
    largest, worst = maxima
    rows = (largest[..., 1] <= limit[:, None]).nonzero()
    rows = rows[_leading(rows[:, 0])]
    pair, pivot = rows.unbind(1)
    labels = torch.arange(worst.shape[1], device=worst.device)
    leaves_worst = labels == worst[pair, pivot, None]
    term_1 = torch.where(leaves_worst, largest[pair, pivot, 1, None], largest[pair, pivot, 0, None])
    row, left_out = ((term_1 <= limit[pair, None]) & (labels != pivot[:, None])).nonzero().unbind(1)
    ties = torch.column_stack([rows[row], left_out])
    return ties[_leading(ties[:, 0])]


def _leading(groups: Tensor) -> Tensor:
    """Which of the entries are among the first MAX_TIES of their group; groups [T] ascend."""
    position = torch.arange(len(groups), device=groups.device)
    return position - torch.searchsorted(groups.contiguous(), groups.contiguous()) < MAX_TIES
