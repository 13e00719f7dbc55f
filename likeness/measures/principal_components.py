"""Transforms by the principal components of the index: leave out the largest, or give all the same variance."""

import torch
from torch import Tensor

from likeness.measures.feature_moments import DEAD, FeatureMoments
from likeness.measures.feature_transforms import FeatureTransform
from likeness.measures.moments import Moments
from likeness.measures.neighbours import DistanceName
from likeness.measures.reduction_base import at_least_one


class DropComponents(FeatureTransform):
    """x - mean, less its part along the ``num`` components of largest variance ("all but the top").

    Mu & Viswanath 2018 (arXiv 1702.01417). `fit` raises ValueError unless ``num`` is below the number of dimensions.
    """

    name = "drop_components"

    def __init__(self, num: int = 3, metric: DistanceName = "cosine") -> None:
        super().__init__(metric)
        at_least_one(f"num of {self.name}", num)
        self.num = num

    def _fit_transform(self, index: Tensor) -> None:
        if self.num >= index.shape[1]:
            raise ValueError(f"{self.name}: num is {self.num}, but the index has {index.shape[1]} dimensions")
        mean, _, directions = _principal_components(index)
        self._mean, self._top = mean.to(index.dtype), directions[:, : self.num].to(index.dtype)

    def _transform(self, points: Tensor) -> Tensor:
        centred = points - self._mean
        return centred - (centred @ self._top) @ self._top.T


class Whitening(FeatureTransform):
    """Coordinates along the principal components of the index, each divided by its standard deviation.

    Components in which the index does not vary are left out, so d' is at most its rank. Raises ValueError if all
    index points are equal.
    """

    name = "whitening"

    def _fit_transform(self, index: Tensor) -> None:
        mean, variance, directions = _principal_components(index)
        live = variance.sqrt() > DEAD * FeatureMoments.of(index).size()
        if not bool(live.any()):
            raise ValueError(f"{self.name}: all {len(index)} index points are equal")
        self._mean = mean.to(index.dtype)
        self._map = (directions[:, live] * variance[live].rsqrt()).to(index.dtype)

    def _transform(self, points: Tensor) -> Tensor:
        return (points - self._mean) @ self._map


def _principal_components(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [d], variances [d] descending and, in columns, directions [d, d] of the index, in float64."""
    moments = Moments.of(index)
    variance, directions = torch.linalg.eigh(moments.scatter / moments.n)
    return moments.mean, variance.flip(0).clamp(min=0), directions.flip(1)
