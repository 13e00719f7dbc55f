"""Mutual proximity from a law of each point's distances, normal or gamma, in logarithms of survival functions.

The key is -log p_q - log p_x. It is at least the larger of its terms, and ranking by the larger one needs no special
function: it is ranking by the smaller of two z-scores. So lower bounds of distances yield candidates by z-scores, the
special functions are evaluated for the candidates alone, and the last candidate's z-score bounds the keys of the rest.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from likeness.neighbours.distances import PointDistances
from likeness.neighbours.exact import Ranking
from likeness.neighbours.moments import DistanceMoments

_ROUNDING = 1e-13  # of a point's distances: a standard deviation below it is 0
_STEP = 1e-6  # of a point's distances, or if these are 0 of all points': how narrow a step a deviation of 0 becomes


class LawProximity(Ranking):
    """1 - p_q(d) p_x(d), where p is the survival function of a law with the moments of each point's distances."""

    twice = True

    def __init__(self, distances: PointDistances, of_index: DistanceMoments, of_queries: DistanceMoments) -> None:
        super().__init__(distances)
        self._size = (of_index.mean.square() + of_index.variance).mean().sqrt()
        self.of_index, self.of_queries = self.guarded(of_index), self.guarded(of_queries)
        self._scales = [self.z_score(moments) for moments in (self.of_index, self.of_queries)]

    def guarded(self, moments: DistanceMoments) -> DistanceMoments:
        """Moments with a positive variance: where all distances are equal, p steps from 1 to 0 at them."""
        square = moments.mean.square() + moments.variance
        step = _STEP * torch.where(square > 0, square.sqrt(), self._size if self._size > 0 else 1.0)
        constant = moments.variance <= _ROUNDING**2 * square
        return DistanceMoments(moments.mean, torch.where(constant, step.square(), moments.variance))

    def scores(self, rows: Tensor, columns: slice | Tensor) -> Tensor:
        """The larger of minus two z-scores of lower bounds of the distances."""
        (of_x, spread_x), (of_q, spread_q) = self._scales
        bent = self.bend(self.distances.bounds(rows, columns))
        z = (bent - of_x[columns]).div_(spread_x[columns])
        return torch.maximum(bent.sub_(of_q[rows, None]).div_(spread_q[rows, None]), z, out=bent)

    def keys(self, rows: Tensor, ids: Tensor, distances: Tensor) -> Tensor:
        """-log p_q p_x, in nats."""
        own = DistanceMoments(*(moment[rows, None] for moment in self.of_queries))
        keys = self.minus_log_survival(distances, own)
        return keys + self.minus_log_survival(distances, self.of_index.take(ids))

    def beyond(self, rows: Tensor, scores: Tensor, distances: Tensor) -> Tensor:
        """The smallest key of pairs with these z-scores."""
        return self.at_least(-scores, self.of_queries.take(rows))

    @staticmethod
    def distance(keys: Tensor) -> Tensor:
        """1 - p_q p_x."""
        return -torch.expm1(-keys)

    @abstractmethod
    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Location and spread: (location - bend(d)) / spread falls with d and nearly has p = Phi of it."""

    @staticmethod
    @abstractmethod
    def bend(distances: Tensor) -> Tensor:
        """An increasing function of distances under which the law is nearly normal, in place."""

    @staticmethod
    @abstractmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log p(d) in nats."""

    @abstractmethod
    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """A lower bound [r] of the keys of pairs whose smaller z-score is at most z [r]."""


class NormalProximity(LawProximity):
    """p = 1 - Phi((d - mean) / standard deviation). Schnitzer et al. 2012."""

    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        return moments.mean, moments.variance.sqrt()

    @staticmethod
    def bend(distances: Tensor) -> Tensor:
        """The distances themselves."""
        return distances

    @staticmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log Phi((mean - d) / standard deviation)."""
        return _minus_log_phi((moments.mean - distances) / moments.variance.sqrt())

    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """-log Phi(z), of one of the two terms."""
        return _minus_log_phi(z)


class GammaProximity(LawProximity):
    """p = Q(mean^2 / variance, d mean / variance), the regularised upper incomplete gamma function.

    The cube root of a gamma variable is nearly normal (Wilson & Hilferty 1931), hence the z-scores.
    """

    def guarded(self, moments: DistanceMoments) -> DistanceMoments:
        """Positive means as well."""
        guarded = super().guarded(moments)
        return DistanceMoments(torch.where(moments.mean > 0, moments.mean, guarded.variance.sqrt()), guarded.variance)

    def z_score(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        """Those of the cube root, (d / scale)^(1/3)."""
        ninth = moments.variance / (9 * moments.mean.square())
        root = moments.mean.pow(1 / 3)
        return root * (1 - ninth), root * ninth.sqrt()

    @staticmethod
    def bend(distances: Tensor) -> Tensor:
        """The cube root."""
        return distances.clamp_(min=0).pow_(1 / 3)

    @staticmethod
    def minus_log_survival(distances: Tensor, moments: DistanceMoments) -> Tensor:
        """-log Q, from the lower function where that is the smaller one."""
        shape = moments.mean.square() / moments.variance
        x = distances.clamp(min=0) * moments.mean / moments.variance
        shape = shape.expand_as(x)
        lower = torch.special.gammainc(shape, x)
        return torch.where(lower < 0.5, -torch.log1p(-lower), -torch.special.gammaincc(shape, x).log())

    def at_least(self, z: Tensor, own: DistanceMoments) -> Tensor:
        """-log Q where the z-score is z, of the row's shape and the index's: among these it is least at an extreme."""
        smallest, largest = (self.of_index.variance / self.of_index.mean.square()).aminmax()
        ratio = torch.stack([smallest.expand_as(z), largest.expand_as(z), own.variance / own.mean.square()])
        x = (1 - ratio / 9 - z * ratio.sqrt() / 3).clamp(min=0).pow(3)  # d / mean
        return self.minus_log_survival(x, DistanceMoments(torch.ones_like(x), ratio)).amin(0)


def _minus_log_phi(z: Tensor) -> Tensor:
    survival: Tensor = torch.special.log_ndtr(z)
    return survival.neg_()
