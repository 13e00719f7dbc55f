"""Reductions where points are copies of each other or lie in narrow clusters: exact where plain neighbours are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likeness.hubness.analysis import hubness_of_neighbours
from likeness.hubness.reductions import reduction
from likeness.neighbours.exact import nearest_neighbours
from tests.likeness.hubness.reduction_checks import points

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("mutual_proximity", {"variant": "normal", "metric": "cosine"}),
    ("mutual_proximity", {"variant": "gamma"}),
    ("mutual_proximity", {"variant": "rank"}),
    ("mutual_proximity", {"variant": "joint"}),
    ("local_scaling", {}),
    ("local_scaling", {"metric": "cosine"}),
    ("nicdm", {"metric": "sqeuclidean"}),
    ("dissim_local", {}),
    ("dissim_local", {"metric": "cosine"}),
    ("dissim_global", {}),
    ("csls", {}),
    ("nnn", {}),
    ("localised_centring", {}),
    ("inverted_softmax", {}),
    ("dynamic_inverted_softmax", {}),
    ("centring", {}),
    ("z_score", {}),
    ("row_centring", {}),
    ("row_z_score", {}),
    ("f_norm", {}),
    ("drop_components", {}),
    ("whitening", {}),
]
each_method = pytest.mark.parametrize(("name", "options"), METHODS, ids=lambda value: str(value))


def copies(n: int = 300, of: int = 60, dim: int = 20) -> Tensor:
    x = points(n, dim)
    x[100 : 100 + of] = x[100]
    return x


@each_method
def test_copies_of_a_point_are_listed_by_id(name: str, options: dict[str, Any]) -> None:
    """Rounding parts none of them, so the first stand in all lists, as they do in those of the plain search."""
    found = reduction(name, **options).fit(copies()).rerank(k=10)
    held = (found.ids >= 100) & (found.ids < 160)
    for row in range(300):
        ids = found.ids[row][held[row]].tolist()
        assert ids == [i for i in range(100, 160) if i != row][: len(ids)]
    assert held[100:160].all() or name == "dissim_local"  # by which other points may be nearer than a copy


def test_a_method_that_changes_nothing_changes_no_index() -> None:
    x = copies(400, 100)
    base = nearest_neighbours(x, 10, metric="cosine")
    same = reduction("nnn", alpha=0.0).fit(x).rerank(k=10)
    assert torch.equal(same.ids, base.ids)
    reports = [hubness_of_neighbours(lists.ids, 400, query_ids=torch.arange(400)) for lists in (base, same)]
    assert reports[0].indices() == reports[1].indices()


def clusters(spread: float) -> tuple[Tensor, np.ndarray]:
    """Points in 12 clusters and their squared distances, from whole-number differences that float64 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(-8, 9, (12, 10), generator=generator).double().repeat_interleave(25, 0)
    offsets = torch.randint(-512, 513, (300, 10), generator=generator).double()
    unit = 2.0 ** round(float(np.log2(spread / 512)))
    x = centres + unit * offsets
    squares = (x[:, None] - x).square().sum(-1).numpy()
    return x, squares


@pytest.mark.parametrize("spread", [1e-4, 1e-8])
@pytest.mark.parametrize("name", ["local_scaling", "nicdm", "dissim_local"])
def test_in_clusters_that_are_narrow(name: str, spread: float) -> None:
    x, squares = clusters(spread)
    distances = np.sqrt(squares)
    ascending = np.sort(distances, 1)[:, 1:]
    if name == "dissim_local":
        ids = np.argsort(squares + np.diag([np.inf] * 300), axis=1, kind="stable")[:, :10]
        means = (x.numpy()[:, None] - x.numpy()[ids]).mean(1)
        key = squares - (means**2).sum(1)
    else:
        scale = ascending[:, 9] if name == "local_scaling" else ascending[:, :10].mean(1)
        key = squares / scale
    np.fill_diagonal(key, np.inf)
    expected = np.argsort(key, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(reduction(name).fit(x).rerank().ids, expected)


@pytest.mark.parametrize("spread", [1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize("name", ["local_scaling", "nicdm", "dissim_local", "csls", "nnn", "inverted_softmax"])
def test_under_the_cosine_of_points_in_one_direction(name: str, spread: float) -> None:
    x = 1 + spread * torch.randn(200, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u = x / x.norm(dim=1, keepdim=True)
    d = torch.stack([(u - row).square().sum(1) for row in u]).numpy() / 2
    others = d + np.diag([np.inf] * 200)
    near = np.sort(others, 1)[:, :10]
    mean = near.mean(1)
    if name == "dissim_local":
        ids = np.argsort(others, axis=1, kind="stable")[:, :10]
        key = 2 * d - ((u.numpy()[:, None] - u.numpy()[ids]).mean(1) ** 2).sum(1)
    else:
        key = {
            "local_scaling": lambda: d / np.sqrt(near[:, 9]),
            "nicdm": lambda: d / np.sqrt(mean),
            "csls": lambda: 2 * d - mean,
            "nnn": lambda: d - mean / 2,
            "inverted_softmax": lambda: 20 * d + np.log1p(np.expm1(-20 * d).sum(1) / 199),
        }[name]()
    np.fill_diagonal(key, np.inf)
    expected = np.argsort(key, axis=1, kind="stable")[:, :10]
    found = reduction(name, metric="cosine").fit(x).rerank().ids.numpy()
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize("scale", [1e-140, 1e-13, 1e140])
@each_method
def test_the_scale_of_the_points_changes_no_list(name: str, options: dict[str, Any], scale: float) -> None:
    if name == "dissim_global" or "sqeuclidean" in options.values():
        scale = min(max(scale, 1e-100), 1e100)  # a power of two there
    x = points(120, 12)
    power = 2.0 ** round(float(np.log2(scale)))
    plain, scaled = (reduction(name, **options).fit(y).rerank(k=5) for y in (x, power * x))
    assert float((plain.ids == scaled.ids).double().mean()) > 0.995
