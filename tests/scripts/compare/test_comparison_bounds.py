"""Bounds of all pairs: their values, where they are informative, and what they are computed from."""

import torch

from likeness.comparisons.bounds import bounds_on, sources
from likeness.similarity.catalogue import MEASURES


def matrix(value: float) -> torch.Tensor:
    return torch.tensor([[0.0, value], [value, 0.0]], dtype=torch.float64)


def test_values_are_of_the_models_own_dimension() -> None:
    values = {"d_fg": matrix(0.01), "d_llv": matrix(0.2), "kl": matrix(1.0)}
    found = bounds_on(["kl", "d_fg"], values, dims=[2, 3])
    assert set(found) == {"d_fg"}
    paper, squared = found["d_fg"]
    assert paper.bound.value.tolist() == [[0, 2 * 2 * 0.2], [2 * 3 * 0.2, 0]]
    assert paper.bound.informative.tolist() == [[True, True], [False, True]]
    assert torch.equal(squared.bound.value, matrix(2 * 0.2**2))
    assert (paper.column, squared.column) == ("paper_bound", "squared_bound")
    assert (paper.derived, squared.derived) == (False, True)


def test_nothing_is_bounded_where_the_measure_is_undefined() -> None:
    values = {"max_d_svd_f": matrix(torch.nan), "certificate": matrix(0.3)}
    (found,) = bounds_on(["max_d_svd_f"], values, dims=[2, 2])["max_d_svd_f"]
    assert found.bound.value.isnan().tolist() == [[False, True], [True, False]]
    assert found.bound.informative.tolist() == [[True, False], [False, True]]


def test_what_the_bounds_are_computed_from() -> None:
    assert sources(["kl", "d_llv"]) == {}
    assert sources(["d_fg"]) == {"d_llv": MEASURES["d_llv"]}
    assert set(sources(["d_fg", "max_d_svd_f"])) == {"d_llv", "certificate"}
