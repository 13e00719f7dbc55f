"""Neighbour overlap against scikit-learn's neighbours, whatever the size of a block."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from likeness.neighbours import exact as neighbours
from likeness.similarity.representations.mutual_knn import Metric, mutual_knn, nearest_samples, reorder_neighbours
from tests.likeness.similarity.paired_samples import generator, related, unrelated


def shared(x: torch.Tensor, y: torch.Tensor, k: int, metric: str) -> float:
    near = [NearestNeighbors(n_neighbors=k, metric=metric).fit(z.numpy()).kneighbors()[1] for z in (x, y)]
    return sum(len(set(a) & set(b)) for a, b in zip(*near, strict=True)) / (k * len(x))


@pytest.mark.parametrize("k", [1, 7, 49])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dims", [(3, 4), (2, 80)])
def test_against_scikit_learn(dims: tuple[int, int], metric: Metric, k: int) -> None:
    x, y = related(50, dims)
    assert float(mutual_knn(x, y, k, metric)) == pytest.approx(shared(x, y, k, metric), abs=1e-15)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = related(50)
    whole = mutual_knn(x, y, k=5)
    monkeypatch.setattr(neighbours, "_TILE", 50 * 7)  # seven rows at a time, one in the last
    assert mutual_knn(x, y, k=5) == whole


def test_far_from_the_origin_neighbours_are_the_same() -> None:
    x, y = related(50)
    assert mutual_knn(x + 1e6, y, k=5) == mutual_knn(x, y, k=5)


def test_unrelated_representations_share_k_of_n_minus_1() -> None:
    values = [mutual_knn(*unrelated(60, (3, 3), seed), k=10) for seed in range(60)]
    assert float(torch.stack(values).mean()) == pytest.approx(10 / 59, abs=0.01)


def test_neighbours_move_with_their_samples() -> None:
    x, _ = related(30)
    orders = torch.stack([torch.randperm(30, generator=generator(seed)) for seed in range(3)])
    moved = reorder_neighbours(nearest_samples(x, "x", 4, "euclidean"), orders)
    for order, ids in zip(orders, moved, strict=True):
        assert torch.equal(ids, nearest_samples(x[order], "x", 4, "euclidean"))


def test_the_cosine_refuses_a_sample_without_direction() -> None:
    x, y = related(30)
    x[11] = 0
    with pytest.raises(ValueError, match="sample 11 of 'x' has length 0"):
        mutual_knn(x, y, metric="cosine")


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="metric must be one of euclidean, cosine, but it is 'dot'"):
        mutual_knn(*related(), metric="dot")  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [0, 30])
def test_more_neighbours_than_there_are_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k} and 'x' has 30"):
        mutual_knn(*related(30), k=k)
