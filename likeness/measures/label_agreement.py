"""Where the similarity of two labels' vectors and how often the labels are probable together tell different stories.

The two have different units, so ranks are compared: a pair's place among all pairs of labels. Derived, not in a
paper.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Disagreements(NamedTuple):
    """Pairs of labels, the largest disagreement first; ``gap`` is a difference of ranks, in (-1, 1).

    Positive: similar vectors, seldom probable together. Negative: probable together in spite of their vectors.
    """

    first: Tensor  # [n] int64
    second: Tensor  # [n] int64, larger than ``first``
    gap: Tensor  # [n] float64


def rank_correlation(similarity: Tensor, together: Tensor) -> float:
    """Spearman's correlation over all pairs of labels between two symmetric matrices [K, K], in [-1, 1].

    Pairs with NaN in either do not count; NaN where fewer than two pairs or only ties are left.
    """
    _, ranks, others = _ranks(similarity, together)
    if len(ranks) < 2 or np.ptp(ranks) == 0 or np.ptp(others) == 0:
        return float("nan")
    return float(np.corrcoef(ranks, others)[0, 1])


def largest_disagreements(similarity: Tensor, together: Tensor, count: int) -> Disagreements:
    """The ``count`` pairs of labels that two symmetric matrices [K, K] rank most differently, ties by label."""
    pairs, ranks, others = _ranks(similarity, together)
    gap = torch.from_numpy((ranks - others) / max(1, len(ranks)))
    order = gap.abs().argsort(descending=True, stable=True)[:count]
    return Disagreements(pairs[0, order], pairs[1, order], gap[order])


def _ranks(similarity: Tensor, together: Tensor) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The pairs [2, n] that both matrices know, and their ranks [n] in each, equal values sharing their mean rank."""
    from scipy.stats import rankdata

    if similarity.shape != together.shape:
        raise ValueError(f"the matrices are of different labels: {list(similarity.shape)} and {list(together.shape)}")
    pairs = torch.triu_indices(len(similarity), len(similarity), 1)
    values, others = (matrix.cpu()[pairs[0], pairs[1]] for matrix in (similarity, together))
    known = values.isfinite() & others.isfinite()
    return pairs[:, known], rankdata(values[known].numpy()), rankdata(others[known].numpy())
