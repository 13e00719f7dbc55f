"""Representations that tests of the peer measures share."""

import torch
from torch import Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unrelated(n: int = 40, dims: tuple[int, int] = (3, 3), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Independent Gaussian samples [N, M] and [N, M'] in float64."""
    g = generator(seed)
    x, y = (torch.randn(n, dim, generator=g, dtype=torch.float64) for dim in dims)
    return x, y


def related(n: int = 40, dims: tuple[int, int] = (3, 4), seed: int = 0, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """x [N, M], and a linear image [N, M'] of it under noise, in float64."""
    x, rest = unrelated(n, dims, seed)
    mix = torch.randn(*dims, generator=generator(seed + 1), dtype=torch.float64)
    return x, x @ mix + noise * rest


def orthogonal(dim: int, seed: int) -> Tensor:
    """A random orthogonal matrix, [M, M] in float64."""
    q: Tensor = torch.linalg.qr(torch.randn(dim, dim, generator=generator(seed), dtype=torch.float64))[0]
    return q


def invertible(dim: int, seed: int) -> Tensor:
    """A random matrix [M, M] in float64 with singular values in [0.5, 2]."""
    scales = 0.5 + 1.5 * torch.rand(dim, generator=generator(seed), dtype=torch.float64)
    return orthogonal(dim, seed) * scales @ orthogonal(dim, seed + 1)
