"""Cells of the hubness grid against brute force over dense matrices of distances."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binom, norm, skew
from sklearn.model_selection import StratifiedKFold

from scripts.reporting import Row
from scripts.study.hubness_grid import Protocol, measure_cell
from scripts.study.hubness_grid_data import Embedded, open_embeddings
from tests.scripts.study.labelled_points import points_file


def vote(labels: list[str]) -> str:
    """The most frequent label; of several the one that comes first."""
    counts = Counter(labels)
    return next(label for label in labels if counts[label] == max(counts.values()))


def brute_force(own: np.ndarray, asked: np.ndarray, points: Embedded, folds: int) -> Row:
    """From dense distances [n, n] with an infinite diagonal, and [m, n]."""
    labels, wanted = np.array(points.index.labels), np.array(points.queries.labels)
    row: Row = {}
    for part, distances in (("train", own), ("test", asked)):
        nearest = distances.argsort(1, kind="stable")[:, :10]
        counts = np.bincount(nearest.ravel(), minlength=len(labels))
        row[f"{part}_k_skewness"] = float(skew(counts))
        row[f"{part}_robin_hood"] = float(np.abs(counts - counts.mean()).sum() / (2 * counts.sum()))
    accuracies: dict[int, list[float]] = {k: [] for k in range(2, 20)}
    for kept, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels):
        nearest = kept[own[np.ix_(held_out, kept)].argsort(1, kind="stable")]
        for k, found in accuracies.items():
            found.append(
                np.mean(
                    [
                        vote(list(labels[near[:k]])) == labels[own_row]
                        for near, own_row in zip(nearest, held_out, strict=True)
                    ]
                )
            )
    row["chosen_k"] = max(accuracies, key=lambda k: (round(float(np.mean(accuracies[k])), 12), -k))
    nearest = asked.argsort(1, kind="stable")[:, : row["chosen_k"]]
    right = [vote(list(labels[near])) == label for near, label in zip(nearest, wanted, strict=True)]
    accuracy = float(np.mean(right))
    row |= {"accuracy": accuracy, "margin": 1.96 * np.sqrt(accuracy * (1 - accuracy) / len(right))}
    return row | {"correct": "".join("1" if is_right else "0" for is_right in right)}


def mutual_proximity(own: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - P(D_q > d) P(D_x > d) of normal laws, in-sample with an infinite diagonal."""
    others = own[~np.eye(len(own), dtype=bool)].reshape(len(own), -1)
    mean, sd = others.mean(1), others.std(1)
    logs = norm.logsf(own, mean[:, None], sd[:, None]) + norm.logsf(own, mean, sd)
    np.fill_diagonal(logs, -np.inf)
    rows_ = norm.logsf(asked, asked.mean(1)[:, None], asked.std(1)[:, None])
    return -np.expm1(logs), -np.expm1(rows_ + norm.logsf(asked, mean, sd))


@pytest.mark.parametrize("method", ["base", "mutual_proximity"])
def test_a_cell_is_what_brute_force_finds(method: str, tmp_path: Path) -> None:
    points = open_embeddings(str(points_file(tmp_path / "points.npz")))
    index, queries = points.index.vectors.numpy(), points.queries.vectors.numpy()
    own, asked = cdist(index, index), cdist(queries, index)
    np.fill_diagonal(own, np.inf)
    if method == "mutual_proximity":
        finite = np.where(np.isinf(own), 0.0, own)
        own, asked = mutual_proximity(finite, asked)
        np.fill_diagonal(own, np.inf)
    cell = measure_cell(method, points, Protocol(folds=5))
    expected = brute_force(own, asked, points, folds=5)
    assert cell["correct"] == expected.pop("correct")
    assert {name: cell[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert (cell["n"], cell["m"], cell["d"]) == (192, 48, 12)
    p = 10 / 192
    assert cell["test_k_skewness_null"] == pytest.approx((1 - 2 * p) / np.sqrt(48 * p * (1 - p)), rel=1e-9)
    assert cell["test_robin_hood_null"] == pytest.approx(binom(48, p).expect(lambda N: abs(N - 2.5)) / 5, rel=1e-9)


def test_a_file_is_divided_in_the_proportions_of_its_labels(tmp_path: Path) -> None:
    points = open_embeddings(str(points_file(tmp_path / "points.npz")))
    assert Counter(points.queries.labels or ()) == {"3": 14, "5": 16, "7": 18}
    together = torch.cat([points.index.vectors, points.queries.vectors])
    assert len({tuple(row) for row in together.tolist()}) == 240
    assert points.fingerprint() == open_embeddings(str(points_file(tmp_path / "again.npz"))).fingerprint()


def test_a_label_of_a_single_point_is_an_error(tmp_path: Path) -> None:
    points = open_embeddings(str(points_file(tmp_path / "points.npz")))
    alone = replace(points.index, labels=["9", *(points.index.labels or ())[1:]])
    with pytest.raises(ValueError, match="label '9' has 1 point"):
        measure_cell("base", Embedded(alone, points.queries), Protocol())
