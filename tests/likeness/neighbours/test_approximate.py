"""Neighbours by FAISS against the exact ones, and the recall that is reported."""

import sys
from typing import get_args

import numpy as np
import pytest
import torch

from likeness.neighbours.approximate import approximate_neighbours
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from tests.reference import FOLDER

METRICS = get_args(DistanceName)
EMBEDDINGS = FOLDER / "agnews_minilm.npz"


def clustered(n: int, d: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, d, generator=g)
    return centres[torch.randint(20, (n,), generator=g)] + 0.5 * torch.randn(n, d, generator=g)


def shared(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found[:, :, None] == exact[:, None]).any(2).double().mean())


@pytest.mark.skipif(not EMBEDDINGS.exists(), reason=f"no sentence embeddings in {FOLDER}")
@pytest.mark.parametrize(
    "metric", [*(pytest.param(name, marks=pytest.mark.long) for name in ("euclidean", "cosine")), "dot"]
)
def test_recall_on_sentence_embeddings(metric: DistanceName) -> None:
    pytest.importorskip("faiss")
    with np.load(EMBEDDINGS) as file:
        x = torch.from_numpy(file["embeddings"])
    found, recall = approximate_neighbours(x, 10, metric=metric, ef=64)
    exact = nearest_neighbours(x, 10, metric=metric)
    assert recall > 0.99
    assert recall == pytest.approx(shared(found.ids, exact.ids), abs=0.003)  # of 1,000 queries of the 7,600


@pytest.mark.parametrize("metric", METRICS)
def test_exact_neighbours_are_those_of_a_flat_index(metric: DistanceName) -> None:
    faiss = pytest.importorskip("faiss")
    x, q = clustered(1000, 24), clustered(200, 24, seed=1)
    of_index, of_queries = (torch.nn.functional.normalize(z, dim=1) if metric == "cosine" else z for z in (x, q))
    flat = faiss.IndexFlatL2(24) if "euclidean" in metric else faiss.IndexFlatIP(24)
    flat.add(of_index.numpy())
    values, ids = (torch.from_numpy(part) for part in flat.search(of_queries.numpy(), 8))
    found = nearest_neighbours(x, 8, metric=metric, queries=q)
    assert torch.equal(found.ids, ids)
    distances = {"euclidean": values.sqrt(), "sqeuclidean": values, "cosine": 1 - values, "dot": -values}[metric]
    torch.testing.assert_close(found.distances.float(), distances, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("include_self", [False, True])
def test_a_wide_search_finds_all(metric: DistanceName, include_self: bool) -> None:
    pytest.importorskip("faiss")
    x = clustered(600, 8)
    found, recall = approximate_neighbours(
        x, 5, metric=metric, include_self=include_self, links=64, ef=600, sample=10_000
    )
    exact = nearest_neighbours(x, 5, metric=metric, include_self=include_self)
    assert recall == shared(found.ids, exact.ids) == 1.0
    assert torch.equal(found.ids, exact.ids)
    assert torch.equal(found.distances, exact.distances)


def test_queries_of_their_own() -> None:
    pytest.importorskip("faiss")
    x, q = clustered(600, 8), clustered(50, 8, seed=1)
    found, recall = approximate_neighbours(x, 5, queries=q, links=64, ef=600)
    assert recall == 1.0
    assert torch.equal(found.ids, nearest_neighbours(x, 5, queries=q).ids)


def test_a_point_is_left_out_by_position_and_not_by_distance() -> None:
    pytest.importorskip("faiss")
    x = clustered(500, 8)
    x[100:140] = x[100]
    for metric in METRICS:
        ids = approximate_neighbours(x, 5, metric=metric).neighbours.ids
        assert not (ids == torch.arange(500)[:, None]).any()
        assert ids.min() >= 0
    euclidean = approximate_neighbours(x, 5).neighbours
    assert torch.equal(euclidean.distances[100:140], torch.zeros(40, 5, dtype=torch.float64))


def test_a_poor_graph_says_so() -> None:
    pytest.importorskip("faiss")
    x = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
    found, recall = approximate_neighbours(x, 10, links=2, ef=10)
    true = shared(found.ids, nearest_neighbours(x, 10).ids)
    assert true < 0.9
    assert recall == pytest.approx(true, abs=0.03)
    assert (found.distances.diff(dim=1) >= 0).all()


def test_walks_that_end_early_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = pytest.importorskip("faiss")
    x = clustered(300, 8)
    search = faiss.IndexHNSWFlat.search

    def short(self: object, *args: object) -> tuple[np.ndarray, np.ndarray]:
        values, ids = search(self, *args)
        ids[[4, 77], 3:] = -1
        return values, ids

    monkeypatch.setattr(faiss.IndexHNSWFlat, "search", short)
    ids = approximate_neighbours(x, 5).neighbours.ids
    assert torch.equal(ids[[4, 77]], nearest_neighbours(x, 5).ids[[4, 77]])


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'need FAISS: pip install -e "\.\[ann\]"'):
        approximate_neighbours(clustered(50, 4))


def test_what_the_exact_search_refuses_is_refused() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="k must be from 1 to 49, but it is 50"):
        approximate_neighbours(clustered(50, 4), 50)
    with pytest.raises(ValueError, match="sample must be at least 1 query, but it is 0"):
        approximate_neighbours(clustered(50, 4), 5, sample=0)
