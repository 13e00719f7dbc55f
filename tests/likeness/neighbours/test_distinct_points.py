"""Places and their copies, against a sort of all points."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.neighbours import exact as distinct_points
from likeness.neighbours.exact import DistinctPoints
from tests.likeness.neighbours.brute_force import first_of_rows


def test_a_place_is_named_by_its_first_point() -> None:
    x = torch.tensor([[2.0, 0.0], [1.0, 0.0], [2.0, -0.0], [0.0, 3.0], [1.0, 0.0]])
    assert DistinctPoints(x).first.tolist() == [0, 1, 3]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_the_first_points_stand_at_the_first_places(values: list[int], data: st.DataObject) -> None:
    x = torch.tensor(values)[:, None]
    k = data.draw(st.integers(1, len(values)))
    places = DistinctPoints(x)
    distances = torch.tensor([[-5], [0], [2]]).sub(x.T).abs().double()
    at_places = distances[:, places.first]
    nearest = torch.from_numpy(first_of_rows(at_places.numpy(), k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distinct_points, "_LISTED", data.draw(st.integers(1, 500)))
        found, ids = places.expand(at_places.gather(1, nearest), nearest, k)
    expected = torch.from_numpy(first_of_rows(distances.numpy(), k))
    assert torch.equal(ids, expected)
    assert torch.equal(found, distances.gather(1, expected))
