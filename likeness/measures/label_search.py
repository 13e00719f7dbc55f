"""The largest entries of term 1 for each pivot, of all pivots or of those that can have the smallest term 1."""

from typing import NamedTuple

import torch
from torch import Tensor

from likeness.measures.cloud import Pairs
from likeness.measures.log_probability_vectors import LabelVectors
from likeness.measures.standardised_gap import GapRows

ZERO = 1e-12  # what rounding leaves of equivalent models: all their choices tie
TIE_TOLERANCE = 1e-6  # relative: the entries are symmetric, so that pivots often share their second-largest one
MAX_TIES = 64  # pivots of equivalent models that are looked at
_ROWS_AT_ONCE = 256


class ConstantLogRatioError(ValueError):
    """lp(y|x) - lp(y0|x) is the same for every input, so that nothing can be measured in units of it."""


class RowMaxima(NamedTuple):
    """For B pairs of models and each of K pivots; inf where the pivot was ruled out."""

    largest: Tensor  # [B, K, 2] the two largest entries
    worst: Tensor  # [B, K] the label of the largest one


def threshold(term_1: Tensor) -> Tensor:
    """Up to where choices tie with the best one, [B]."""
    return (term_1 * (1 + TIE_TOLERANCE)).clamp(min=ZERO)


def maxima_of_all_pivots(vectors: LabelVectors, pairs: Pairs) -> RowMaxima:
    """Every entry is looked at, in blocks of rows."""
    gaps = GapRows(vectors.cloud, pairs)
    index = torch.arange(vectors.num_labels, device=vectors.mean.device)
    tops = [entries_of_term_1(gaps, index[rows], vectors, pairs).topk(2, dim=2) for rows in gaps.blocks()]
    values, labels = zip(*tops, strict=True)
    return RowMaxima(torch.cat(values, dim=1), torch.cat(labels, dim=1)[..., 0])


def maxima_of_promising_pivots(vectors: LabelVectors, pair: Pairs) -> RowMaxima:
    """For one pair of models with many labels: as many rows as it takes to rule all other pivots out.

    Entries are symmetric, so that a row that is known says something of every other one: its second-largest entry is
    at least the second-largest met so far. Most is learnt from the rows of labels with large entries.
    """
    labels, device = vectors.num_labels, vectors.mean.device
    gaps = GapRows(vectors.cloud, pair)
    largest = vectors.mean.new_full((labels, 2), torch.inf)  # of rows that are known
    worst = torch.zeros(labels, dtype=torch.long, device=device)
    met = vectors.mean.new_full((labels, 2), -torch.inf)  # of all rows, in known columns
    unknown = torch.ones(labels, dtype=torch.bool, device=device)
    rows = torch.arange(min(_ROWS_AT_ONCE, labels), device=device)
    while len(rows):
        entries = entries_of_term_1(gaps, rows, vectors, pair)[0]
        top = entries.topk(2, dim=1)
        largest[rows], worst[rows], unknown[rows] = top.values, top.indices[:, 0], False
        met = torch.cat([met, entries.topk(min(2, len(rows)), dim=0).values.T], dim=1).topk(2, dim=1).values
        if int((largest[:, 1] <= ZERO).sum()) >= MAX_TIES:
            break
        possible = unknown & (met[:, 1] <= threshold(largest[:, 1].amin()))
        rows = _next_rows(met, unknown, possible)
    return RowMaxima(largest[None], worst[None])


def _next_rows(met: Tensor, unknown: Tensor, possible: Tensor) -> Tensor:
    """Of the possible pivots those with the smallest bounds, and as many unknown labels with the largest entries."""
    if not bool(possible.any()):
        return unknown.new_empty(0, dtype=torch.long)
    count = min(_ROWS_AT_ONCE // 2, len(met))
    promising = met[:, 1].masked_fill(~possible, torch.inf).topk(count, largest=False).indices
    telling = met[:, 0].masked_fill(~unknown, -torch.inf).topk(count).indices
    chosen = torch.zeros_like(unknown)
    chosen[promising] = possible[promising]
    chosen[telling] |= unknown[telling]
    return chosen.nonzero().flatten()


def entries_of_term_1(gaps: GapRows, pivots: Tensor, vectors: LabelVectors, pairs: Pairs) -> Tensor:
    """Entries of term 1 for these pivots, [B, rows, K], with -inf at the pivots themselves.

    Raises ConstantLogRatioError where another one is undefined.
    """
    entries = gaps.rows(pivots)
    entries.scatter_(2, pivots.expand(len(entries), -1)[..., None], -torch.inf)
    if bool((entries == torch.inf).any()):
        pair, row, label = (entries == torch.inf).nonzero()[0].tolist()
        raise constant_log_ratio(vectors, pairs, pair, int(pivots[row]), label)
    return entries


def constant_log_ratio(vectors: LabelVectors, pairs: Pairs, pair: int, pivot: int, label: int) -> ConstantLogRatioError:
    """The error for one of the pairs, naming the model whose log-ratio of the two labels varies less."""
    own = vectors.cloud.own
    models = [int(index[pair]) for index in pairs]
    deviations = {model: float((own[model, pivot] - own[model, label]).norm()) for model in models}
    model = min(deviations, key=lambda model: deviations[model])
    return ConstantLogRatioError(
        f"the log-ratio of labels {pivot} and {label} of model {vectors.names[model]!r} is constant over the inputs "
        f"(standard deviation {deviations[model]:.3g}), so d_LLV is undefined"
    )
