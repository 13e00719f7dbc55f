"""Exact neighbours against a float64 sort of all distances: ties, near-duplicates, blocks, and what is refused."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.neighbours import exact as neighbours
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from tests.likeness.neighbours.brute_force import brute_force

METRICS = get_args(DistanceName)
metrics = pytest.mark.parametrize("metric", METRICS)


def points(n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_as_defined(
    index: torch.Tensor,
    k: int,
    metric: DistanceName,
    queries: torch.Tensor | None = None,
    include_self: bool = False,
    rtol: float = 1e-12,
) -> None:
    found = nearest_neighbours(index, k, metric=metric, queries=queries, include_self=include_self)
    distances, ids = brute_force(index, k, metric, queries, include_self)
    assert found.ids.dtype == torch.int64
    assert found.distances.dtype == torch.float64
    assert torch.equal(found.ids, ids)
    torch.testing.assert_close(found.distances, distances, rtol=rtol, atol=1e-14)


def small_blocks(patch: pytest.MonkeyPatch, tile: int, columns: int) -> None:
    patch.setattr(neighbours, "_TILE", tile)
    patch.setattr(neighbours, "_COLUMNS", columns)


@metrics
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_points_of_any_type(dtype: torch.dtype, metric: DistanceName) -> None:
    # In 40 dimensions even bfloat16 leaves no two distances equal, but cosines as good as.
    assert_as_defined(points(300, 40, dtype=dtype), 10, metric)


@metrics
@pytest.mark.parametrize("k", [1, 10, 59])
@pytest.mark.parametrize("include_self", [False, True])
def test_any_k_with_and_without_the_point_itself(metric: DistanceName, k: int, include_self: bool) -> None:
    assert_as_defined(points(60, 5), k, metric, include_self=include_self)


@metrics
@pytest.mark.parametrize("k", [1, 10, 80])
def test_queries_of_their_own(metric: DistanceName, k: int) -> None:
    assert_as_defined(points(80, 12), k, metric, queries=points(33, 12, seed=1))


@metrics
def test_blocks_change_nothing(metric: DistanceName, monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch, tile=37 * 11, columns=37)
    assert_as_defined(points(200, 8), 10, metric)
    assert_as_defined(points(200, 8), 50, metric, queries=points(31, 8, seed=1))


whole_numbers = st.integers(2, 30).flatmap(
    lambda n: st.integers(1, 4).flatmap(
        lambda d: st.lists(st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=n, max_size=n)
    )
)


@settings(max_examples=150)
@given(whole_numbers, st.sampled_from(["euclidean", "sqeuclidean", "dot"]), st.data())
def test_ties_are_broken_by_id(rows: list[list[int]], metric: DistanceName, data: st.DataObject) -> None:
    include_self = data.draw(st.booleans())
    k = data.draw(st.integers(1, len(rows) - (not include_self)))
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch, tile=data.draw(st.integers(1, 200)), columns=data.draw(st.integers(1, 40)))
        patch.setattr(neighbours, "_CANDIDATES", 16)
        assert_as_defined(torch.tensor(rows, dtype=torch.float32), k, metric, include_self=include_self)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "dot"])
def test_a_grid_full_of_duplicates(metric: DistanceName) -> None:
    grid = torch.randint(0, 4, (700, 3), generator=torch.Generator().manual_seed(0)).float()
    assert_as_defined(grid, 15, metric)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_more_copies_than_neighbours(metric: DistanceName) -> None:
    x = points(900, 6)
    x[100:700] = x[100]
    found = nearest_neighbours(x, 5, metric=metric)
    assert found.ids[102].tolist() == [100, 101, 103, 104, 105]
    assert found.ids[650].tolist() == [100, 101, 102, 103, 104]
    assert torch.equal(found.distances[100:700], torch.zeros(600, 5, dtype=torch.float64))
    assert_as_defined(x, 5, metric)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "dot"])
def test_copies_at_the_centre_which_are_near_to_all(metric: DistanceName) -> None:
    x = points(400, 6)
    x[::3] = 0
    assert_as_defined(x, 8, metric)
    assert_as_defined(x, 150, metric)


def test_scaled_copies_tie_under_the_cosine() -> None:
    x = points(50, 7).repeat(4, 1) * torch.tensor([1.0, 4.0, 0.5, 2.0]).repeat_interleave(50)[:, None]
    found = nearest_neighbours(x, 3, metric="cosine")
    copies = torch.arange(50)[:, None] + torch.tensor([0, 50, 100, 150])
    assert torch.equal(found.ids[:50], copies[:, 1:])
    assert torch.equal(found.ids[100:150], copies[:, [0, 1, 3]])
    assert torch.equal(found.distances, torch.zeros(200, 3, dtype=torch.float64))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_near_duplicates_far_from_the_origin(offset: float) -> None:
    base = points(100, 20, dtype=torch.float64)
    x = base.repeat(4, 1) + 1e-7 * points(400, 20, seed=1, dtype=torch.float64) + offset
    assert_as_defined(x, 6, "euclidean", rtol=1e-11)
    assert_as_defined(x.float(), 6, "sqeuclidean")


def test_near_duplicates_under_the_cosine() -> None:
    base = points(100, 20, dtype=torch.float64)
    x = base.repeat(4, 1) * (1 + 1e-6 * points(400, 20, seed=1, dtype=torch.float64))
    found = nearest_neighbours(x, 3, metric="cosine")
    units = x / x.norm(dim=1, keepdim=True)
    assert torch.equal(found.ids, brute_force(units, 3, "euclidean")[1])
    torch.testing.assert_close(found.distances, brute_force(units, 3, "sqeuclidean")[0] / 2, rtol=1e-9, atol=0)


@metrics
def test_lengths_of_all_sizes(metric: DistanceName) -> None:
    x = points(300, 10) * torch.logspace(-6, 6, 300)[:, None]
    assert_as_defined(x, 10, metric, rtol=1e-11)


@metrics
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_what_overflows_or_underflows_when_squared(metric: DistanceName, scale: float) -> None:
    x = points(200, 10)
    ids = nearest_neighbours(x * scale, 10, metric=metric).ids
    assert torch.equal(ids, brute_force((x * scale).double() / scale, 10, metric)[1])


def test_a_query_of_zeros_is_equally_near_to_all_by_the_inner_product() -> None:
    found = nearest_neighbours(points(500, 4), 4, metric="dot", queries=torch.zeros(1, 4))
    assert found.ids.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("precision", ["high", "medium"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_training_with_coarse_products_changes_nothing(precision: str, autocast: bool) -> None:
    x = points(400, 64)
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            assert_as_defined(x, 10, "euclidean")
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from(METRICS))
def test_neighbours_move_with_their_points(seed: int, metric: DistanceName) -> None:
    x = points(80, 6, seed)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(seed))
    before, after = nearest_neighbours(x, 7, metric=metric), nearest_neighbours(x[order], 7, metric=metric)
    assert torch.equal(order[after.ids], before.ids[order])
    assert torch.equal(after.distances, before.distances[order])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(-3, 3), st.floats(-50, 50))
def test_what_the_metrics_do_not_see(seed: int, log_scale: float, shift: float) -> None:
    x = points(80, 6, seed, torch.float64)
    rotation = torch.linalg.qr(points(6, 6, seed + 1, torch.float64))[0]
    turned = 10**log_scale * x @ rotation
    lengths = points(80, 1, seed + 2, torch.float64).exp()
    for metric, seen in (("euclidean", turned + shift), ("cosine", lengths * turned), ("dot", turned)):
        same = nearest_neighbours(seen, 7, metric=metric).ids  # type: ignore[arg-type]
        assert torch.equal(same, nearest_neighbours(x, 7, metric=metric).ids)  # type: ignore[arg-type]


def test_the_inner_product_sees_a_shift() -> None:
    x = points(80, 6)
    assert not torch.equal(nearest_neighbours(x, metric="dot").ids, nearest_neighbours(x + 1, metric="dot").ids)


def test_no_gradient_is_kept_and_nothing_is_changed() -> None:
    x = points(50, 4, dtype=torch.float64).requires_grad_()
    before = x.detach().clone()
    assert not nearest_neighbours(x, 3, metric="cosine").distances.requires_grad
    assert torch.equal(x, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@metrics
def test_on_a_gpu(metric: DistanceName) -> None:
    x = points(3000, 32)
    on_gpu, on_cpu = (nearest_neighbours(x.to(device), 10, metric=metric) for device in ("cuda", "cpu"))
    assert on_gpu.ids.device.type == "cuda"
    assert torch.equal(on_gpu.ids.cpu(), on_cpu.ids)
    torch.testing.assert_close(on_gpu.distances.cpu(), on_cpu.distances, rtol=1e-12, atol=1e-14)


def test_rows_that_are_not_finite_are_named() -> None:
    x = points(20, 3)
    x[4, 1], x[9, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"2 rows of index are not finite: 4, 9; row 4 has nan"):
        nearest_neighbours(x, 3)
    with pytest.raises(ValueError, match=r"2 rows of queries are not finite: 4, 9; row 4 has nan"):
        nearest_neighbours(points(20, 3), 3, queries=x)


def test_rows_of_zeros_are_named_under_the_cosine() -> None:
    x = points(20, 3)
    x[[2, 3, 5, 7, 11, 13]] = 0
    with pytest.raises(ValueError, match=r"6 rows of index are zero and have no cosine: 2, 3, 5, 7, 11, \.\.\."):
        nearest_neighbours(x, 3, metric="cosine")
    assert_as_defined(x, 3, "euclidean")


@pytest.mark.parametrize(("k", "include_self", "most"), [(0, False, 19), (20, False, 19), (21, True, 20)])
def test_more_neighbours_than_there_are_are_refused(k: int, include_self: bool, most: int) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to {most}, but it is {k}: the index has 20 points"):
        nearest_neighbours(points(20, 3), k, include_self=include_self)


@pytest.mark.parametrize("shape", [(5,), (0, 3), (5, 0), (2, 3, 4)])
def test_what_is_no_set_of_points_is_refused(shape: tuple[int, ...]) -> None:
    named = rf"index must be \[points, dimensions\], but is torch.float32 of shape \[{', '.join(map(str, shape))}\]"
    with pytest.raises(ValueError, match=named):
        nearest_neighbours(torch.zeros(shape), 1)


def test_dimensions_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the shapes are \[5, 4\] and \[20, 3\]"):
        nearest_neighbours(points(20, 3), 1, queries=points(5, 4))


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric must be one of euclidean, sqeuclidean, cosine, dot, but it is 'l1'"):
        nearest_neighbours(points(20, 3), 1, metric="l1")  # type: ignore[arg-type]
