"""Mutual proximity against its formulas on whole matrices, what it is invariant to, and where moments degenerate."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness import proximity_counts
from likeness.hubness.mutual_proximity import MutualProximity
from likeness.neighbours import exact
from tests.likeness.hubness import dense_reductions as dense
from tests.likeness.hubness.reduction_checks import (
    both_forms,
    clustered,
    points,
    require_formula,
    setting,
    unit,
)

LAWS = ("normal", "gamma")
VARIANTS = (*LAWS, "rank", "joint")


def keys_of(
    variant: str, x: Tensor, queries: Tensor | None = None, metric: str = "euclidean", stored: int | None = None
) -> dense.Matrix:
    """-log(1 - distance) for the laws, and the distance for the counts."""
    s = setting(x, queries)
    if variant in LAWS:
        return dense.mutual_proximity_law(s, variant, metric, stored)
    return {"rank": dense.mutual_proximity_rank, "joint": dense.mutual_proximity_joint}[variant](s, metric)


def require(method: MutualProximity, keys: dense.Matrix, queries: Tensor | None = None, k: int = 10) -> None:
    expected = -np.expm1(-keys) if method.variant in LAWS else keys
    require_formula(method, expected, queries, k, rtol=1e-7, keys=keys)


@both_forms
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_formula(variant: Any, metric: Any, queries: Tensor | None) -> None:
    x = points(160, 12)
    require(MutualProximity(variant, metric).fit(x), keys_of(variant, x, queries, metric), queries)


@both_forms
@pytest.mark.parametrize("variant", ["normal", "rank"])
def test_of_inner_products(variant: Any, queries: Tensor | None) -> None:
    x = points(160, 12)
    require(MutualProximity(variant, "dot").fit(x), keys_of(variant, x, queries, "dot"), queries)


@both_forms
@pytest.mark.parametrize("variant", LAWS)
@pytest.mark.parametrize("stored", [15, 60])
def test_moments_of_stored_neighbours(variant: Any, stored: int, queries: Tensor | None) -> None:
    x = points(160, 12)
    method = MutualProximity(variant, moments="graph", stored=stored).fit(x)
    require(method, keys_of(variant, x, queries, stored=stored), queries)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("k", [1, 10, 49])
def test_any_number_of_neighbours_in_blocks_of_any_size(variant: Any, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_CANDIDATES", 300)
    monkeypatch.setattr(proximity_counts, "_DISTANCES_AT_ONCE", 300)
    x = points(50, 5)
    require(MutualProximity(variant).fit(x), keys_of(variant, x), k=k)


@pytest.mark.parametrize("variant", VARIANTS)
def test_few_candidates_settle_what_all_points_settle(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hubs of a skewed cloud: the candidates of many rows do not suffice at first."""
    x = points(250, 30) * torch.linspace(0.2, 3, 250, dtype=torch.float64)[:, None]
    method = MutualProximity(variant).fit(x)
    monkeypatch.setattr(type(method._ranking(None)), "spare", 1)
    require(method, keys_of(variant, x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_far_from_the_index(variant: Any) -> None:
    """Queries to which every point is far beyond all that it knows."""
    x, queries = points(100, 6), points(20, 6, seed=1) + 30
    method = MutualProximity(variant).fit(x)
    assert bool(method.distances(queries).isfinite().all())
    assert method.rerank(queries).ids.shape == (20, 10)


@pytest.mark.parametrize("variant", LAWS)
def test_only_candidates_are_re_ranked(variant: Any) -> None:
    x = points(200, 20)
    nearest = dense.order(dense.pairs(x.numpy(), x.numpy(), "euclidean"), True)[:, :25]
    expected = np.full((200, 200), np.inf)
    np.put_along_axis(expected, nearest, np.take_along_axis(keys_of(variant, x), nearest, 1), 1)
    found = MutualProximity(variant, candidates=25).fit(x).rerank()
    np.testing.assert_array_equal(found.ids, dense.order(expected, True)[:, :10])


@pytest.mark.parametrize("candidates", [None, 149])
def test_equal_counts_go_by_id(candidates: int | None) -> None:
    x = points(150, 10)
    found = MutualProximity("joint", candidates=candidates).fit(x).rerank()
    np.testing.assert_array_equal(found.ids, dense.order(keys_of("joint", x), True)[:, :10])


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from(VARIANTS))
def test_symmetric_and_between_0_and_1(seed: int, variant: Any) -> None:
    reduced = MutualProximity(variant).fit(points(30, 4, seed)).distances().fill_diagonal_(0)
    torch.testing.assert_close(reduced, reduced.T, rtol=1e-9, atol=1e-12)
    assert bool(((reduced >= 0) & (reduced <= 1)).all())


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from(["rank", "joint"]))
def test_counts_ignore_monotone_transforms(seed: int, variant: Any) -> None:
    x = points(40, 4, seed)
    plain, squared = (MutualProximity(variant, metric).fit(x).distances() for metric in ("euclidean", "sqeuclidean"))
    assert torch.equal(plain, squared)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-3, 3))
def test_the_normal_law_ignores_positive_affine_maps(seed: int, scale: float, shift: float) -> None:
    """Of unit vectors |x - y|^2 = 2 (1 - cos); of others too, a scale changes nothing."""
    x = unit(points(40, 6, seed))
    reduced = MutualProximity("normal", "cosine").fit(x).distances()
    torch.testing.assert_close(MutualProximity("normal", "sqeuclidean").fit(x).distances(), reduced)
    torch.testing.assert_close(MutualProximity("normal", "dot").fit(x).distances(), reduced)
    moved = MutualProximity("normal", "sqeuclidean").fit(scale * x + shift).distances()
    torch.testing.assert_close(moved, reduced, rtol=1e-7, atol=1e-9)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_the_gamma_law_ignores_scales_alone(seed: int, scale: float) -> None:
    x = points(40, 6, seed)
    reduced = MutualProximity("gamma").fit(x).distances()
    torch.testing.assert_close(MutualProximity("gamma").fit(scale * x).distances(), reduced, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_float32_and_float16(variant: Any, metric: Any) -> None:
    x = clustered(400, 64)
    wide = MutualProximity(variant, metric).fit(x.double()).rerank().ids
    assert torch.equal(MutualProximity(variant, metric).fit(x).rerank().ids, wide)
    half = MutualProximity(variant, metric).fit(x.half()).rerank().ids
    assert torch.equal(half, MutualProximity(variant, metric).fit(x.half().float()).rerank().ids)


def test_near_neighbours_keep_their_order_where_1_minus_p_would_be_1() -> None:
    """In 400 dimensions 1 - p_q p_x of the nearest is below float64's rounding of 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 400, generator=generator, dtype=torch.float64)
    x[1:12] = x[0] + 0.001 * torch.arange(1, 12, dtype=torch.float64)[:, None] * torch.randn(400, generator=generator)
    found = MutualProximity("gamma").fit(x).rerank()
    assert found.ids[0].tolist() == list(range(1, 11))
    assert bool((found.distances[0] < 1e-16).all())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("moments", ["all", "graph"])
def test_identical_points_list_each_other_by_id(variant: Any, moments: Any) -> None:
    """100 texts without a word: with so few stored neighbours all their distances are 0, and so is the deviation."""
    if variant not in LAWS and moments == "graph":
        pytest.skip("counts have no moments")
    x = clustered(500, 32)
    x[100:200] = x[100]
    found = MutualProximity(variant, moments=moments, stored=50).fit(x).rerank()
    assert bool(found.distances.isfinite().all())
    assert found.ids[100].tolist() == list(range(101, 111))
    assert found.ids[170].tolist() == list(range(100, 110))


@pytest.mark.parametrize("variant", ["rank", "joint"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "dot"])
@pytest.mark.parametrize("in_sample", [True, False])
def test_counts_where_most_distances_tie(variant: Any, metric: Any, in_sample: bool) -> None:
    """Binary codes: whole numbers, or ratios of them, say which distances are equal."""
    draw = np.random.default_rng(0)
    x = np.unique(draw.integers(0, 2, (200, 10)), axis=0)
    x = x[x.any(1)].astype(np.float64)
    q = x if in_sample else draw.integers(0, 2, (30, 10)).astype(np.float64) + np.eye(10)[0]
    product, a, b = q @ x.T, (q**2).sum(1), (x**2).sum(1)
    own = x @ x.T
    if metric == "cosine":  # larger is nearer; squares of whole numbers over whole numbers, rounded alike
        rows, of_x = (-np.round(p**2 / np.outer(m, b), 12) for p, m in ((product, a), (own, b)))
    elif metric == "dot":
        rows, of_x = -product, -own
    else:
        rows, of_x = (m[:, None] + b - 2 * p for p, m in ((product, a), (own, b)))
    n = len(x)
    np.fill_diagonal(of_x, np.inf)
    rows = of_x if in_sample else rows
    if variant == "rank":
        forward = (rows[:, None] <= rows[:, :, None]).sum(2) / (n - in_sample)
        reverse = np.array([(of_x <= row[:, None]).sum(1) for row in rows]) / (n - 1)
        expected = 1 - (1 - forward) * (1 - reverse)
    else:
        others = np.where(np.isinf(of_x), -np.inf, of_x)
        expected = np.array(
            [
                1 - ((np.where(np.isinf(row), -np.inf, row) > row[:, None]) & (others > row[:, None])).sum(1) / n
                for row in rows
            ]
        )
    if in_sample:
        np.fill_diagonal(expected, np.inf)
    fitted = MutualProximity(variant, metric).fit(torch.from_numpy(x))
    queries = None if in_sample else torch.from_numpy(q)
    np.testing.assert_allclose(fitted.distances(queries), expected, rtol=0, atol=1e-12)
    found = fitted.rerank(queries)
    np.testing.assert_allclose(found.distances, np.sort(expected, 1)[:, :10], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found.ids, dense.order(np.round(expected, 9), in_sample)[:, :10])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e-2, 1e-4])
def test_cosines_of_points_with_a_large_part_in_common(variant: Any, dtype: torch.dtype, spread: float) -> None:
    """Cosine distances of 1e-4 to 1e-8, of which 1 - s keeps few digits."""
    x = (1 + spread * torch.randn(300, 32, generator=torch.Generator().manual_seed(4))).to(dtype)
    u = x.double() / x.double().norm(dim=1, keepdim=True)
    d = torch.stack([(u - row).square().sum(1) for row in u]).numpy() / 2
    if variant in LAWS:
        minus_log = {"normal": dense.minus_log_normal, "gamma": dense.minus_log_gamma}[variant]
        keys = minus_log(d, dense.others(d))
        expected = keys + keys.T
    else:
        np.fill_diagonal(d, np.inf)
        within = np.array([(d[i] <= d[i][:, None]).sum(1) for i in range(300)])
        np.fill_diagonal(within, 299)
        expected = 1 - (1 - within / 299) * (1 - within.T / 299)
        if variant == "joint":
            expected = (
                1
                - np.array(
                    [
                        ((row > row[:, None]) & (d > row[:, None]) & np.isfinite(row) & np.isfinite(d)).sum(1)
                        for row in d
                    ]
                )
                / 300
            )
    found = MutualProximity(variant, "cosine").fit(x).rerank()
    np.testing.assert_array_equal(found.ids, dense.order(np.round(expected, 13), True)[:, :10])


def test_a_constant_distance_gives_a_step() -> None:
    """A simplex: every distance is the same, so no deviation exists anywhere."""
    found = MutualProximity("normal").fit(torch.eye(12, dtype=torch.float64)).rerank(k=3)
    assert bool(found.distances.isfinite().all())
    assert bool(((found.distances >= 0) & (found.distances <= 1)).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "weibull"}, "variant of mutual_proximity must be one of normal, gamma, joint, rank"),
        ({"metric": "manhattan"}, "metric of mutual_proximity must be one of"),
        ({"moments": "some"}, "moments of mutual_proximity must be one of all, graph"),
        ({"variant": "rank", "moments": "graph"}, "variant 'rank' has no moments"),
        ({"variant": "gamma", "metric": "dot"}, "no negative values"),
        ({"stored": 0}, "stored of mutual_proximity must be at least 1, got 0"),
        ({"candidates": 0}, "candidates of mutual_proximity must be at least 1, got 0"),
    ],
)
def test_options_without_a_meaning(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MutualProximity(**options)


def test_more_stored_neighbours_than_points() -> None:
    with pytest.raises(ValueError, match="stored is 100, but each point has 29 others"):
        MutualProximity(moments="graph").fit(points(30, 4))


def test_more_neighbours_than_candidates() -> None:
    with pytest.raises(ValueError, match="k is 10, but mutual_proximity re-ranks 5 candidates only"):
        MutualProximity(candidates=5).fit(points(30, 4)).rerank()


def test_no_augmented_vectors() -> None:
    with pytest.raises(NotImplementedError, match="mutual_proximity has no augmented vectors"):
        MutualProximity().fit(points(30, 4)).augment()
