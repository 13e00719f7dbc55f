"""Two points, one dimension, one query, k = n - 1, one label: values from formulas, or a line on what is short."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from likeness.hubness.analysis import HubnessReport, analyse_hubness
from likeness.hubness.f_norm import FNorm
from likeness.hubness.feature_transforms import Centring, DropComponents, FeatureTransform, Whitening, ZScore
from likeness.hubness.local_scaling import DisSimGlobal, DisSimLocal, LocalScaling, Nicdm
from likeness.hubness.mutual_proximity import MutualProximity
from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import REDUCTIONS, reduction
from likeness.hubness.similarity_corrections import (
    Csls,
    DynamicInvertedSoftmax,
    InvertedSoftmax,
    LocalisedCentring,
    NearestNeighbourNormalisation,
)
from likeness.neighbours.distances import DistanceName
from tests.likeness.hubness import dense_reductions as dense
from tests.likeness.hubness.reduction_checks import points, require_formula, setting

METRICS: tuple[DistanceName, ...] = ("euclidean", "sqeuclidean", "cosine", "dot")
SIZES = {"two points": (2, 3), "one dimension": (6, 1), "k = n - 1": (6, 3)}
Formula = Callable[[dense.Setting, int], dense.Matrix]

# Each reduction with k neighbours, and its formula. Along one line all cosines are 1 or -1: there by inner products.
FORMULAS: dict[str, tuple[Callable[[int], HubnessReduction], Formula]] = {
    "local_scaling": (LocalScaling, lambda s, k: dense.local_scaling(s, k, "euclidean")),
    "nicdm": (Nicdm, lambda s, k: dense.nicdm(s, k, "euclidean")),
    "dissim_local": (DisSimLocal, dense.dissim_local),
    "dissim_global": (lambda k: DisSimGlobal(), lambda s, k: dense.dissim_global(s)),
    "rank": (lambda k: MutualProximity("rank"), lambda s, k: dense.mutual_proximity_rank(s, "euclidean")),
    "joint": (lambda k: MutualProximity("joint"), lambda s, k: dense.mutual_proximity_joint(s, "euclidean")),
    "csls": (lambda k: Csls(k, "dot"), lambda s, k: dense.csls(s, k, "dot")),
    "nnn": (lambda k: NearestNeighbourNormalisation(k, 0.7, "dot"), lambda s, k: dense.nnn(s, k, 0.7, "dot")),
    "localised_centring": (
        lambda k: LocalisedCentring(k, 1.0, "dot"),
        lambda s, k: dense.bank_similarity(s.x, None, k, "dot") - dense.similarities(s.asked, s.x, "dot"),
    ),
    "inverted_softmax": (lambda k: InvertedSoftmax(0.5, "dot"), lambda s, k: dense.inverted_softmax(s, 0.5, "dot")),
}
sizes = pytest.mark.parametrize(("n", "d"), SIZES.values(), ids=SIZES)
asked = pytest.mark.parametrize("one_query", [False, True], ids=["in-sample", "one query"])


def query(d: int) -> Tensor:
    return points(1, d, seed=5)


@pytest.mark.parametrize("name", FORMULAS)
@sizes
@asked
def test_reductions_against_their_formulas(name: str, n: int, d: int, one_query: bool) -> None:
    build, formula = FORMULAS[name]
    x, queries = points(n, d), query(d) if one_query else None
    require_formula(build(n - 1).fit(x), formula(setting(x, queries), n - 1), queries, n - 1)


@pytest.mark.parametrize("law", ["normal", "gamma"])
@pytest.mark.parametrize(("n", "d"), [(6, 1), (6, 3)])
@asked
def test_mutual_proximity_of_a_law(law: Any, n: int, d: int, one_query: bool) -> None:
    x, queries = points(n, d), query(d) if one_query else None
    keys = dense.mutual_proximity_law(setting(x, queries), law, "euclidean")
    require_formula(MutualProximity(law).fit(x), -torch.from_numpy(-keys).expm1().numpy(), queries, n - 1, 1e-7, keys)


@pytest.mark.parametrize("law", ["normal", "gamma"])
def test_one_distance_has_no_spread_and_is_at_the_middle_of_its_law(law: Any) -> None:
    """Each of two points knows one distance, and P(D > d) is 1/2 for both: 1 - 1/4."""
    found = MutualProximity(law).fit(points(2, 3)).rerank(k=1)
    assert found.ids.tolist() == [[1], [0]]
    torch.testing.assert_close(found.distances, torch.full_like(found.distances, 0.75), rtol=0, atol=1e-6)


def test_a_bank_of_one_query() -> None:
    """Over one query the inverted softmax is beta (s(q, x) - s(b, x))."""
    x, bank, queries = points(6, 3), points(1, 3, seed=8), query(3)
    s = setting(x, queries)
    require_formula(Csls(1, "dot").fit(x, bank), dense.csls(s, 1, "dot", bank.numpy()), queries, 6)
    differences = (2 * (bank - queries) @ x.T).numpy()
    require_formula(InvertedSoftmax(2.0, "dot").fit(x, bank), differences, queries, 6)
    dynamic = dense.dynamic_inverted_softmax(s, 2.0, 1, "dot", bank.numpy())
    require_formula(DynamicInvertedSoftmax(2.0, 1, "dot").fit(x, bank), dynamic, queries, 6)


@pytest.mark.parametrize("kind", [Centring, ZScore, Whitening])
def test_transforms_of_one_dimension_leave_a_side_of_the_mean(kind: type[FeatureTransform]) -> None:
    x, queries = points(6, 1), query(1)
    side, of_query = (x - x.mean()).sign(), (queries - x.mean()).sign()
    require_formula(kind().fit(x), (1 - side * side.T).numpy(), k=5)
    require_formula(kind().fit(x), (1 - of_query * side.T).numpy(), queries, 6)


@pytest.mark.parametrize("method", [Centring(), ZScore(), Whitening(), FNorm()])
def test_two_points_lie_on_opposite_sides(method: FeatureTransform) -> None:
    x = points(2, 3)
    found = method.fit(x).rerank(k=1)
    assert found.ids.tolist() == [[1], [0]]
    torch.testing.assert_close(found.distances, torch.full_like(found.distances, 2.0))


def test_of_two_points_nothing_is_left_without_their_component() -> None:
    x = points(2, 3)
    torch.testing.assert_close(DropComponents(1).fit(x).transform(x), torch.zeros_like(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["row_centring", "row_z_score"])
def test_one_component_has_no_mean_of_its_own(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} takes points of at least two dimensions, but the index is \[6, 1\]$"
    ):
        reduction(name).fit(points(6, 1))


def test_rows_that_a_transform_leaves_nothing_of_are_named_as_its_own() -> None:
    x, queries = points(6, 3), torch.full((1, 3), 2.0)
    method = reduction("row_z_score").fit(x)
    with pytest.raises(ValueError, match=r"^1 rows of queries after row_z_score are zero and have no cosine: 0$"):
        method.rerank(queries, k=1)
    x[4] = 7.0
    with pytest.raises(ValueError, match=r"^1 rows of index after row_z_score are zero and have no cosine: 4$"):
        method.fit(x).rerank(k=1)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_one_point_has_no_neighbours(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} needs at least two index points, but the index is \[1, 4\]$"):
        reduction(name).fit(points(1, 4))


@pytest.mark.parametrize("metric", METRICS)
@sizes
def test_all_others_as_neighbours_are_no_hubs(metric: DistanceName, n: int, d: int) -> None:
    report = analyse_hubness(points(n, d), n - 1, metric, labels=["a"] * n)
    assert report.k_occurrence.tolist() == [n - 1] * n
    even = dict.fromkeys(report.indices(), 0.0) | {
        "shannon_evenness": 1.0,
        "max_occurrence": n - 1,
        "groupie_ratio": 1 / n,
    }
    assert report.indices() == even
    assert report.null.indices() == {name: even[name] for name in report.null.indices()}
    assert (report.excess_skewness, report.robin_hood_ratio) == (0, 1)
    assert report.null_histogram().tolist() == pytest.approx([0.0] * (n - 1) + [n])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_one_query_is_in_k_lists_of_as_many_points(k: int) -> None:
    """N is 1 for k of the n points and 0 for others, by chance too, whose points are independent."""
    x, p = points(6, 3), k / 6
    report = analyse_hubness(x, k, queries=query(3), labels=list("aaabbb"), query_labels=["a"])
    nearest = torch.linalg.vector_norm(x - query(3), dim=1).argsort()[:k]
    assert report.k_occurrence.nonzero().flatten().tolist() == sorted(nearest.tolist())
    expected = {
        "k_skewness": (1 - 2 * p) / math.sqrt(p * (1 - p)),
        "robin_hood": 1 - p,
        "gini": 1 - p,
        "atkinson": 1 - p,
        "shannon_evenness": math.log(k) / math.log(6),
        "antihub_rate": 1 - p,
    }
    for found, largest in ((report, 1), (report.null, 1 - (1 - p) ** 6)):
        indices = found.indices()
        assert {name: indices[name] for name in expected} == pytest.approx(expected)
        assert (indices["max_occurrence"], indices["groupie_ratio"]) == pytest.approx((largest, largest / k))
    assert report.bad_occurrence == pytest.approx(float((nearest >= 3).double().mean()))
    assert report.null.bad_occurrence == pytest.approx(0.5)


def bad(labels: str) -> tuple[float | None, float | None]:
    report: HubnessReport = analyse_hubness(points(len(labels), 3), len(labels) - 1, labels=list(labels))
    return report.bad_occurrence, report.null.bad_occurrence


def test_labels_of_one_point_each_are_all_bad() -> None:
    assert bad("ab") == (1, 1)
    assert bad("abc") == (1, 1)
    assert bad("aab") == pytest.approx((4 / 6, 4 / 6))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 2), (6, 6), (6, 0)])
def test_more_neighbours_than_there_are_others(n: int, k: int) -> None:
    with pytest.raises(ValueError, match=rf"below the number of index points, but k is {k} and there are {n}$"):
        analyse_hubness(points(n, 3), k)


def test_a_share_of_few_queries_is_named() -> None:
    with pytest.raises(ValueError, match=r"^query_fraction must leave at least 3 queries, but 0\.4 of 6 are 2$"):
        analyse_hubness(points(6, 3), 5, query_fraction=0.4)
    thinned = analyse_hubness(points(6, 3), 5, query_fraction=0.5).thinned
    assert thinned is not None
    assert thinned.queries == 6
