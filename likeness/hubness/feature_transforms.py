"""Reductions of hubness that move the points: what is fitted on the index is applied to queries in the same way.

Two of them go by the principal components of the index: leave out the largest, or give all the same variance.
"""

from abc import abstractmethod
from typing import Any, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of, require_positive
from likeness.hubness.reduction_base import AugmentedVectors, HubnessReduction, QueryOperation
from likeness.neighbours.distances import DistanceName, PointDistances, first_rows, row_lengths, unit_rows
from likeness.neighbours.exact import Neighbours, nearest_neighbours
from likeness.numerics import DEAD, ROUNDING, FeatureMoments, Moments, full_precision, row_centre

_RANK = 1e-12  # of the largest variance: components of standardised dimensions with less are rounding


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
        vectors, last = self.transformed_index(), QueryOperation()
        if self.metric == "cosine":
            vectors = unit_rows(vectors, f"index after {self.name}")
        elif self.metric != "dot":
            half = vectors.double().square().sum(1, keepdim=True) / 2
            vectors, last = torch.cat([vectors, -half.to(vectors.dtype)], 1), QueryOperation(append=(1.0,))

        def moved(queries: Any) -> Tensor:
            return last(self.transformed_index() if queries is None else self.transform(queries))

        operation = self.operation
        return AugmentedVectors(vectors, moved, None if operation is None else (operation, last))

    @property
    def operation(self) -> QueryOperation | None:
        """`transform` as a scaling and a shift of each query; None where it is no such thing."""
        return None

    @property
    def dead_dimensions(self) -> Tensor:
        """The dimensions that the fit left out because they do not vary, ascending."""
        return torch.empty(0, dtype=torch.int64)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which dimensions were left out."""
        dead = self.dead_dimensions
        if not len(dead):
            return ()
        of = f"{len(dead):,} of {self.index.shape[1]:,} dimensions"
        return (f"{self.name} leaves out {of}, which do not vary: {first_rows(dead)}",)

    def _fit(self) -> None:
        self._fit_transform(self.index)
        self._vectors = self._of_first_copies(self._transform(self.index))

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        index, points = self._mapped(queries)
        return nearest_neighbours(index, k, metric=self.metric, queries=points)

    def _distances(self, queries: Tensor | None) -> Tensor:
        index, points = self._mapped(queries)
        return PointDistances(index, points, self.metric).dense().to(index.dtype)

    def transformed_index(self) -> Tensor:
        """The index as it was mapped, [n, d']; copies of a point are copies of each other here, too."""
        self.index  # noqa: B018  raises before fit
        return self._vectors

    def _mapped(self, queries: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Index and queries in the space where they are compared."""
        points = None if queries is None else self._transform(queries)
        if self.metric == "cosine":
            row_lengths(self._vectors, f"index after {self.name}")
            if points is not None:
                row_lengths(points, f"queries after {self.name}")
        return self._vectors, points

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
        self._mean = FeatureMoments.of(index).mean

    @property
    def operation(self) -> QueryOperation:
        """x - mean."""
        return QueryOperation(add=-self._mean)

    def _transform(self, points: Tensor) -> Tensor:
        return (points.double() - self._mean).to(points.dtype)


class ZScore(FeatureTransform):
    """(x - mean) / standard deviation of each dimension of the index; dead dimensions become 0.

    Dead is what does not vary, see :meth:`FeatureMoments.live`: division would make noise of it.
    """

    name = "z_score"

    def __init__(self, metric: DistanceName = "cosine", eps: float = DEAD) -> None:
        super().__init__(metric)
        self.eps = eps

    def _fit_transform(self, index: Tensor) -> None:
        moments = FeatureMoments.of(index)
        self._mean, self._inverse_std = moments.mean, moments.inverse_std(self.eps)

    @property
    def dead_dimensions(self) -> Tensor:
        """Those that became 0."""
        return (self._inverse_std == 0).nonzero().flatten()

    def _transform(self, points: Tensor) -> Tensor:
        return ((points.double() - self._mean) * self._inverse_std).to(points.dtype)


class RowCentring(FeatureTransform):
    """Each point minus the mean of its own components."""

    name = "row_centring"

    def _fit_transform(self, index: Tensor) -> None:
        _require_components(self.name, index)

    def _transform(self, points: Tensor) -> Tensor:
        return row_centre(points)


class RowStandardisation(FeatureTransform):
    """Each point with mean 0 and standard deviation 1 over its own components; one of equal components becomes 0."""

    name = "row_z_score"

    def _fit_transform(self, index: Tensor) -> None:
        _require_components(self.name, index)

    def _transform(self, points: Tensor) -> Tensor:
        centred = row_centre(points.double())
        # Rounding is all that is left of components that are equal.
        lengths = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        lengths = torch.where(lengths > ROUNDING * points.double().abs().amax(1, keepdim=True), lengths, torch.inf)
        scaled: Tensor = centred / lengths * points.shape[1] ** 0.5
        return scaled.to(points.dtype)


def _require_components(name: str, index: Tensor) -> None:
    """Raise ValueError for an index [n, 1]: a component less its own mean is 0."""
    if index.shape[1] < 2:
        raise ValueError(f"{name} takes points of at least two dimensions, but the index is {list(index.shape)}")


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
        self._mean, self._top = mean, directions[:, : self.num]

    def _transform(self, points: Tensor) -> Tensor:
        centred = points.double() - self._mean
        return (centred - (centred @ self._top) @ self._top.T).to(points.dtype)


class Whitening(FeatureTransform):
    """Coordinates along the principal components of the index, each divided by its standard deviation.

    Components in which the index does not vary are left out, so d' is at most its rank, and dead dimensions before
    them. The components are those of standardised dimensions, which spans the same distances whatever the dimensions'
    units. Raises ValueError if all index points are equal.
    """

    name = "whitening"

    @property
    def dead_dimensions(self) -> Tensor:
        """Those that no component has a part of."""
        return (self._map == 0).all(1).nonzero().flatten()

    def _fit_transform(self, index: Tensor) -> None:
        moments = FeatureMoments.of(index)
        inverse_std = moments.inverse_std()
        if not bool((inverse_std > 0).any()):
            raise ValueError(f"{self.name}: all {len(index)} index points are equal")
        self._mean = moments.mean
        _, variance, directions = _principal_components((index.double() - self._mean) * inverse_std)
        live = variance > _RANK * variance[0]
        self._map = inverse_std[:, None] * directions[:, live] * variance[live].rsqrt()

    def _transform(self, points: Tensor) -> Tensor:
        return ((points.double() - self._mean) @ self._map).to(points.dtype)


def _principal_components(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [d], variances [d] descending and, in columns, directions [d, d] of the index, in float64."""
    moments = Moments.of(index)
    variance, directions = torch.linalg.eigh(moments.scatter / moments.n)
    return moments.mean, variance.flip(0).clamp(min=0), directions.flip(1)
