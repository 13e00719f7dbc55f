"""What every peer measure promises: its invariances, its range, the same numbers in a batch, and its refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.similarity.catalogue import REPRESENTATION_MEASURES, RepresentationMeasure
from likeness.similarity.representations.cca import m_cca
from tests.likeness.similarity.paired_samples import generator, orthogonal, related, unrelated

measures = pytest.mark.parametrize("measure", REPRESENTATION_MEASURES.values(), ids=REPRESENTATION_MEASURES)
TURNS_CHANGE = {"pwcca"}  # of the side that weighs
N = 24


def value(measure: RepresentationMeasure, x: torch.Tensor, y: torch.Tensor) -> float:
    return float(measure(x, y))


@measures
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), dims=st.tuples(st.integers(2, 5), st.integers(2, 5)))
def test_range_and_symmetry(measure: RepresentationMeasure, seed: int, dims: tuple[int, int]) -> None:
    x, y = related(N, dims, seed)
    assert measure.limit is not None
    lower = -measure.limit if measure.larger_is_more_alike else 0
    assert lower <= value(measure, x, y) <= measure.limit + 1e-12
    if measure.symmetric:
        assert value(measure, x, y) == pytest.approx(value(measure, y, x), abs=1e-12)


@measures
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_blind_to_orthogonal_maps_scale_and_shift(
    measure: RepresentationMeasure, seed: int, scale: float, shift: float
) -> None:
    x, y = related(N, (3, 4), seed)
    assert value(measure, x, scale * y @ orthogonal(4, seed) + shift) == pytest.approx(value(measure, x, y), abs=1e-9)
    turn = torch.eye(3, dtype=torch.float64) if measure is REPRESENTATION_MEASURES["pwcca"] else orthogonal(3, seed)
    assert value(measure, scale * x @ turn + shift, y) == pytest.approx(value(measure, x, y), abs=1e-9)


@measures
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_blind_to_the_order_of_samples(measure: RepresentationMeasure, seed: int) -> None:
    x, y = related(N, (3, 4), seed)
    order = torch.randperm(N, generator=generator(seed))
    assert value(measure, x[order], y[order]) == pytest.approx(value(measure, x, y), abs=1e-11)


@measures
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), dim=st.integers(2, 6))
def test_a_representation_is_as_like_itself_as_can_be(measure: RepresentationMeasure, seed: int, dim: int) -> None:
    x, _ = unrelated(N, (dim, 1), seed)
    assert value(measure, x, x) == pytest.approx(1 if measure.larger_is_more_alike else 0, abs=1e-12)


@measures
def test_more_noise_is_less_alike(measure: RepresentationMeasure) -> None:
    values = torch.tensor([value(measure, *related(100, (3, 4), noise=noise)) for noise in (0.01, 0.5, 2, 100)])
    steps = values.diff() * (-1 if measure.larger_is_more_alike else 1)
    assert bool((steps > 0).all()), values


@measures
def test_all_pairs_at_once_are_the_pairs_one_by_one(measure: RepresentationMeasure) -> None:
    models = [related(N, (3, 2 + seed), seed)[1] for seed in range(4)]
    expected = torch.stack([torch.stack([measure(x, y) for y in models]) for x in models])
    answer = measure.function(models, list("abcd")).values
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-12)


@measures
def test_one_side_in_several_orders_at_once(measure: RepresentationMeasure) -> None:
    x, y = related(N)
    orders = torch.stack([torch.randperm(N, generator=generator(seed)) for seed in range(5)])
    expected = torch.stack([measure(x, y[order]) for order in orders])
    a, b = measure.prepare(x, "x"), measure.prepare(y, "y")
    torch.testing.assert_close(measure.compare(a, measure.reorder(b, orders)), expected, rtol=0, atol=1e-12)


@measures
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16])
def test_other_types_are_measured_in_float64(measure: RepresentationMeasure, dtype: torch.dtype) -> None:
    x, y = ((10 * z).to(dtype) for z in related(N))
    answer = measure(x, y)
    assert answer.dtype == torch.float64
    assert answer == measure(x.double(), y.double())


@measures
def test_different_numbers_of_samples_are_refused_with_the_shapes(measure: RepresentationMeasure) -> None:
    x, y = related(N)
    with pytest.raises(ValueError, match=r"same samples.*'x' is \[24, 3\], 'y' is \[23, 4\]"):
        measure(x, y[:-1])
    with pytest.raises(ValueError, match=r"'a' is \[24, 3\], 'b' is \[24, 4\], 'c' is \[20, 4\]"):
        measure.function([x, y, y[:20]], ["a", "b", "c"])


@measures
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_with_the_sample(measure: RepresentationMeasure, bad: float) -> None:
    x, y = related(N)
    y[5, 2] = bad
    with pytest.raises(ValueError, match=f"'y' is not finite at sample 5: {bad}"):
        measure(x, y)


@measures
@pytest.mark.parametrize("constant", [0.0, 0.1, -1e8 / 3])
def test_a_constant_representation_is_refused(measure: RepresentationMeasure, constant: float) -> None:
    x, _ = related(N)
    with pytest.raises(ValueError, match=r"'y' of shape \[24, 2\] is the same for every sample"):
        measure(x, torch.full((N, 2), constant, dtype=torch.float64))


@measures
@pytest.mark.parametrize("shape", [(1, 2), (N,), (2, N, 2), (N, 0), (0, 2)])
def test_shapes_that_are_no_samples_are_refused(measure: RepresentationMeasure, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=generator(0))
    with pytest.raises(ValueError, match=r"'x' (is|must be).*\["):
        measure(x, x)


def test_m_cca_scores_1_where_the_peers_see_a_difference() -> None:
    """An independent invertible map is invisible to canonical correlations alone."""
    x, _ = unrelated(500, (3, 1))
    image = x * torch.tensor([10.0, 1.0, 0.1])
    assert float(m_cca(x, image)) == pytest.approx(1, abs=1e-12)
    assert value(REPRESENTATION_MEASURES["linear_cka"], x, image) < 0.7
    assert value(REPRESENTATION_MEASURES["rsa"], x, image) < 0.7
    assert value(REPRESENTATION_MEASURES["procrustes"], x, image) > 0.5
    assert value(REPRESENTATION_MEASURES["mutual_knn"], x, image) < 0.3
