"""Gaps between two clouds, and what they share, against differences of the points themselves."""

import pytest
import torch
from torch import Tensor

from likeness.similarity.cloud import Cloud, GapRows, gaps_from, half_squares_from

PAIR = torch.tensor([0]), torch.tensor([1])


def clouds(points: int, dims: tuple[int, int], noise: float) -> Cloud:
    """Two in one space of 60 dimensions; with equal dims the second one is the first, thrice as long, and noise."""
    random = torch.Generator().manual_seed(0)
    sizes = (points, dims[0]), (60, dims[0]), dims, (points, dims[1]), (1, 60)
    x, root, mixed, noises, offset = (torch.randn(size, generator=random, dtype=torch.float64) for size in sizes)
    x[5] = x[700 % points] * (1 + 1e-5)  # two points that products cannot tell apart
    back = torch.linalg.pinv(mixed)
    other = [x @ mixed + noise * noises, 3 * root @ back.T]
    return Cloud.of_maps([x, other[0]], [root, other[1]], torch.cat([offset, 3 * offset + noise]))


def points_of(cloud: Cloud) -> Tensor:
    """[P, n, R] in the space of all."""
    return cloud.own @ cloud.axes + cloud.offset[:, None]


def brute_force(cloud: Cloud, pivot: int) -> tuple[Tensor, Tensor]:
    """The gap from one point to all others, and half squares of differences at unit length."""
    v, w = points_of(cloud)
    a, b = ((x - x[pivot]).norm(dim=1, keepdim=True) for x in (v, w))
    ends = (v / a - w / b).norm(dim=1), (v[pivot] / a - w[pivot] / b).norm(dim=1)
    return torch.maximum(*ends), 0.5 * ((v - v[pivot]) / a - (w - w[pivot]) / b).square().sum(1)


@pytest.mark.parametrize(("points", "dims"), [(1200, (40, 40)), (1200, (40, 33)), (70, (5, 3))])
def test_gaps_and_half_squares(points: int, dims: tuple[int, int]) -> None:
    cloud, pivots = clouds(points, dims, 0.1), torch.tensor([0, 5, points - 1])
    rows = GapRows(cloud, PAIR).rows(pivots)[0]
    for row, pivot in zip(rows, pivots.tolist(), strict=True):
        others = torch.arange(points) != pivot
        gap, half = (x[others] for x in brute_force(cloud, pivot))
        torch.testing.assert_close(row[others], gap, rtol=1e-6, atol=1e-11)
        at = torch.tensor([pivot])
        torch.testing.assert_close(gaps_from(cloud, PAIR, at).gap[0][others], gap, rtol=1e-6, atol=1e-11)
        torch.testing.assert_close(half_squares_from(cloud, PAIR, at)[0][others], half, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("distance", [1e-6, 1e-8, 1e-10])
def test_half_squares_of_points_beside_the_pivot(distance: float) -> None:
    """Of points that all but coincide in both clouds: as of the same directions at a distance, to 1e-4."""
    random = torch.Generator().manual_seed(1)
    x, y, moves = (torch.randn(size, generator=random, dtype=torch.float64) for size in ((50, 6), (50, 6), (2, 6)))
    x[1], y[1] = x[0] + distance * moves[0], y[0] + distance * moves[1]
    eye = torch.eye(6, dtype=torch.float64)
    cloud = Cloud.of_maps([x, y], [eye, eye], torch.zeros(2, 6, dtype=torch.float64))
    found = half_squares_from(cloud, PAIR, torch.tensor([0]))[0]
    expected = 1 - torch.cosine_similarity(moves[0], moves[1], dim=0)
    assert found[1].item() == pytest.approx(expected.item(), rel=max(1e-4, 1e-15 / distance * 10))
    assert found[2:].max() <= 2


def test_the_summary_of_a_pair_is_that_of_its_points_and_is_handed_on() -> None:
    cloud = clouds(300, (40, 33), 0.1)
    summary, scale = cloud.summary(PAIR), cloud.summary(PAIR).scale[:, None, None]
    whole, centred = points_of(cloud) / scale, cloud.own @ cloud.axes / scale
    for found, (v, w) in ((summary.points, whole), (summary.centred, centred)):
        expected = v.square().sum(1), w.square().sum(1), (v - w).square().sum(1)
        torch.testing.assert_close(tuple(x[0] for x in found), expected)
    turned = cloud.summary(PAIR[::-1])
    assert torch.equal(turned.points.first, summary.points.second)
    some = cloud.at(torch.tensor([7, 3]))
    assert torch.equal(some.summary(PAIR).points.difference, summary.points.difference[:, [7, 3]])


def test_equal_clouds_have_gaps_of_rounding() -> None:
    cloud = clouds(1200, (40, 40), 0.0)
    rows = GapRows(cloud, PAIR).rows(torch.tensor([1, 2, 3]))[0]
    assert float(rows[rows.isfinite()].max()) < 1e-11
    assert float(half_squares_from(cloud, PAIR, torch.tensor([2]))[0].nan_to_num().max()) < 1e-22


def test_pairs_looked_at_one_by_one_have_the_same_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 0])
    together = clouds(70, (5, 3), 0.1).summary(pairs)
    monkeypatch.setattr("likeness.similarity.cloud._PAIR_ELEMENTS", 1)
    for found, expected in zip(clouds(70, (5, 3), 0.1).summary(pairs), together, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert float(together.points.difference[2].max()) < 1e-25
