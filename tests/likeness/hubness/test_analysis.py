"""The analysis of hubness: published numbers, conventions, and what it says of bad input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.hubness.analysis import HubnessReport, analyse_hubness, hubness_of_counts, hubness_of_neighbours
from likeness.neighbours.exact import DistanceName, Neighbours, nearest_neighbours


def gaussian(n: int = 1000, dim: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim))


GOLDEN = {
    "euclidean": (7.866699, 0.513700, 0.680257, 0.433558, 0.865606, 0.1840, 358, 0.7050),
    "cosine": (0.190527, 0.118500, 0.169168, 0.024268, 0.993194, 0, 20, 0.1672),
}


@pytest.mark.parametrize("metric", GOLDEN)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_golden_values(metric: DistanceName, dtype: type) -> None:
    report = analyse_hubness(gaussian().astype(dtype), metric=metric)
    found = (
        report.k_skewness,
        report.robin_hood,
        report.gini,
        report.atkinson,
        report.shannon_evenness,
        report.antihub_rate,
        report.max_occurrence,
        report.asymmetry,
    )
    assert found == pytest.approx(GOLDEN[metric], abs=6e-7)
    assert (report.n, report.m, report.k, report.recall) == (1000, 1000, 10, 1)


def test_counting_the_points_themselves_as_scikit_hubness_does() -> None:
    """Its k = 10 is nine neighbours and the point itself."""
    published, nine = analyse_hubness(gaussian(), include_self=True), analyse_hubness(gaussian(), k=9)
    assert torch.equal(published.k_occurrence, nine.k_occurrence + 1)
    assert published.k_skewness == pytest.approx(8.132464, abs=6e-7)
    assert published.robin_hood == pytest.approx(0.4678)
    assert published.gini == pytest.approx(0.6185066, abs=6e-8)
    assert published.atkinson == pytest.approx(0.3154214, abs=6e-8)
    assert published.k_skewness == pytest.approx(nine.k_skewness)
    assert published.robin_hood == pytest.approx(0.9 * nine.robin_hood)
    assert published.antihub_rate == nine.antihub_rate > 0


def test_half_precision_and_tensors() -> None:
    half = torch.from_numpy(gaussian(200, 20)).half()
    assert torch.equal(analyse_hubness(half).k_occurrence, analyse_hubness(half.double().numpy()).k_occurrence)


def test_queries_that_are_others_are_counted_by_their_own_number() -> None:
    x, queries = gaussian(500, 20), gaussian(100, 20, seed=1)
    report = analyse_hubness(x, queries=queries, hub_factor=0.6)
    counts = report.k_occurrence.numpy()
    assert (report.n, report.m, counts.sum()) == (500, 100, 1000)
    assert report.hub_occurrence == counts[counts >= 6].sum() / 1000 > 0
    assert report.groupie_ratio == counts.max() / 1000
    assert report.robin_hood == pytest.approx(np.abs(counts - 2).sum() / 2000)
    assert report.asymmetry is report.null.asymmetry is None
    assert report.null.antihub_rate == pytest.approx((1 - 10 / 500) ** 100)


def test_labels_of_any_kind_for_points_and_queries() -> None:
    x, queries = gaussian(60, 3), gaussian(20, 3, seed=1)
    names = np.array(["sport", "world", "science"])[np.arange(60) % 3]
    asked = np.array(["world", "music"])[np.arange(20) % 2]
    ids = nearest_neighbours(torch.from_numpy(x), 4, queries=torch.from_numpy(queries)).ids.numpy()
    report = analyse_hubness(x, k=4, queries=queries, labels=names, query_labels=asked)
    assert report.bad_occurrence == (names[ids] != asked[:, None]).mean()
    assert report.null.bad_occurrence == pytest.approx((2 / 3 + 1) / 2)
    in_sample = analyse_hubness(x, k=4, labels=torch.arange(60) % 3)
    assert in_sample.bad_occurrence == analyse_hubness(x, k=4, labels=names).bad_occurrence
    assert in_sample.null.bad_occurrence == pytest.approx(40 / 59)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), k=st.integers(1, 8), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_what_changes_nothing(seed: int, k: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, order = rng.standard_normal((40, 4)), rng.permutation(40)
    rotation = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    lengths = rng.uniform(0.5, 2, (40, 1))
    counts = {metric: analyse_hubness(x, k, metric).k_occurrence for metric in ("euclidean", "cosine", "dot")}
    for metric, expected in counts.items():
        assert expected.sum() == k * 40
        assert torch.equal(analyse_hubness(x[order], k, metric).k_occurrence, expected[order])
        assert torch.equal(analyse_hubness(scale * x @ rotation, k, metric).k_occurrence, expected)
    assert torch.equal(analyse_hubness(x + 3, k).k_occurrence, counts["euclidean"])
    assert torch.equal(analyse_hubness(x, k, "sqeuclidean").k_occurrence, counts["euclidean"])
    assert torch.equal(analyse_hubness(lengths * x, k, "cosine").k_occurrence, counts["cosine"])


def test_top_hubs_and_equal_ones_by_position() -> None:
    report = hubness_of_counts(torch.tensor([2, 0, 5, 2, 1]), 5, 2)
    ids, occurrences = report.top_hubs(4)
    assert ids.tolist() == [2, 0, 3, 4]
    assert occurrences.tolist() == [5, 2, 2, 1]


def test_beside_the_null() -> None:
    report = analyse_hubness(gaussian())
    assert report.excess_skewness == pytest.approx(report.k_skewness - report.null.k_skewness)
    assert report.robin_hood_ratio == pytest.approx(0.5137 / report.null.robin_hood)
    assert float(report.null_histogram().sum()) == pytest.approx(1000)
    assert report.indices().keys() == report.null.indices().keys()
    everybody = analyse_hubness(gaussian(6, 2), k=5)
    assert everybody.robin_hood_ratio == 1
    assert everybody.k_skewness == everybody.null.k_skewness == 0


# Neighbours that were found before


def indices(report: HubnessReport) -> dict[str, float]:
    return report.indices() | {f"null {name}": value for name, value in report.null.indices().items()}


def test_neighbours_found_before_give_the_same_report() -> None:
    x = gaussian(100, 5)
    neighbours = nearest_neighbours(torch.from_numpy(x), 12)
    searched = analyse_hubness(x, labels=np.arange(100) % 3)
    for given_ones in (neighbours, neighbours.ids, neighbours.ids.numpy(), neighbours.ids.int()):
        report = analyse_hubness(x, labels=np.arange(100) % 3, neighbours=given_ones, recall=0.98)
        assert indices(report) == indices(searched)
        assert (report.metric, report.recall) == ("precomputed", 0.98)


def test_the_callers_neighbours_stay_as_they_are() -> None:
    x = gaussian(100, 5)
    nearest = nearest_neighbours(torch.from_numpy(x), 12)
    backwards = Neighbours(nearest.distances.flip(1), nearest.ids.flip(1))
    before = backwards.ids.clone()
    assert indices(analyse_hubness(x, neighbours=backwards)) == indices(analyse_hubness(x))
    assert torch.equal(backwards.ids, before)
    assert torch.equal(backwards.distances, nearest.distances.flip(1))


def test_neighbours_alone_are_enough() -> None:
    x = torch.from_numpy(gaussian(100, 5))
    ids = nearest_neighbours(x, 10).ids
    assert indices(hubness_of_neighbours(ids, 100, query_ids=torch.arange(100))) == indices(analyse_hubness(x))


def test_points_among_their_own_neighbours_are_refused() -> None:
    x = torch.from_numpy(gaussian(50, 5))
    with_self = nearest_neighbours(x, 10, include_self=True)
    with pytest.raises(ValueError, match=r"point 0 is among its own neighbours, as are 50.*include_self"):
        analyse_hubness(x, neighbours=with_self)
    assert indices(analyse_hubness(x, neighbours=with_self, include_self=True)) == indices(
        analyse_hubness(x, include_self=True)
    )


def test_neighbours_that_do_not_fit() -> None:
    x = gaussian(50, 5)
    with pytest.raises(ValueError, match=r"neighbours of 50 queries must be \[50, 10\] or wider, got \[50, 9\]"):
        analyse_hubness(x, neighbours=torch.zeros(50, 9, dtype=torch.long))
    far = nearest_neighbours(torch.from_numpy(x), 10).ids.clone()
    far[7, 3] = 50
    with pytest.raises(ValueError, match=r"ids\[7, 3\] is 50"):
        analyse_hubness(x, neighbours=far)


# Bad input


def test_rows_that_are_not_finite_are_named() -> None:
    x = gaussian(50, 5)
    x[[4, 17], 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 rows of embeddings are not finite: 4, 17"):
        analyse_hubness(x)
    with pytest.raises(ValueError, match="2 rows of queries are not finite: 4, 17"):
        analyse_hubness(gaussian(50, 5), queries=x)


def test_what_can_be_measured_is_with_a_warning() -> None:
    x = gaussian(50, 5)
    x[:, 3], x[9] = 0, 0
    x[20:22] = x[2]
    report = analyse_hubness(x, queries=np.zeros((2, 5)))
    assert report.warnings == (
        "1 rows of embeddings are zero: 9",
        "2 rows of embeddings repeat an earlier one: 20, 21",
        "1 dimensions of embeddings are constant: 3",
        "2 rows of queries are zero: 0, 1",
        "1 rows of queries repeat an earlier one: 1",
    )
    with pytest.raises(ValueError, match="1 rows of embeddings are zero and have no cosine: 9"):
        analyse_hubness(x, metric="cosine")


def test_queries_that_are_the_points_count_each_as_its_own_neighbour() -> None:
    x = gaussian(50, 5)
    report = analyse_hubness(x, queries=x.copy())
    assert any("each is its own neighbour" in warning for warning in report.warnings)


def test_all_points_equal() -> None:
    report = analyse_hubness(np.ones((30, 4)))
    assert report.warnings[0].startswith("29 rows of embeddings repeat an earlier one: 1, 2, 3")
    assert report.k_occurrence.sum() == 300
    assert not any(np.isnan(value) for value in report.indices().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 50}, "k must be at least 1 and below the number of index points, but k is 50 and there are 50"),
        ({"k": 0}, "k is 0"),
        ({"queries": gaussian(9, 4)}, "queries have 4 dimensions, but the embeddings 5"),
        ({"labels": np.zeros(49)}, r"labels must be \[50\], one for each row, got \[49\]"),
        ({"queries": gaussian(9, 5), "labels": np.zeros(50)}, "query_labels are missing"),
        ({"query_labels": np.zeros(50)}, "query_labels belong to queries, of which there are none"),
        ({"queries": gaussian(9, 5), "include_self": True}, "include_self is for in-sample"),
        ({"query_fraction": 0.5, "include_self": True}, "query_fraction is for a search"),
        ({"query_fraction": 0.0}, "query_fraction must be above 0"),
        ({"metric": "manhattan"}, "metric.*manhattan"),
        ({"hub_rule": "largest"}, "hub_rule.*largest"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analyse_hubness(gaussian(50, 5), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5,), (0, 4), (5, 0), (5, 4, 3)])
def test_embeddings_are_a_matrix(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="embeddings"):
        analyse_hubness(np.zeros(shape), k=2)


def test_arrays_that_may_not_be_written_to() -> None:
    x = gaussian(50, 5)
    ids = nearest_neighbours(torch.from_numpy(x), 10).ids.numpy()
    x.flags.writeable = ids.flags.writeable = False
    assert analyse_hubness(x, neighbours=ids).n == 50
    assert torch.equal(analyse_hubness(x[::-1]).k_occurrence, analyse_hubness(x).k_occurrence.flip(0))


def test_counts_add_up() -> None:
    with pytest.raises(ValueError, match="counts of 3 queries with 2 neighbours each must sum to 6, not 7"):
        hubness_of_counts(torch.tensor([3, 4, 0]), 3, 2)
