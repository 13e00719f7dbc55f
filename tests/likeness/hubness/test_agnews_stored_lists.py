"""Hubness of AG News in the paper's own setting, against what scikit-hubness 0.30.0a1 computes.

Euclidean; every point is the first of its own list, and counted; moments and re-ranking over the stored lists alone;
votes without the point, ties to the lowest class. What needs f-norm or longer lists is measured by `make evidence`.
"""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.f_norm import FNorm
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import Neighbours
from tests.likeness.hubness.agnews import agnews, needs_agnews

pytestmark = needs_agnews

K = 10


@functools.cache
def stored_lists(f_norm: bool) -> Neighbours:
    """The 1001 nearest of every point, by a dense product; no two points are equal."""
    embeddings, _ = agnews()
    vectors = FNorm("random", seed=0, eps=0).fit(embeddings).transform(embeddings) if f_norm else embeddings
    unit = torch.nn.functional.normalize(vectors.double())
    found = [(2 - 2 * rows @ unit.T).clamp(min=0).topk(1001, largest=False) for rows in unit.split(950)]
    squares, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
    squares[:, 0] = 0  # the point itself, but for rounding
    return Neighbours(squares.sqrt(), ids)


def stored_mutual_proximity(stored: int, f_norm: bool) -> Tensor:
    lists = stored_lists(f_norm)
    d, ids = lists.distances[:, :stored], lists.ids[:, :stored]
    sd, mean = (moment[:, None] for moment in torch.std_mean(d, dim=1, correction=0))
    own, other = (mean - d) / sd, (mean[ids, 0] - d) / sd[ids, 0]
    key = -torch.special.log_ndtr(own) - torch.special.log_ndtr(other)
    return ids.gather(1, key.sort(dim=1, stable=True).indices)


def stored_local_scaling(stored: int) -> Tensor:
    d, ids = (part[:, :stored] for part in stored_lists(False))
    scale = d[:, 5]
    return ids.gather(1, (d.square() / (scale[:, None] * scale[ids])).sort(dim=1, stable=True).indices)


@pytest.mark.parametrize(
    ("lists", "skewness", "robin_hood", "error"),
    [
        (lambda: stored_lists(False).ids, 1.4407, 0.2521, 0.1057),
        (lambda: stored_mutual_proximity(121, False), 0.5199, 0.1674, 0.1053),
        (lambda: stored_local_scaling(121), 0.7379, 0.1229, 0.1055),
        pytest.param(lambda: stored_lists(True).ids, 1.3647, 0.2384, 0.1053, marks=pytest.mark.long),
        pytest.param(lambda: stored_mutual_proximity(121, True), 0.5208, 0.1641, 0.1045, marks=pytest.mark.long),
    ],
    ids=["base", "MP", "LS", "f-norm", "f-norm + MP"],
)
def test_in_the_setting_of_the_paper(
    lists: Callable[[], Tensor], skewness: float, robin_hood: float, error: float
) -> None:
    ids, (embeddings, labels) = lists()[:, : K + 1], agnews()
    actual = analyse_hubness(embeddings, neighbours=ids, include_self=True)
    assert (actual.k_skewness, actual.robin_hood) == pytest.approx((skewness, robin_hood), rel=0, abs=1e-4)
    others = Neighbours(torch.zeros(len(ids), K), ids[:, 1:])
    assert knn_score(others, labels, K, ties="lowest").error == pytest.approx(error, rel=0, abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("stored", "alone", "after_f_norm"),
    [(21, 0.188, 0.151), (51, 0.333, 0.346), (121, 0.520, 0.521), (301, 0.538, 0.525), (1001, 0.487, 0.464)],
)
def test_few_stored_neighbours_look_less_hubby(stored: int, alone: float, after_f_norm: float) -> None:
    embeddings, _ = agnews()
    for f_norm, skewness in ((False, alone), (True, after_f_norm)):
        ids = stored_mutual_proximity(stored, f_norm)
        actual = analyse_hubness(embeddings, neighbours=ids, include_self=True)
        assert actual.k_skewness == pytest.approx(skewness, rel=0, abs=5e-4)


def test_skewness_falls_with_k() -> None:
    embeddings, _ = agnews()
    ids = stored_lists(False).ids[:, 1:]
    for k, skewness in {1: 1.51, 5: 1.46, 10: 1.46, 20: 1.37, 50: 1.18, 100: 1.08}.items():
        assert analyse_hubness(embeddings, k, neighbours=ids).k_skewness == pytest.approx(skewness, abs=5e-3)
