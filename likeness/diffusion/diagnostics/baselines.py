"""The simplest density models of data with grey levels: what a diffusion model's bound has to beat."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform_bits(levels: int) -> float:
    """Bits per dimension of grey levels 0 .. levels - 1 that are all equally likely."""
    return math.log2(levels)


class LevelHistogram:
    """Each dimension by itself: p(k) = (n_k + 1) / (n + levels), where n_k of n training values are k.

    The one added to each count (Laplace) leaves no level without probability.

    Args:
        input_shape: of one sample.
        levels: grey levels of the data, whose values are integers 0 .. levels - 1.
    """

    def __init__(self, input_shape: Sequence[int], levels: int) -> None:
        self.input_shape, self.levels = tuple(input_shape), levels
        self.dims = math.prod(self.input_shape)
        self.counts = torch.zeros(self.dims * levels, dtype=torch.int64)  # dimension-major

    def add(self, images: Tensor) -> None:
        """Count the levels of training samples [B, *input_shape]; raises ValueError for others."""
        self.counts += torch.bincount(self._cells(images).flatten(), minlength=len(self.counts))

    def bits_per_dim(self, images: Tensor) -> Tensor:
        """-log2 p of samples [B, *input_shape] in bits per dimension, [B] in float64."""
        counts = self.counts.reshape(self.dims, self.levels).double() + 1
        cost = counts.sum(1, keepdim=True).log2() - counts.log2()
        return cost.flatten()[self._cells(images)].mean(1)

    def _cells(self, images: Tensor) -> Tensor:
        """Where each value's count stands, [B, dims]."""
        if tuple(images.shape[1:]) != self.input_shape:
            raise ValueError(f"images {list(images.shape)} are not of shape [B, {str([*self.input_shape])[1:]}")
        values = images.cpu().flatten(1).long()
        if values.numel() and (values.min() < 0 or values.max() >= self.levels):
            raise ValueError(f"grey levels must lie in 0..{self.levels - 1}, got {values.min()}..{values.max()}")
        return values + self.levels * torch.arange(self.dims)
