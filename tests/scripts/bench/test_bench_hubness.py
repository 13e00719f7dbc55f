"""That the contestants of the hubness bench do the same work and what is asked is judged; never how fast they are."""

import sys

import pytest
import torch

from likeness.hubness.mutual_proximity import MutualProximity
from likeness.neighbours.exact import nearest_neighbours
from scripts.bench.hubness import LARGE, HubnessBench, hubness, plain_mutual_proximity, plain_neighbours, random_points
from scripts.bench.timing import Contestant, Peak, Ratios


def test_contestants() -> None:
    report = hubness(points=60, dim=5, k=3, repeats=2)
    names = list(report.ratios.comparisons)
    assert names[0] == "neighbours, n = 60, d = 5, k = 3"
    assert names[-1] == "mutual proximity, n = 60, d = 5, k = 3"
    assert all(len(c.seconds) == 2 for pair in report.ratios.comparisons.values() for c in pair)
    assert report.ratios.required == report.ratios.allowed == {}  # they are asked for at one size alone
    assert report.as_dict()["large"] is None


def test_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("POINTS", 40), ("DIM", 3), ("K", 2)):
        monkeypatch.setattr(f"scripts.bench.hubness.{name}", value)
    ratios = hubness(points=40, dim=3, k=2, repeats=1).ratios
    assert ratios.required == {
        "neighbours, n = 40, d = 3, k = 2": 20.0,
        "mutual proximity, n = 40, d = 3, k = 2": 5.0,
    }
    assert list(ratios.allowed.values()) == [0.6, 3.0]


def test_without_faiss_there_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench.hubness.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "faiss", None)
    report = hubness(points=30, dim=3, k=3, repeats=1, proximity=False)
    assert list(report.ratios.comparisons) == ["neighbours, n = 30, d = 3, k = 3"]


def test_the_plain_contestants_find_the_same() -> None:
    x = random_points(300, 12).double()
    assert torch.equal(torch.from_numpy(plain_neighbours(x.numpy(), 7)), nearest_neighbours(x, 7).ids)
    reranked = MutualProximity().fit(x).rerank(k=7)
    assert torch.equal(torch.from_numpy(plain_mutual_proximity(x.numpy(), 7)), reranked.ids)


def test_verdicts() -> None:
    contestants = Contestant("dense", [30.0]), Contestant("in blocks", [0.7])
    ratios = Ratios("", {"search": contestants}, required={"search": 20.0}, allowed={"search": 0.6})
    assert HubnessBench(ratios, Peak(2_000_000_000, 61.3)).verdicts() == [
        "search: at least 20 times faster is asked for: yes (42.9)",
        "search: under 0.6 s is asked for: NO (0.700)",
        f"{LARGE}: under 4 GB is asked for: yes (2.00 GB, 61 s)",
    ]
