"""Counts of neighbours and their histogram, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.indices import asymmetry, bad_k_occurrence, count_histogram, k_occurrence, merge_histograms


def random_lists(queries: int, points: int, k: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.choice(points, k, replace=False) for _ in range(queries)]))


@given(queries=st.integers(1, 30), points=st.integers(2, 20), seed=st.integers(0, 99), data=st.data())
def test_counts_against_a_loop_and_their_sum(queries: int, points: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, points))
    ids = random_lists(queries, points, k, seed)
    counts = k_occurrence(ids, points)
    assert counts.tolist() == [sum(x in row for row in ids.tolist()) for x in range(points)]
    assert counts.dtype == torch.int64
    assert counts.sum() == k * queries


@given(cut=st.integers(1, 29), narrow=st.sampled_from([torch.int16, torch.int32, torch.int64]))
def test_counts_of_shards_of_queries_add(cut: int, narrow: torch.dtype) -> None:
    ids = random_lists(30, 12, 4).to(narrow)
    assert torch.equal(k_occurrence(ids[:cut], 12) + k_occurrence(ids[cut:], 12), k_occurrence(ids, 12))


@given(cut=st.integers(1, 11))
def test_histograms_of_shards_of_the_index_merge(cut: int) -> None:
    counts = k_occurrence(random_lists(30, 12, 4), 12)
    shards = [count_histogram(counts[:cut]), count_histogram(counts[cut:])]
    assert torch.equal(merge_histograms(shards), count_histogram(counts))
    assert [int((counts == c).sum()) for c in range(int(counts.max()) + 1)] == count_histogram(counts).tolist()


def test_bad_occurrences_against_a_loop() -> None:
    ids, labels, asked_by = random_lists(30, 12, 4), torch.arange(12) % 3, torch.arange(30) % 4
    expected = [sum(x in row and asked_by[q] != labels[x] for q, row in enumerate(ids.tolist())) for x in range(12)]
    assert bad_k_occurrence(ids, labels, asked_by).tolist() == expected


def test_bad_occurrences_in_sample_take_the_points_labels() -> None:
    ids = torch.tensor([[1], [2], [0]])
    assert bad_k_occurrence(ids, torch.tensor([0, 0, 1])).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="3 lists of neighbours need as many queries' labels, got 2"):
        bad_k_occurrence(ids, torch.tensor([0, 0, 1]), torch.tensor([0, 0]))


def test_asymmetry_against_sets_of_edges() -> None:
    ids = random_lists(40, 39, 6)
    ids = ids + (ids >= torch.arange(40)[:, None])  # nobody is its own neighbour
    edges = {(i, j) for i, row in enumerate(ids.tolist()) for j in row}
    mutual = sum((j, i) in edges for i, j in edges)
    assert asymmetry(ids) == pytest.approx(1 - mutual / 240)


def test_asymmetry_of_mutual_and_of_one_way_graphs() -> None:
    ring = torch.stack([(torch.arange(10) - 1) % 10, (torch.arange(10) + 1) % 10], dim=1)
    assert asymmetry(ring) == 0
    assert asymmetry(ring[:, 1:]) == 1
    assert asymmetry(torch.arange(10)[:, None]) == 0


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 1], [2, 3]]), r"ids\[1, 1\] is 3, which is none of the points 0 to 2"),
        (torch.tensor([[0, -1]]), r"ids\[0, 1\] is -1"),
        (torch.tensor([[0, 1], [2, 2]]), r"ids\[1\] names one point twice: \[2, 2\]"),
        (torch.tensor([0, 1]), r"must be \[m, k\].* got \[2\]"),
        (torch.empty(0, 3, dtype=torch.long), r"got \[0, 3\]"),
    ],
)
def test_ids_that_name_no_points_are_refused(ids: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_occurrence(ids, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_ids_are_integers(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=str(dtype)):
        k_occurrence(torch.zeros(2, 1, dtype=dtype), 3)


def test_counting_leaves_the_ids_as_they_are() -> None:
    ids = random_lists(30, 12, 4)
    before = ids.clone()
    k_occurrence(ids, 12)
    asymmetry(random_lists(12, 12, 4))
    assert torch.equal(ids, before)


def test_counts_are_not_negative() -> None:
    with pytest.raises(ValueError, match="got -2"):
        count_histogram(torch.tensor([3, -2]))
