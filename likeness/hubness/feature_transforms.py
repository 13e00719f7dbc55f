"""Reductions of hubness that move the points: what is fitted on the index is applied to queries as it is.

Transforms by the principal components of the index: leave out the largest, or give all the same variance.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import AugmentedVectors, HubnessReduction
from likeness.neighbours.distances import unit_rows
from likeness.neighbours.exact import DistanceName, Neighbours, nearest_neighbours
from likeness.neighbours.tiles import DistanceTiles
from likeness.numerics import DEAD, FeatureMoments, Moments, full_precision, row_centre, row_z_score


class FeatureTransform(HubnessReduction):
    """A map of single points [d] -> [d'], whose neighbours are then found by ``metric``.

    A method implements `_fit_transform` and `_transform`.
    """

    def __init__(self, metric: DistanceName = "cosine") -> None:
        require_one_of(metric, get_args(DistanceName), f"metric of {self.name}")
        self.metric: DistanceName = metric

    def transform(self, queries: Any) -> Tensor:
        """Queries [m, d] as the index's points were mapped, [m, d']. Raises NotFittedError before `fit`."""
        self.index  # noqa: B018  raises before fit
        points = self._like_index(queries, "queries")
        with torch.no_grad(), full_precision(points.device):
            return self._transform(points)

    def augment(self) -> AugmentedVectors:
        """Transformed points for an inner-product engine; Euclidean distances take one dimension more.

        |q - x|^2 = |q|^2 - 2 (<q, x> - |x|^2 / 2), and |q|^2 ranks nothing.
        """
        vectors = self._index_vectors()
        if self.metric == "dot":
            return AugmentedVectors(vectors, self._moved)
        if self.metric == "cosine":
            return AugmentedVectors(unit_rows(vectors, "transformed index"), self._moved)
        half = vectors.square().sum(1, keepdim=True) / 2
        return AugmentedVectors(torch.cat([vectors, -half], 1), _with_one(self._moved))

    def _moved(self, queries: Any) -> Tensor:
        return self._index_vectors() if queries is None else self.transform(queries)

    def _fit(self) -> None:
        self._fit_transform(self.index)
        self._vectors = self._transform(self.index)

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        index, points = self._mapped(queries)
        return nearest_neighbours(index, k, metric=self.metric, queries=points)

    def _distances(self, queries: Tensor | None) -> Tensor:
        index, points = self._mapped(queries)
        tiles = DistanceTiles(index, self.metric)
        prepared = tiles.index if points is None else tiles.prepare(points, "transformed queries")
        return tiles.tile(prepared, slice(None))

    def _index_vectors(self) -> Tensor:
        self.index  # noqa: B018  raises before fit
        return self._vectors

    def _mapped(self, queries: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Index and queries in the space where they are compared."""
        return self._vectors, None if queries is None else self._transform(queries)

    @abstractmethod
    def _fit_transform(self, index: Tensor) -> None:
        """Compute from the index [n, d] what `_transform` needs."""

    @abstractmethod
    def _transform(self, points: Tensor) -> Tensor:
        """The map of checked points [m, d] -> [m, d']."""


class Centring(FeatureTransform):
    """x - mean of the index. With the metric "dot" its ranking is that of DisSimGlobal."""

    name = "centring"

    def _fit_transform(self, index: Tensor) -> None:
        self._mean = FeatureMoments.of(index).mean.to(index.dtype)

    def _transform(self, points: Tensor) -> Tensor:
        return points - self._mean


class ZScore(FeatureTransform):
    """(x - mean) / standard deviation of each dimension of the index; dead dimensions become 0.

    Dead is what varies by at most ``eps`` times the index's root mean square: division would make noise of it.
    """

    name = "z_score"

    def __init__(self, metric: DistanceName = "cosine", eps: float = DEAD) -> None:
        super().__init__(metric)
        self.eps = eps

    def _fit_transform(self, index: Tensor) -> None:
        moments = FeatureMoments.of(index)
        self._mean = moments.mean.to(index.dtype)
        self._inverse_std = moments.inverse_std(self.eps).to(index.dtype)

    def _transform(self, points: Tensor) -> Tensor:
        return (points - self._mean) * self._inverse_std


class RowCentring(FeatureTransform):
    """Each point minus the mean of its own components."""

    name = "row_centring"

    def _fit_transform(self, index: Tensor) -> None:
        pass

    def _transform(self, points: Tensor) -> Tensor:
        return row_centre(points)


class RowZScore(FeatureTransform):
    """Each point with mean 0 and standard deviation 1 over its own components."""

    name = "row_z_score"

    def _fit_transform(self, index: Tensor) -> None:
        pass

    def _transform(self, points: Tensor) -> Tensor:
        return row_z_score(points)


def _with_one(transform: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def extended(queries: Any) -> Tensor:
        points = transform(queries)
        return torch.cat([points, points.new_ones(len(points), 1)], 1)

    return extended


class DropComponents(FeatureTransform):
    """x - mean, less its part along the ``num`` components of largest variance ("all but the top").

    Mu & Viswanath 2018 (arXiv 1702.01417). `fit` raises ValueError unless ``num`` is below the number of dimensions.
    """

    name = "drop_components"

    def __init__(self, num: int = 3, metric: DistanceName = "cosine") -> None:
        super().__init__(metric)
        require_positive(self.name, num=num)
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
