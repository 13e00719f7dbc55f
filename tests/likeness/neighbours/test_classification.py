"""Votes of neighbours, against scikit-learn's classifiers and a count in plain Python."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.neighbours.classification import TieRule, Weights, choose_k, knn_score
from likeness.neighbours.exact import Neighbours, nearest_neighbours

TIES: tuple[TieRule, ...] = ("nearest", "lowest")
WEIGHTS: tuple[Weights, ...] = ("uniform", "distance")


def labelled(n: int, seed: int = 0, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Points around their class's centre, and labels that are not 0, 1, ..."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    noise = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return noise + 1.2 * torch.eye(max(classes, 4), dtype=torch.float64)[labels, :4], 10 * labels - 7


def lists(*labels: str) -> tuple[Neighbours, list[str]]:
    """One query after the last point, whose neighbours 0, 1, ... have these labels and distances 1, 2, ..."""
    count = len(labels)
    return Neighbours(torch.arange(1.0, count + 1)[None], torch.arange(count)[None]), list(labels)


def plain_vote(labels: list[int], distances: list[float], ties: TieRule, weights: Weights) -> int:
    votes: dict[int, float] = defaultdict(float)
    zeros = 0.0 in distances
    for label, distance in zip(labels, distances, strict=True):
        votes[label] += 1.0 if weights == "uniform" else float(distance == 0) if zeros else 1 / distance
    best = [label for label in labels if votes[label] == max(votes.values())]
    return best[0] if ties == "nearest" else min(best)


@given(
    data=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])), min_size=1, max_size=12),
    ties=st.sampled_from(TIES),
    weights=st.sampled_from(WEIGHTS),
)
def test_votes_as_counted_one_by_one(data: list[tuple[int, float]], ties: TieRule, weights: Weights) -> None:
    labels, distances = [label for label, _ in data], sorted(distance for _, distance in data)
    neighbours = Neighbours(torch.tensor([distances]), torch.arange(len(data))[None])
    winner = plain_vote(labels, distances, ties, weights)
    for label in range(4):
        score = knn_score(neighbours, labels, len(data), query_labels=[label], ties=ties, weights=weights)
        assert bool(score.correct[0]) == (label == winner)


@pytest.mark.parametrize(
    ("labels", "nearest", "lowest"), [("baab", "b", "a"), ("bacbc", "b", "b"), ("ccbba", "c", "b")]
)
def test_tie_rules(labels: str, nearest: str, lowest: str) -> None:
    neighbours, names = lists(*labels)
    for ties, winner in zip(TIES, (nearest, lowest), strict=True):
        score = knn_score(neighbours, names, len(labels), query_labels=[winner], ties=ties)
        assert score.correct.tolist() == [True]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("k", [1, 2, 7])
def test_queries_are_classified_as_by_scikit_learn(weights: Weights, k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    (index, labels), (queries, query_labels) = labelled(150), labelled(80, seed=1)
    queries[:5] = index[:5]  # at distance 0
    classifier = KNeighborsClassifier(k, weights=weights).fit(index, labels)
    neighbours = nearest_neighbours(index, 10, queries=queries)
    score = knn_score(neighbours, labels, k, query_labels=query_labels, ties="lowest", weights=weights)
    correct = torch.from_numpy(classifier.predict(queries)) == query_labels
    assert torch.equal(score.correct, correct)
    assert score.error == pytest.approx(1 - correct.double().mean().item())
    assert score.margin == pytest.approx(1.96 * (score.error * (1 - score.error) / 80) ** 0.5)


def test_leave_one_out_is_that_of_scikit_learn() -> None:
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    index, labels = labelled(90)
    expected = cross_val_score(KNeighborsClassifier(5), index, labels, cv=LeaveOneOut())
    score = knn_score(nearest_neighbours(index, 5), labels, 5, ties="lowest")
    np.testing.assert_array_equal(score.correct, expected.astype(bool))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_k_is_chosen_as_by_scikit_learn(weights: Weights) -> None:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    index, labels = labelled(200)
    ks = range(2, 20)
    folds = StratifiedKFold(10, shuffle=True, random_state=3)
    search = GridSearchCV(KNeighborsClassifier(weights=weights), {"n_neighbors": list(ks)}, cv=folds).fit(index, labels)
    choice = choose_k(nearest_neighbours(index, 60), labels, ks, seed=3, ties="lowest", weights=weights)
    np.testing.assert_allclose(choice.accuracies, search.cv_results_["mean_test_score"], rtol=1e-12)
    assert choice.best.k == search.best_params_["n_neighbors"]
    assert choice.ks == tuple(ks)
    assert 1 - choice.best.error == pytest.approx(search.best_score_)  # ten folds of 20


def test_of_equally_good_ks_the_smallest_is_chosen() -> None:
    labels = torch.arange(40) % 2
    index = 100.0 * labels[:, None] + torch.arange(40)[:, None] / 40
    choice = choose_k(nearest_neighbours(index, 30), labels, (5, 3, 9), folds=4)
    assert choice.accuracies == (1, 1, 1)
    assert choice.best.k == 3
    assert (choice.best.error, choice.best.margin) == (0, 0)


def test_labels_of_any_kind() -> None:
    index, labels = labelled(60)
    neighbours = nearest_neighbours(index, 5)
    expected = knn_score(neighbours, labels, 5).correct
    names = np.array(["sport", "world", "business"])[(labels.numpy() + 7) // 10]
    assert torch.equal(knn_score(neighbours, names, 5).correct, expected)
    assert torch.equal(knn_score(neighbours, names.tolist(), 5).correct, expected)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    index, labels = labelled(60)
    neighbours = nearest_neighbours(index, 5)
    whole = knn_score(neighbours, labels, 5)
    monkeypatch.setattr("likeness.neighbours.classification._BLOCK", 60)
    assert torch.equal(knn_score(neighbours, labels, 5).correct, whole.correct)


def test_refusals() -> None:
    index, labels = labelled(30)
    neighbours = nearest_neighbours(index, 8)
    with pytest.raises(ValueError, match=r"k is 9 and there are 30 query labels, but the lists .* \[30, 8\]"):
        knn_score(neighbours, labels, 9)
    with pytest.raises(ValueError, match="there are 29 query labels"):
        knn_score(neighbours, labels[:-1], 5)
    with pytest.raises(ValueError, match=r"neighbours 0 to 29 need as many labels, but there are 20"):
        knn_score(neighbours, labels[:20], 5, query_labels=labels)
    with pytest.raises(ValueError, match="point 0 is its own neighbour"):
        knn_score(nearest_neighbours(index, 8, include_self=True), labels, 5)
    with pytest.raises(ValueError, match=r"need distances >= 0: query 0 has -"):
        knn_score(nearest_neighbours(1 + index.abs(), 8, metric="dot"), labels, 5, weights="distance")
    with pytest.raises(ValueError, match="of the 8 neighbours of point 0 fewer than 8 are of other folds"):
        choose_k(neighbours, labels, [8], folds=2)
    with pytest.raises(ValueError, match="ties must be one of nearest, lowest, but it is 'random'"):
        knn_score(neighbours, labels, 5, ties="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights must be one of uniform, distance, but it is 'rank'"):
        knn_score(neighbours, labels, 5, weights="rank")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"labels must be one for each point, got \[\[30, 1\]\]"):
        knn_score(neighbours, labels[:, None], 5)


def test_all_others_vote_against_a_point_of_an_even_split() -> None:
    """Leave-one-out with k = n - 1: of three a and three b each point sees three others of the other label."""
    index = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    neighbours = nearest_neighbours(index, 5)
    assert knn_score(neighbours, list("ababab"), 5).error == 1
    assert knn_score(neighbours, ["a"] * 6, 5).error == 0
    choice = choose_k(neighbours, ["a"] * 6, [1, 3], folds=6)  # each fold one point
    assert (choice.accuracies, choice.best.k) == ((1, 1), 1)


@pytest.mark.parametrize(("labels", "error"), [("aa", 0), ("ab", 1)])
def test_two_points_classify_each_other(labels: str, error: float) -> None:
    score = knn_score(nearest_neighbours(torch.tensor([[1.0], [2.0]]), 1), list(labels), 1)
    assert (score.error, score.margin) == (error, 0)


@pytest.mark.parametrize(("query", "correct"), [("a", True), ("b", False), ("none of the two", False)])
def test_one_query(query: str, correct: bool) -> None:
    neighbours = nearest_neighbours(torch.tensor([[1.0], [2.0]]), 1, queries=torch.tensor([[0.0]]))
    score = knn_score(neighbours, ["a", "b"], 1, query_labels=[query])
    assert (score.correct.tolist(), score.error, score.margin) == ([correct], 1 - correct, 0)


@pytest.mark.parametrize("folds", [-1, 0, 1, 4])
def test_folds_that_leave_nothing_to_classify_by_are_refused(folds: int) -> None:
    neighbours = nearest_neighbours(torch.arange(6.0)[:, None], 5)
    with pytest.raises(ValueError, match=f"folds must be at least 2 and at most 3, the largest .* got {folds}$"):
        choose_k(neighbours, list("ababab"), [1], folds=folds)
    with pytest.raises(ValueError, match="ks must name at least one k to try, got none"):
        choose_k(neighbours, list("ababab"), [], folds=2)
