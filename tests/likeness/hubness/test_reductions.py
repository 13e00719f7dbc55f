"""Reductions by name: golden values of hubness after each, compositions, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.feature_transforms import Centring
from likeness.hubness.mutual_proximity import MutualProximity
from likeness.hubness.reduction_base import NotFittedError
from likeness.hubness.reductions import REDUCTIONS, Composition, reduction
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from tests.likeness.hubness.dense_reductions import hubness_indices
from tests.likeness.hubness.reduction_checks import clustered, points

# Of numpy.random.default_rng(0).standard_normal((1000, 100)), k = 10, measured on whole matrices with SciPy.
GOLDEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "MP normal": ("mutual_proximity", {}, ".451790 .237900 .329791 .102395 .973598 .0120 32 .3772"),
    "MP gamma": ("mutual_proximity", {"variant": "gamma"}, ".446893 .237500 .328984 .102021 .973710 .0120 33 .3784"),
    "MP rank": ("mutual_proximity", {"variant": "rank"}, ".393173 .241000 .332315 .103821 .973266 .0120 30 .3788"),
    "MP joint": ("mutual_proximity", {"variant": "joint"}, ".365367 .236500 .326133 .100083 .974212 .0110 30 .3764"),
    "NICDM": ("nicdm", {}, "2.325247 .268400 .376875 .123106 .965041 .0110 80 .3852"),
    "LS": ("local_scaling", {}, "2.221779 .274000 .382173 .127427 .964149 .0130 81 .3938"),
    "DSL": ("dissim_local", {}, "1.246119 .160200 .225731 .041310 .987963 0 38 .2316"),
    "DisSimGlobal": ("dissim_global", {}, ".712792 .205200 .289738 .071727 .980167 .0010 29 .2918"),
    "CSLS": ("csls", {}, ".355655 .084400 .119360 .011461 .996695 0 18 .1156"),
    "inverted softmax": ("inverted_softmax", {}, ".034904 .089100 .126667 .013321 .996219 0 17 .1238"),
}
UNREDUCED: dict[DistanceName, str] = {
    "euclidean": "7.866699 .513700 .680257 .433558 .865606 .1840 358 .7050",
    "cosine": ".190527 .118500 .169168 .024268 .993194 0 20 .1672",
}


def golden_points() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1000, 100)))


def require_indices(ids: Tensor, printed: str) -> None:
    """To the printed digits, by the definitions and by the library."""
    report = analyse_hubness(golden_points(), neighbours=ids)
    found = hubness_indices(ids.numpy(), 1000)
    assert {name: getattr(report, name) for name in found} == pytest.approx(found, rel=1e-12)
    for name, value in zip(found, printed.split(), strict=True):
        assert round(found[name], len(value.partition(".")[2])) == float(value), f"{name} is {found[name]}, not {value}"


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.long if row == "MP joint" else ()) for row in GOLDEN]
)
def test_golden_values(row: str) -> None:
    name, options, printed = GOLDEN[row]
    require_indices(reduction(name, **options).fit(golden_points()).rerank(k=10).ids, printed)


@pytest.mark.parametrize("metric", UNREDUCED)
def test_golden_values_without_a_reduction(metric: DistanceName) -> None:
    require_indices(nearest_neighbours(golden_points(), 10, metric=metric).ids, UNREDUCED[metric])


def test_every_reduction_is_registered_under_its_name() -> None:
    assert all(method.name == name for name, method in REDUCTIONS.items())
    for name in REDUCTIONS:
        found = reduction(name).fit(clustered(60, 12)).rerank(clustered(9, 12, seed=1), k=3)
        assert found.ids.shape == found.distances.shape == (9, 3)
        assert bool((found.distances.diff(dim=1) >= 0).all())


def test_options_reach_the_method() -> None:
    method = reduction("mutual_proximity", variant="gamma", metric="cosine")
    assert isinstance(method, MutualProximity)
    assert (method.variant, method.metric) == ("gamma", "cosine")


def test_a_composition_transforms_index_queries_and_bank() -> None:
    x, queries, bank = (clustered(n, 12, seed=n) for n in (200, 30, 40))
    composed = reduction(["centring", ("nnn", {"k": 4})]).fit(x, bank)
    centring = Centring().fit(x)
    last = reduction("nnn", k=4).fit(centring.transform(x), centring.transform(bank))
    moved = centring.transform(queries)
    assert torch.equal(composed.rerank(queries).ids, last.rerank(moved).ids)
    assert torch.equal(composed.rerank().ids, last.rerank().ids)
    assert torch.equal(composed.distances(queries), last.distances(moved))
    assert torch.equal(composed.augment().queries(queries), last.augment().queries(moved))
    assert composed.name == "centring + nnn"


def test_transforms_are_chained() -> None:
    x, queries = clustered(200, 12), clustered(30, 12, seed=1)
    first = Centring().fit(x)
    second = reduction("f_norm").fit(first.transform(x))
    composed = reduction(["centring", "f_norm", "mutual_proximity"]).fit(x)
    expected = reduction("mutual_proximity").fit(second.transform(first.transform(x)))  # type: ignore[attr-defined]
    moved = second.transform(first.transform(queries))  # type: ignore[attr-defined]
    assert torch.equal(composed.rerank(queries).ids, expected.rerank(moved).ids)


def test_instances_and_pairs_are_steps() -> None:
    method = MutualProximity()
    assert reduction(method) is method
    assert reduction([method]) is method
    assert reduction(("csls", {"k": 3})).k == 3  # type: ignore[attr-defined]
    composed = reduction([Centring(), method])
    assert isinstance(composed, Composition)
    assert composed.last is method


def test_queries_never_refit() -> None:
    """What a query gets does not depend on the queries beside it."""
    x, queries = clustered(150, 12), clustered(20, 12, seed=1)
    for name in REDUCTIONS:
        method = reduction(name).fit(x)
        alone = torch.cat([method.distances(query[None]) for query in queries])
        torch.testing.assert_close(method.distances(queries), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mutual", {}, "no reduction is called 'mutual'; there are centring, csls, dissim_global"),
        ("csls", {"beta": 1}, "csls has no option beta; it has k, metric"),
        (["csls", "mutual_proximity"], {}, r"must transform features, which \['csls'\] do not"),
        (["f_norm", "csls"], {"k": 3}, r"options \['k'\] belong to one method"),
        ([], {}, "needs at least one reduction"),
        ([3], {}, "a reduction is a name"),
    ],
)
def test_what_does_not_exist(method: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reduction(method, **options)


@pytest.mark.parametrize("name", [*REDUCTIONS, "a composition"])
def test_asked_before_it_is_fitted(name: str) -> None:
    method = reduction(["centring", "csls"] if name == "a composition" else name)
    for ask in (method.rerank, method.distances):
        with pytest.raises(NotFittedError, match="has not been fitted: call fit"):
            ask()
    if name != "mutual_proximity":
        with pytest.raises(NotFittedError, match="has not been fitted"):
            method.augment()


def test_a_fit_that_fails_leaves_nothing_fitted() -> None:
    method = reduction("csls").fit(points(30, 4))
    with pytest.raises(ValueError, match="k must be from 1 to 4"):
        method.fit(points(5, 4))
    with pytest.raises(NotFittedError):
        method.rerank()


@pytest.mark.parametrize("name", ["mutual_proximity", "csls", "local_scaling", "dissim_local"])
def test_points_that_do_not_fit(name: str) -> None:
    x = points(30, 4)
    with pytest.raises(ValueError, match=rf"{name}: queries are \[6, 5\], but the index is \[30, 4\]"):
        reduction(name).fit(x).rerank(points(6, 5))
    wrong = x.clone()
    wrong[7, 2] = torch.nan
    with pytest.raises(ValueError, match="1 rows of index are not finite: 7"):
        reduction(name).fit(wrong)
    with pytest.raises(ValueError, match="1 rows of queries are not finite: 7"):
        reduction(name).fit(x).rerank(wrong)
    with pytest.raises(ValueError, match=f"k is 30, but {name} has 29 points to choose from"):
        reduction(name).fit(x).rerank(k=30)
    with pytest.raises(ValueError, match="index must be"):
        reduction(name).fit(x[0])
    with pytest.raises(ValueError, match=f"{name} needs at least two index points"):
        reduction(name).fit(x[:1])


@pytest.mark.parametrize("name", ["mutual_proximity", "csls", "local_scaling", "dissim_local"])
def test_zero_rows_under_the_cosine(name: str) -> None:
    x = points(30, 4)
    x[3] = 0
    with pytest.raises(ValueError, match=r"1 rows of .* are zero and have no cosine: 3"):
        reduction(name, metric="cosine").fit(x)
    with pytest.raises(ValueError, match=r"1 rows of queries are zero and have no cosine: 3"):
        reduction(name, metric="cosine").fit(points(30, 4)).rerank(x)


def test_arrays_and_half_precision() -> None:
    x = clustered(100, 12)
    for name in ("mutual_proximity", "csls"):
        half = reduction(name).fit(x.half()).rerank(x[:5].half().numpy())
        assert torch.equal(half.ids, reduction(name).fit(x.half().float().numpy()).rerank(x[:5].half()).ids)


def test_gradients_and_precision_outside_stay_outside() -> None:
    x = clustered(100, 12).requires_grad_()
    found = reduction("csls").fit(x).rerank(x)
    assert not found.distances.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reduction("mutual_proximity").fit(x).rerank()
    assert torch.equal(inside.ids, reduction("mutual_proximity").fit(x).rerank().ids)
