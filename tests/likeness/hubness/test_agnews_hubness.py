"""Hubness and its reduction on real sentence embeddings: AG News test texts by all-MiniLM-L6-v2.

The rows were measured once with plain NumPy, SciPy and torch over dense matrices. Those of the methods that are not in
``QUICK`` are measured again by `make evidence`.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from likeness.hubness.analysis import HubnessReport, analyse_hubness
from likeness.hubness.f_norm import FNorm
from likeness.hubness.feature_transforms import ZScore
from likeness.hubness.reductions import reduction
from likeness.neighbours.classification import KnnScore, knn_score, mcnemar
from likeness.neighbours.exact import Neighbours, nearest_neighbours
from tests.likeness.hubness.agnews import agnews, needs_agnews

pytestmark = needs_agnews

Method = tuple[str, dict[str, Any]]

K = 10
DEAD = [127, 223, 319]

# The paper's code, by which the rows of f-norm were measured, spreads out the three dead dimensions, too.
F_NORM: Method = ("f_norm", {"order": "random", "seed": 0, "eps": 0.0})
F_NORM_DETERMINISTIC: Method = ("f_norm", {"eps": 0.0})


class Row(NamedTuple):
    """In-sample, k = 10; the error is of unweighted votes, ties to the nearest."""

    skewness: float
    robin_hood: float
    antihub_rate: float
    hub_rate: float
    max_occurrence: int
    asymmetry: float
    bad_occurrence: float
    error: float
    self_skewness: float | None  # of lists of ten that begin with the point itself
    self_robin_hood: float | None


ROWS: dict[str, tuple[list[Method], Row]] = {
    "centring, cosine": (
        [("centring", {})],
        Row(1.377, 0.2629, 0.0128, 0.0932, 65, 0.446, 0.1761, 0.1036, 1.361, 0.2402),
    ),
    "centring, dot": (
        [("centring", {"metric": "dot"})],
        Row(1.414, 0.2636, 0.0129, 0.0924, 74, 0.444, 0.1766, 0.1032, 1.428, 0.2416),
    ),
    "DisSimGlobal": (
        [("dissim_global", {})],
        Row(1.414, 0.2636, 0.0129, 0.0924, 74, 0.444, 0.1766, 0.1032, 1.428, 0.2416),
    ),
    "z-score": (
        [("z_score", {})],
        Row(1.356, 0.2611, 0.0133, 0.0917, 65, 0.442, 0.1771, 0.1009, 1.360, 0.2385),
    ),
    "row centring": (
        [("row_centring", {})],
        Row(1.457, 0.2771, 0.0170, 0.1008, 60, 0.469, 0.1767, 0.1029, None, None),
    ),
    "row z-score": (
        [("row_z_score", {})],
        Row(1.457, 0.2771, 0.0170, 0.1008, 60, 0.469, 0.1767, 0.1029, None, None),
    ),
    "without 3 components": (
        [("drop_components", {"num": 3})],
        Row(1.227, 0.2499, 0.0095, 0.0871, 61, 0.411, 0.2242, 0.1189, None, None),
    ),
    "whitening": (
        [("whitening", {})],
        Row(0.770, 0.1869, 0.0004, 0.0382, 39, 0.303, 0.2634, 0.1217, None, None),
    ),
    "MP normal, cosine": (
        [("mutual_proximity", {"metric": "cosine"})],
        Row(1.046, 0.2289, 0.0050, 0.0695, 46, 0.382, 0.1784, 0.1011, 1.062, 0.2111),
    ),
    "MP normal, Euclid": (
        [("mutual_proximity", {})],
        Row(0.975, 0.2241, 0.0047, 0.0664, 44, 0.375, 0.1788, 0.1014, 0.975, 0.2069),
    ),
    # In float32 1 - p p' is 0 for near points: of these ties NumPy's unstable sort makes a k-skewness of 0.93, torch's
    # 1.51, their order by id 1.52.
    "MP gamma, cosine": (
        [("mutual_proximity", {"variant": "gamma", "metric": "cosine"})],
        Row(1.1028, 0.2317, 0.0061, 0.0722, 48, 0.3891, 0.1784, 0.1022, 1.0939, 0.2140),
    ),
    # The error was measured as 0.1016 (and 0.176 for 0.1766) with products in float32, which parts equal ones.
    "MP rank": (
        [("mutual_proximity", {"variant": "rank", "metric": "cosine"})],
        Row(0.181, 0.1574, 0.0017, 0.0088, 27, 0.232, 0.1854, 0.1020, 0.1766, 0.1455),
    ),
    "LS": (
        [("local_scaling", {"metric": "cosine"})],
        Row(0.289, 0.1342, 0.0007, 0.0049, 28, 0.199, 0.1886, 0.0991, 0.244, 0.1266),
    ),
    "NICDM": (
        [("nicdm", {"metric": "cosine"})],
        Row(0.773, 0.1441, 0.0, 0.0139, 34, 0.212, 0.1936, 0.1013, 0.726, 0.1284),
    ),
    "CSLS": (
        [("csls", {})],
        Row(0.802, 0.1480, 0.0, 0.0180, 39, 0.218, 0.1899, 0.0989, 0.772, 0.1332),
    ),
    "DSL, k=10": (
        [("dissim_local", {})],
        Row(6.535, 0.2064, 0.0, 0.0604, 208, 0.302, 0.1889, 0.1022, 6.93, 0.1823),
    ),
    "DSL, k=50": (
        [("dissim_local", {"k": 50})],
        Row(0.245, 0.1368, 0.0001, 0.0043, 30, 0.227, 0.1798, 0.1014, 0.216, 0.1275),
    ),
    "inverted softmax, 10": (
        [("inverted_softmax", {"beta": 10})],
        Row(0.638, 0.2005, 0.003, 0.043, 38, 0.329, 0.182, 0.1018, None, None),
    ),
    "inverted softmax, 20": (
        [("inverted_softmax", {"beta": 20})],
        Row(0.372, 0.2234, 0.0, 0.053, 32, 0.361, 0.208, 0.1012, None, None),
    ),
    "inverted softmax, 50": (
        [("inverted_softmax", {"beta": 50})],
        Row(2.943, 0.4089, 0.0, 0.141, 145, 0.636, 0.251, 0.1117, None, None),
    ),
    "f-norm": (
        [F_NORM],
        Row(1.366, 0.2605, 0.0126, 0.0908, 65, 0.442, 0.1770, 0.1012, 1.365, 0.2384),
    ),
    "f-norm, deterministic": (
        [F_NORM_DETERMINISTIC],
        Row(1.370, 0.2602, 0.0129, 0.0895, 65, 0.441, 0.1772, 0.1014, 1.372, 0.2380),
    ),
    "f-norm + MP": (
        [F_NORM, ("mutual_proximity", {})],
        Row(0.9255, 0.2197, 0.0050, 0.0636, 40, 0.367, 0.1799, 0.0995, 0.913, 0.2032),
    ),
    "f-norm + LS": (
        [F_NORM, ("local_scaling", {"metric": "cosine"})],
        Row(0.249, 0.1266, 0.0001, 0.0037, 27, 0.186, 0.1891, 0.1007, 0.205, 0.1211),
    ),
}
QUICK = ("MP normal, cosine", "LS")
BASE = Row(1.456, 0.2772, 0.0170, 0.1007, 60, 0.469, 0.1767, 0.1028, 1.441, 0.2521)


@functools.cache
def neighbours(method: str | None) -> Neighbours:
    """Ten in-sample neighbours of every text by a method of ROWS, or by the cosine."""
    embeddings, _ = agnews()
    if method is None:
        return nearest_neighbours(embeddings, K, metric="cosine")
    return reduction(ROWS[method][0]).fit(embeddings).rerank(k=K)


@functools.cache
def score(method: str | None) -> KnnScore:
    return knn_score(neighbours(method), agnews()[1], K)


def report(found: Neighbours, include_self: bool = False) -> HubnessReport:
    embeddings, labels = agnews()
    if include_self:  # the point itself, then the nine nearest others
        found = Neighbours(found.distances, torch.cat([torch.arange(len(labels))[:, None], found.ids[:, :-1]], 1))
    return analyse_hubness(embeddings, neighbours=found.ids, labels=labels, include_self=include_self)


def require_row(found: Neighbours, row: Row, error: float) -> None:
    """Every column within 5e-4 (the error 3e-4), beside which the printed digits round."""
    actual = report(found)
    columns = {name: value for name, value in row._asdict().items() if hasattr(actual, name)}
    columns["k_skewness"] = row.skewness
    assert {name: getattr(actual, name) for name in columns} == pytest.approx(columns, rel=0, abs=5.001e-4)
    assert error == pytest.approx(row.error, rel=0, abs=3e-4)
    if row.self_skewness is not None:
        with_self = report(found, include_self=True)
        tolerance = 5.001e-3 if row.self_skewness > 6 else 5.001e-4  # two digits are printed, or three
        assert with_self.k_skewness == pytest.approx(row.self_skewness, rel=0, abs=tolerance)
        assert with_self.robin_hood == pytest.approx(row.self_robin_hood, rel=0, abs=5.001e-4)


def in_evidence(*values: Any) -> Any:
    """A parameter that is long to measure, unless its method, the first value, is in ``QUICK``."""
    return pytest.param(*values, marks=() if values[0] in QUICK else pytest.mark.long)


def test_without_a_reduction() -> None:
    require_row(neighbours(None), BASE, score(None).error)
    null = report(neighbours(None)).null
    assert (null.k_skewness, null.robin_hood) == pytest.approx((0.316, 0.125), rel=0, abs=5e-4)
    assert score(None).margin == pytest.approx(0.0068, abs=5e-5)


@pytest.mark.parametrize("method", [in_evidence(method) for method in ROWS])
def test_in_sample(method: str) -> None:
    require_row(neighbours(method), ROWS[method][1], score(method).error)


@pytest.mark.long
def test_joint_mutual_proximity_is_measured_up_to_the_order_of_ties() -> None:
    """A count has many ties, whose order moves the k-skewness between 0.100 and 0.163. They go by id, as everywhere.

    The row that was measured has them in another order, next to that of the larger id.
    """
    method = reduction("mutual_proximity", variant="joint", metric="cosine", candidates=150).fit(agnews()[0])
    found = method.rerank(k=150)
    ids, order = found.ids.sort(dim=1, descending=True)
    distances, order = found.distances.gather(1, order).sort(dim=1, stable=True)
    backwards = Neighbours(distances[:, :K], ids.gather(1, order[:, :K]))
    row = Row(0.130, 0.1602, 0.0016, 0.0074, 23, 0.241, 0.1828, 0.1009, 0.132, 0.1475)
    require_row(backwards, row, knn_score(backwards, agnews()[1], K).error)
    by_id = report(Neighbours(found.distances[:, :K], found.ids[:, :K]))
    assert (by_id.k_skewness, by_id.robin_hood) == pytest.approx((0.1366, 0.1598), rel=0, abs=2e-4)


def test_a_naive_z_score_has_no_neighbours_and_ours_leaves_dead_dimensions_out() -> None:
    embeddings, _ = agnews()
    rows = embeddings.numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        naive = (rows - rows.mean(0)) / rows.std(0)
    with pytest.raises(ValueError, match="7600 rows of embeddings are not finite"):
        analyse_hubness(naive)
    for kind in (ZScore, FNorm):
        vectors = kind().fit(embeddings).transform(embeddings)
        assert (vectors == 0).all(0).nonzero().flatten().tolist() == DEAD
    assert report(neighbours(None)).warnings == ("3 dimensions of embeddings are constant: 127, 223, 319",)


@pytest.mark.long
def test_f_norm_without_the_dead_dimensions() -> None:
    embeddings, labels = agnews()
    found = reduction("f_norm").fit(embeddings).rerank(k=K)
    row = Row(1.3561, 0.2606, 0.0136, 0.0929, 65, 0.4420, 0.1777, 0.1021, 1.3618, 0.2379)
    require_row(found, row, knn_score(found, labels, K).error)


def test_ties_of_votes_are_settled_by_a_rule_that_matters() -> None:
    lowest = knn_score(neighbours(None), agnews()[1], K, ties="lowest")
    assert lowest.error == pytest.approx(0.1057, abs=3e-4)


@pytest.mark.parametrize(
    ("method", "p", "digits"),
    [
        in_evidence("CSLS", 0.085, 3),
        in_evidence("LS", 0.10, 2),
        in_evidence("f-norm + MP", 0.11, 2),
        in_evidence("MP normal, Euclid", 0.52, 2),
        in_evidence("f-norm", 0.31, 2),
        in_evidence("centring, cosine", 0.66, 2),
    ],
)
def test_no_gain_is_significant(method: str, p: float, digits: int) -> None:
    test = mcnemar(score(None).correct, score(method).correct)
    assert round(test.p, digits) == p
    assert test.verdict == "not significant"


@pytest.mark.parametrize(
    ("n", "skewness", "null_skewness", "robin_hood", "null_robin_hood"),
    [(6600, 1.528, 0.811, 0.410, 0.333), (7000, 1.733, 1.078, 0.481, 0.424)],
)
def test_bipartite(n: int, skewness: float, null_skewness: float, robin_hood: float, null_robin_hood: float) -> None:
    embeddings, _ = agnews()
    order = torch.from_numpy(np.random.default_rng(0).permutation(7600))
    actual = analyse_hubness(embeddings[order[:n]], queries=embeddings[order[n:]])
    assert (actual.k_skewness, actual.null.k_skewness) == pytest.approx((skewness, null_skewness), rel=0, abs=6e-4)
    assert (actual.robin_hood, actual.null.robin_hood) == pytest.approx((robin_hood, null_robin_hood), rel=0, abs=6e-4)
