"""Rank correlations and disagreements of label similarities, against scipy and by hand."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from likeness.label_geometry.similarity import largest_disagreements, rank_correlation


def symmetric(seed: int, labels: int = 8, levels: int | None = None) -> Tensor:
    matrix = torch.rand(labels, labels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix = matrix + matrix.T
    return matrix if levels is None else (levels * matrix).round()


@pytest.mark.parametrize("levels", [None, 3])
def test_rank_correlation_is_spearmans(levels: int | None) -> None:
    one, other = symmetric(0, levels=levels), symmetric(1, levels=levels)
    rows, columns = torch.triu_indices(8, 8, 1)
    expected = scipy.stats.spearmanr(one[rows, columns], other[rows, columns]).statistic
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)


def test_pairs_that_one_matrix_does_not_know_do_not_count() -> None:
    one, other = symmetric(0), symmetric(1)
    one[3] = one[:, 3] = math.nan
    kept = [0, 1, 2, 4, 5, 6, 7]
    expected = rank_correlation(one[kept][:, kept], other[kept][:, kept])
    assert rank_correlation(one, other) == pytest.approx(expected)
    found = largest_disagreements(one, other, 100)
    assert len(found.gap) == 21
    assert 3 not in found.first.tolist() + found.second.tolist()


def test_no_order_no_correlation() -> None:
    assert math.isnan(rank_correlation(torch.ones(4, 4), symmetric(0, 4)))
    assert math.isnan(rank_correlation(torch.full((4, 4), math.nan), symmetric(0, 4)))


def test_disagreements_are_sorted_and_signed() -> None:
    similarity = torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.5], [0.1, 0.5, 1.0]])
    together = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, 0.2], [0.3, 0.2, 1.0]])
    first, second, gap = largest_disagreements(similarity, together, 2)
    assert (first.tolist(), second.tolist()) == ([0, 0], [1, 2])
    assert gap.tolist() == pytest.approx([2 / 3, -2 / 3])


def test_matrices_of_different_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[3, 3\] and \[4, 4\]"):
        rank_correlation(torch.eye(3), torch.eye(4))
