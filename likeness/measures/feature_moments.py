"""Means and standard deviations of embeddings: of every dimension over the rows, and of every row."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.measures.moments import as_float64

DEAD = 1e-6  # a dimension with a standard deviation of at most this times the embeddings' root mean square is dead
ROW_EPS = 1e-6  # added to a row's standard deviation, as in the modules of Nielsen & Hansen


class FeatureMoments(NamedTuple):
    """Mean and population variance of each of D dimensions."""

    mean: Tensor  # [D]
    variance: Tensor  # [D]

    @classmethod
    def of(cls, embeddings: Tensor) -> Self:
        """Moments over the rows of the embeddings [N, D], in float64."""
        variance, mean = torch.var_mean(as_float64(embeddings), dim=0, correction=0)
        return cls(mean, variance)

    def size(self) -> Tensor:
        """The root mean square of all components, a scalar."""
        return (self.mean.square() + self.variance).mean().sqrt()

    def live(self, eps: float = DEAD) -> Tensor:
        """Which dimensions vary, bool [D]: the others hold rounding errors, which no z-score must blow up.

        ``eps`` is relative to the embeddings' size, so no common factor makes a dimension dead.
        """
        return self.variance.sqrt() > eps * self.size()

    def inverse_std(self, eps: float = DEAD) -> Tensor:
        """1 / standard deviation [D]; 0 where the dimension is dead, which a z-score therefore sets to 0."""
        return torch.where(self.live(eps), self.variance, torch.inf).rsqrt()


def row_centre(embeddings: Tensor) -> Tensor:
    """Each row [N, D] minus the mean of its own components."""
    wide = at_least_float32(embeddings)
    return wide - wide.mean(-1, keepdim=True)


def row_z_score(embeddings: Tensor) -> Tensor:
    """Each row [N, D] with mean 0 and population standard deviation 1, so norm sqrt(D); a constant row becomes 0."""
    wide = at_least_float32(embeddings)
    std, mean = torch.std_mean(wide, dim=-1, correction=0, keepdim=True)
    return (wide - mean) / (std + ROW_EPS)


def at_least_float32(tensor: Tensor) -> Tensor:
    """float64 as it is, anything else as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
