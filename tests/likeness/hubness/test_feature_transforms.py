"""Transforms of features, against scikit-learn's and brute force in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.f_norm import FNorm
from likeness.hubness.feature_transforms import (
    Centring,
    DropComponents,
    FeatureTransform,
    RowCentring,
    RowStandardisation,
    Whitening,
    ZScore,
)
from likeness.hubness.reduction_base import NotFittedError
from likeness.hubness.reductions import reduction
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from likeness.numerics import FeatureMoments

ALL: list[tuple[type[FeatureTransform], dict[str, Any]]] = [
    (Centring, {}),
    (ZScore, {}),
    (RowCentring, {}),
    (RowStandardisation, {}),
    (DropComponents, {"num": 2}),
    (Whitening, {}),
    (FNorm, {}),
    (FNorm, {"order": "random"}),
]
METRICS: tuple[DistanceName, ...] = ("euclidean", "sqeuclidean", "cosine", "dot")
each_transform = pytest.mark.parametrize(("kind", "options"), ALL, ids=lambda value: getattr(value, "name", ""))


def points(n: int, dim: int = 8, seed: int = 0) -> Tensor:
    """Correlated, of different scales, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mixing + torch.arange(dim)


def brute_force(queries: Tensor, index: Tensor, metric: DistanceName) -> Tensor:
    """Distances [m, n] of all pairs."""
    if metric in ("euclidean", "sqeuclidean"):
        squares = (queries[:, None] - index).square().sum(-1)
        return squares.sqrt() if metric == "euclidean" else squares
    if metric == "dot":
        return -queries @ index.T
    return 1 - torch.cosine_similarity(queries[:, None], index, dim=-1)


def test_centring_and_z_score_are_those_of_scikit_learn() -> None:
    from sklearn.preprocessing import StandardScaler

    index, queries = points(60), points(9, seed=1)
    scaler, centring = StandardScaler().fit(index), StandardScaler(with_std=False).fit(index)
    np.testing.assert_allclose(ZScore().fit(index).transform(queries), scaler.transform(queries), rtol=1e-9)
    np.testing.assert_allclose(Centring().fit(index).transform(queries), centring.transform(queries), rtol=1e-9)


def test_whitening_is_that_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    index, queries = points(60), points(9, seed=1)
    pca = PCA(whiten=True).fit(index)
    for metric in METRICS:
        scale = 60 / 59 if metric in ("sqeuclidean", "dot") else (60 / 59) ** 0.5 if metric == "euclidean" else 1
        expected = brute_force(*(torch.from_numpy(pca.transform(x)) for x in (queries, index)), metric)
        torch.testing.assert_close(Whitening(metric).fit(index).distances(queries), expected * scale)


def test_whitening_leaves_out_what_does_not_vary() -> None:
    index = points(60)
    wide = torch.cat([index, index[:, :3] + 1, torch.full((60, 2), 5.0)], 1)  # of rank 8 in 13 dimensions
    vectors = Whitening().fit(wide.float()).transform(wide.float())
    assert vectors.shape == (60, 8)
    torch.testing.assert_close(vectors.T @ vectors / 60, torch.eye(8), rtol=0, atol=1e-4)


def test_dropped_components_are_gone_and_the_others_stay() -> None:
    index = points(60)
    vectors = DropComponents(2).fit(index).transform(index)
    left = torch.linalg.svdvals(index - index.mean(0))[2:]
    torch.testing.assert_close(torch.linalg.svdvals(vectors)[:6], left)
    assert float(torch.linalg.svdvals(vectors)[6]) < 1e-10


@each_transform
def test_rows_are_mapped_alone_and_as_the_index_was(kind: type[FeatureTransform], options: dict[str, Any]) -> None:
    index, queries = points(40), points(7, seed=1)
    method = kind(**options).fit(index)
    together = method.transform(torch.cat([index, queries]))
    torch.testing.assert_close(torch.cat([method.transform(row[None]) for row in queries]), together[40:])
    torch.testing.assert_close(method.transform(index), together[:40])


@each_transform
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_distances_and_augmented_vectors_agree(
    kind: type[FeatureTransform], options: dict[str, Any], metric: DistanceName
) -> None:
    index, queries = points(70), points(20, seed=1)
    method = kind(**options, metric=metric).fit(index)
    vectors, mapped = method.transform(index), method.transform(queries)
    expected = brute_force(mapped, vectors, metric)
    torch.testing.assert_close(method.distances(queries), expected)
    assert torch.equal(method.rerank(queries, k=5).ids, expected.argsort(dim=1)[:, :5])
    augmented = method.augment()
    assert torch.equal((augmented.queries(queries) @ augmented.index.T).topk(5).indices, expected.argsort(1)[:, :5])
    own = brute_force(vectors, vectors, metric).fill_diagonal_(torch.inf)
    torch.testing.assert_close(method.distances(), own, rtol=1e-6, atol=1e-6)
    assert torch.equal(method.rerank(k=5).ids, own.argsort(dim=1)[:, :5])


@each_transform
def test_float32_and_arrays_give_the_same_neighbours(kind: type[FeatureTransform], options: dict[str, Any]) -> None:
    index, queries = points(70), points(20, seed=1)
    exact = kind(**options).fit(index).rerank(queries)
    rounded = kind(**options).fit(index.numpy().astype(np.float32)).rerank(queries.float())
    assert float((exact.ids == rounded.ids).double().mean()) > 0.99


@given(seed=st.integers(0, 1000), dim=st.integers(2, 9))
def test_centring_and_z_scores_are_idempotent(seed: int, dim: int) -> None:
    for kind in (Centring, ZScore, RowCentring, RowStandardisation):
        x = 1e4 * points(30, dim, seed)  # beside which the 1e-6 in a row's z-score is nothing
        once = kind().fit(x).transform(x)
        torch.testing.assert_close(kind().fit(once).transform(once), once, rtol=1e-5, atol=1e-8)


@given(seed=st.integers(0, 1000), scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
def test_z_score_does_not_see_shift_and_scale(seed: int, scale: float, shift: float) -> None:
    x = points(30, 5, seed)
    moved = scale * (x + shift)
    torch.testing.assert_close(ZScore().fit(moved).transform(moved), ZScore().fit(x).transform(x), rtol=1e-6, atol=1e-6)


def test_centring_with_inner_products_is_dissimglobal() -> None:
    index = points(50)
    centre = index.mean(0)
    squares = brute_force(index, index, "sqeuclidean")
    spread = (index - centre).square().sum(1)
    expected = (squares - spread[:, None] - spread) / 2
    torch.testing.assert_close(Centring("dot").fit(index).distances(), expected.fill_diagonal_(torch.inf))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [1.7e9, 1e12])
def test_a_column_of_timestamps_leaves_the_others_alive(dtype: torch.dtype, wide: float) -> None:
    """Each dimension is judged by how it varies, not by how large another one is."""
    index = points(200).to(dtype)
    stamps = (wide + wide / 50 * torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]).to(dtype)
    both = torch.cat([stamps, index], 1)
    assert bool(FeatureMoments.of(both).live().all())
    for kind in (ZScore, FNorm):
        fitted = kind().fit(both)
        assert fitted.notes == ()
        torch.testing.assert_close(ZScore().fit(both).transform(both)[:, 1:], ZScore().fit(index).transform(index))
    whitened = Whitening("euclidean").fit(both)
    assert whitened.transform(both).shape == (200, 9)
    centred = both.double() - both.double().mean(0)
    mahalanobis = torch.linalg.solve(centred.T @ centred / 200, centred.T).T
    squares = (centred * mahalanobis).sum(1)
    own = whitened.transform(both).double().square().sum(1)
    torch.testing.assert_close(own, squares, rtol=1e-4, atol=1e-4)


def test_what_is_left_out_is_said() -> None:
    index = torch.cat([points(50), torch.ones(50, 2, dtype=torch.float64)], 1)
    for kind in (ZScore, FNorm, Whitening):
        note = f"{kind.name} leaves out 2 of 10 dimensions, which do not vary: 8, 9"
        assert kind().fit(index).notes == (note,)
    assert reduction(["z_score", "csls"]).fit(index).notes == (
        "z_score leaves out 2 of 10 dimensions, which do not vary: 8, 9",
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_dimensions_say_nothing(dtype: torch.dtype) -> None:
    index = points(50).to(dtype)
    noise = torch.linspace(-1, 1, 50, dtype=dtype)[:, None]
    dead = torch.cat([torch.full((50, 1), 0.1, dtype=dtype), 1e-9 * noise, 1e-33 * noise], 1)
    wide = torch.cat([index, dead], 1)
    for kind in (ZScore, FNorm):
        vectors = kind().fit(wide).transform(wide)
        assert bool((vectors[:, 8:] == 0).all())
        torch.testing.assert_close(vectors[:, :8], kind().fit(index).transform(index))
        assert bool(kind().fit(wide).transform(wide + 1)[:, 8:].eq(0).all())  # nor do they for queries
    assert FeatureMoments.of(wide).live().tolist() == [True] * 8 + [False] * 3


def test_row_z_score_has_length_sqrt_d_and_constant_rows_are_zero() -> None:
    rows = torch.cat([points(5), torch.full((1, 8), 3.0, dtype=torch.float64)])
    for scale in (1e-100, 1e-12, 1.0, 1e100):
        lengths = RowStandardisation().fit(scale * rows).transform(scale * rows).norm(dim=1)
        torch.testing.assert_close(lengths[:5], torch.full((5,), 8**0.5, dtype=torch.float64), rtol=1e-12, atol=0)
        assert float(lengths[5]) == 0


def test_in_sample_neighbours_are_those_of_the_transformed_points() -> None:
    index = points(80)
    method = ZScore().fit(index)
    expected = nearest_neighbours(method.transform(index), 7, metric="cosine")
    assert torch.equal(method.rerank(k=7).ids, expected.ids)


def test_refusals() -> None:
    index = points(10)
    with pytest.raises(NotFittedError, match="centring has not been fitted"):
        Centring().transform(index)
    with pytest.raises(NotFittedError, match="whitening has not been fitted"):
        Whitening().augment()
    with pytest.raises(ValueError, match=r"metric of z_score must be one of .*, but it is 'manhattan'"):
        ZScore(metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7 dimensions against 8"):
        Centring().fit(index).transform(index[:, :7])
    with pytest.raises(ValueError, match="drop_components: num is 8, but the index has 8 dimensions"):
        DropComponents(8).fit(index)
    with pytest.raises(ValueError, match="num of drop_components must be at least 1, got 0"):
        DropComponents(0)
    with pytest.raises(ValueError, match="whitening: all 4 index points are equal"):
        Whitening().fit(torch.ones(4, 3))
    with pytest.raises(ValueError, match="1 rows of index are not finite: 2"):
        Centring().fit(torch.tensor([[1.0], [2.0], [torch.nan]]))
