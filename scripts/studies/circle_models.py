"""The classifiers that paper A constructs: clusters of embeddings around label vectors on a circle.

Nielsen, Marconato, Dittadi and Gresele 2025 (arXiv 2506.03784), Table 1 and Fig 16. NumPy's ``default_rng(0)`` draws
what the authors' code draws, in the same order.
"""

import math

import numpy as np
import torch
from torch import Tensor

PERMUTATION = (5, 0, 2, 4, 6, 1, 3)  # class i of the second model of Table 1 has the place of class PERMUTATION[i]
PER_CLASS = 500
_HALF_ANGLE = math.pi / 64  # of a cluster
_RADIAL_SPREAD = 0.01


def permuted_pair(length: float, per_class: int = PER_CLASS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f, g, f', g' of Table 1 for unembeddings of this length: f [7 n, 2] by class, g [7, 2], in float64.

    In the second model clusters and label vectors have changed places; radii stay with their inputs.
    """
    order = list(PERMUTATION)
    angles, radii = _clusters(np.random.default_rng(0), len(order), per_class, radius=2.0)
    g = label_vectors(len(order), length)
    return _points(angles, radii), g, _points(angles[order], radii), g[order]


def perturbed_models(
    num_classes: int, levels: list[float], per_class: int = PER_CLASS
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """f [K n, 2], g [K, 2] and, for each level, f + level * normal noise; of Fig 16, in float64."""
    rng = np.random.default_rng(0)
    f = _points(*_clusters(rng, num_classes, per_class, radius=5.0))
    noisy = [f + level * torch.from_numpy(rng.normal(size=tuple(f.shape))) for level in levels]
    return f, label_vectors(num_classes, 20.0), noisy


def label_vectors(num_classes: int, length: float) -> Tensor:
    """g(y) [K, 2] at equal angles."""
    angles = 2 * np.pi * np.arange(num_classes) / num_classes
    return torch.from_numpy(length * np.stack([np.cos(angles), np.sin(angles)], axis=1))


def _clusters(
    rng: np.random.Generator, num_classes: int, per_class: int, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Angles and radii [K, n] of the embeddings; angles are drawn first."""
    shape = (num_classes, per_class)
    centres = 2 * np.pi * np.arange(num_classes)[:, None] / num_classes
    angles = centres + rng.uniform(-_HALF_ANGLE, _HALF_ANGLE, shape)
    return angles, radius + np.abs(rng.normal(0, _RADIAL_SPREAD, shape))


def _points(angles: np.ndarray, radii: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1).reshape(-1, 2))
