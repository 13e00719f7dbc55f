"""Procrustes distances against scipy, torchmetrics, a search over angles, and the axioms of a metric."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.shape import procrustes_disparity

from likeness.similarity.representations.procrustes import angular_procrustes_distance, procrustes_distance
from tests.likeness.similarity.paired_samples import orthogonal, related, unrelated


def normalised(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    return centred / np.linalg.norm(centred)


@pytest.mark.parametrize("dims", [(3, 3), (50, 50)])
def test_against_scipys_rotation(dims: tuple[int, int]) -> None:
    x, y = (normalised(z.numpy()) for z in related(20, dims))
    rotation, nuclear_norm = scipy.linalg.orthogonal_procrustes(x, y)
    pair = [torch.from_numpy(z) for z in (x, y)]
    assert float(procrustes_distance(*pair)) == pytest.approx(np.linalg.norm(x @ rotation - y), abs=1e-12)
    assert float(angular_procrustes_distance(*pair)) == pytest.approx(math.acos(nuclear_norm), abs=1e-12)


def test_the_narrower_representation_is_padded_with_zeros() -> None:
    x, y = related(20, (2, 5))
    padded = torch.nn.functional.pad(x, (0, 3))
    expected = np.linalg.svd(normalised(x.numpy()).T @ normalised(y.numpy()), compute_uv=False).sum()
    for pair in [(x, y), (y, x), (padded, y)]:
        assert float(angular_procrustes_distance(*pair)) == pytest.approx(math.acos(expected), abs=1e-12)


def test_the_disparity_of_torchmetrics_and_scipy_is_the_squared_sine_of_the_angle() -> None:
    x, y = related(20, (3, 3))
    angle = float(angular_procrustes_distance(x, y))
    assert math.sin(angle) ** 2 == pytest.approx(float(procrustes_disparity(x[None], y[None])), abs=1e-12)
    assert math.sin(angle) ** 2 == pytest.approx(scipy.spatial.procrustes(x.numpy(), y.numpy())[2], abs=1e-12)


def test_no_rotation_or_reflection_of_the_plane_does_better() -> None:
    x, y = (normalised(z.numpy()) for z in related(20, (2, 2)))
    angles = np.linspace(0, 2 * np.pi, 20001)
    c, s = np.cos(angles), np.sin(angles)
    turns = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
    candidates = np.concatenate([turns, turns * [1, -1]])
    best = np.linalg.norm(x @ candidates - y, axis=(1, 2)).min()
    assert float(procrustes_distance(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(best, abs=1e-6)


@given(st.integers(0, 2**31), st.integers(1, 30), st.floats(1e-3, 1e3))
def test_equivalent_representations_are_at_zero_to_the_last_digits(seed: int, dim: int, scale: float) -> None:
    """The textbook form 2 - 2 ||X^T Y||_* has a floor of 1e-8 here."""
    x, _ = unrelated(20, (dim, 1), seed)
    image = scale * x @ orthogonal(dim, seed) + 5
    assert float(procrustes_distance(x, image)) < 1e-12
    assert float(angular_procrustes_distance(x, image)) < 1e-12


@given(st.integers(0, 2**31))
def test_the_triangle_inequality(seed: int) -> None:
    (x, y), (z, _) = related(8, (2, 3), seed), unrelated(8, (2, 1), seed + 1)
    for distance in (procrustes_distance, angular_procrustes_distance):
        assert float(distance(x, z)) <= float(distance(x, y) + distance(y, z)) + 1e-12


def test_orthogonal_supports_are_farthest_apart() -> None:
    x = torch.tensor([[1.0], [-1.0], [0.0], [0.0]])
    y = torch.tensor([[0.0], [0.0], [1.0], [-1.0]])
    assert float(procrustes_distance(x, y)) == pytest.approx(math.sqrt(2))
    assert float(angular_procrustes_distance(x, y)) == pytest.approx(math.pi / 2)
