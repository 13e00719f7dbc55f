"""Identical points take turns in lists of neighbours."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.hubness.reduction_base import DuplicatePoints
from likeness.neighbours.exact import Neighbours, nearest_neighbours


def test_lists_without_identical_points_stay() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    found = nearest_neighbours(x, 5)
    assert DuplicatePoints(x).take_turns(found, in_sample=True) is found


def test_in_their_own_group_each_stands_in_as_many_lists_as_the_others() -> None:
    x = torch.zeros(20, 3)
    found = DuplicatePoints(x).take_turns(nearest_neighbours(x, 4), in_sample=True)
    assert found.ids[0].tolist() == [1, 2, 3, 4]
    assert found.ids[18].tolist() == [19, 0, 1, 2]
    assert torch.bincount(found.ids.flatten()).tolist() == [4] * 20


def test_other_queries_go_round_the_group() -> None:
    x = torch.zeros(6, 3)
    queries = torch.ones(3, 3)
    found = DuplicatePoints(x).take_turns(nearest_neighbours(x, 2, queries=queries), in_sample=False)
    assert found.ids.tolist() == [[0, 1], [2, 3], [4, 5]]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5), min_size=6, max_size=40), st.integers(1, 5), st.booleans())
def test_only_identical_points_are_exchanged(values: list[int], k: int, in_sample: bool) -> None:
    x = torch.tensor(values, dtype=torch.float64)[:, None] ** 2
    queries = None if in_sample else torch.arange(7, dtype=torch.float64)[:, None]
    before = nearest_neighbours(x, k, queries=queries)
    after = DuplicatePoints(x).take_turns(before, in_sample=in_sample)
    assert torch.equal(x[after.ids], x[before.ids])
    assert after.distances is before.distances
    assert all(len(set(row)) == k for row in after.ids.tolist())
    if in_sample:
        assert not bool((after.ids == torch.arange(len(x))[:, None]).any())


def test_equal_distances_of_different_points_stay() -> None:
    x = torch.tensor([[0.0], [1.0], [-1.0], [2.0], [2.0]])
    found = Neighbours(torch.zeros(1, 3), torch.tensor([[1, 2, 3]]))
    assert DuplicatePoints(x).take_turns(found, in_sample=False).ids.tolist() == [[1, 2, 3]]
