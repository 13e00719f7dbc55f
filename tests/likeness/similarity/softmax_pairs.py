"""Pairs of softmax models that tests of their comparison share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tests.likeness.similarity.paired_samples import generator, invertible

Model = tuple[Tensor, Tensor]
"""f [N, M] and g [K, M]."""


def model(n: int = 60, labels: int = 6, dim: int = 2, seed: int = 0) -> Model:
    """A random model in float64."""
    g = generator(seed)
    return torch.randn(n, dim, generator=g, dtype=torch.float64), torch.randn(labels, dim, generator=g).double()


def related_to(original: Model, noise: float, seed: int = 1) -> Model:
    """The same model under noise."""
    f, g = original
    f_noise, g_noise = model(len(f), len(g), f.shape[1], seed)
    return f + noise * f_noise, g + noise * g_noise


def equivalent_to(original: Model, seed: int = 0) -> Model:
    """f -> A f, g -> A^-T g + v: the same distribution."""
    f, g = original
    a, shift = invertible(f.shape[1], seed), torch.randn(f.shape[1], generator=generator(seed + 7), dtype=f.dtype)
    return f @ a.T, g @ torch.linalg.inv(a) + shift


def with_bias(original: Model, seed: int = 0) -> Model:
    """With a bias in the head, carried by a constant coordinate of f."""
    f, g = original
    bias = torch.randn(len(g), 1, generator=generator(seed), dtype=g.dtype)
    return torch.cat([f, f.new_ones(len(f), 1)], dim=1), torch.cat([g, bias], dim=1)


def permuted_clusters(rho: float, permute: bool) -> Model:
    """The construction of Table 1 of arXiv 2506.03784: seven clusters, permuted in the second model."""
    rng = np.random.default_rng(0)
    offsets = rng.uniform(-np.pi / 64, np.pi / 64, (7, 500))
    norms = 2 + np.abs(0.01 * rng.normal(size=(7, 500)))
    order = [5, 0, 2, 4, 6, 1, 3] if permute else range(7)
    labels = 2 * np.pi * np.arange(7)[list(order)] / 7
    angles = labels[:, None] + offsets[list(order)]
    f = norms[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    g = rho * np.stack([np.cos(labels), np.sin(labels)], axis=-1)
    return torch.from_numpy(f.reshape(-1, 2)), torch.from_numpy(g)


def log_p(original: Model) -> np.ndarray:
    return torch.log_softmax(original[0] @ original[1].T, dim=1).numpy()


def entries(lp1: np.ndarray, lp2: np.ndarray, pivot: int, other: int) -> tuple[float, float]:
    """One entry of the terms 1 and 3, from the definition; of 2 and 4 for transposed log-probabilities."""
    s, t = (np.std(lp[:, other] - lp[:, pivot], ddof=1) for lp in (lp1, lp2))
    sides = [np.std(lp1[:, y] / s - lp2[:, y] / t, ddof=1) for y in (pivot, other)]
    return max(sides), abs(s - t)


def mean_divergences(divergence: Callable[[Tensor, Tensor], Tensor], log_p: Tensor) -> Tensor:
    """divergence(p_i, p_j), mean over samples, of all ordered pairs, [P, P], from log-probabilities [P, N, K]."""
    return torch.stack([torch.stack([divergence(p, q).mean() for q in log_p]) for p in log_p])
