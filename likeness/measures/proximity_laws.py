"""Mutual proximity from a law of each point's distances, normal or gamma, in logarithms of survival functions.

The key is -log p_q - log p_x. It is at least the larger of its terms, and ranking by the larger one needs no special
function: it is ranking by the smaller of two z-scores. So tiles yield candidates by z-scores, the special functions
are evaluated in float64 for the candidates alone, and the last candidate's z-score bounds the keys of all others.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from likeness.measures.distance_moments import DistanceMoments
from likeness.measures.distance_tiles import DistanceTiles
from likeness.measures.neighbours import Neighbours, top_k
from likeness.measures.proximity_candidates import Candidates, Proximity, Rows

_FLOOR = 1e-6  # of the distances' root mean square: a standard deviation of 0 becomes a step that is so narrow


class LawProximity(Proximity):
    """1 - p_q(d) p_x(d), where p is the survival function of a law with the moments of each point's distances."""

    spare = 4

    def __init__(self, tiles: DistanceTiles, moments: DistanceMoments) -> None:
        super().__init__(tiles)
        size = (moments.mean.square() + moments.variance).mean().sqrt()
        self._narrowest = _FLOOR * size.clamp(min=torch.finfo(tiles.index.squares.dtype).tiny ** 0.25)
        self.moments = self.guarded(moments)

    def guarded(self, moments: DistanceMoments) -> DistanceMoments:
        """Moments with a positive variance: where all distances are equal, p steps from 1 to 0 at them."""
        return DistanceMoments(moments.mean, moments.variance.clamp(min=self._narrowest.square()))

    def candidates(self, rows: Rows, count: int, *, nearest: bool = False) -> Candidates:
        """As the base class says; by z-scores unless the nearest are wanted."""
        assert rows.moments is not None
        own = self.guarded(rows.moments)
        found = self.nearest(rows, count) if nearest else self._by_z_score(rows, own, count)
        distances = rows.exact.exact(rows.numbers, found.ids)
        keys = self.minus_log_survival(distances, _columns(own))
        keys += self.minus_log_survival(distances, DistanceMoments(*(moment[found.ids] for moment in self.moments)))
        keys, order = keys.sort(dim=1, stable=True)  # where keys underflow to a tie, the z-scores' order stays
        if nearest or count == self.available(rows):
            beyond = torch.full_like(keys[:, 0], torch.inf)
        else:
            beyond = self.at_least(-found.distances[:, -1].double(), own)
        return Candidates(keys, found.ids.gather(1, order), beyond)

    @staticmethod
    def distance(keys: Tensor) -> Tensor:
        """1 - p_q p_x."""
        return -torch.expm1(-keys)

    def _by_z_score(self, rows: Rows, own: DistanceMoments, count: int) -> Neighbours:
        """Ids by the larger of minus the two z-scores, which stands for the distance."""
        of_x, of_q = self._scaling(self.moments), self._scaling(own)

        def block(r: slice, columns: slice) -> Tensor:
            bent = self.bend(self.tiles.tile(rows.points.take(r), columns))
            z = (bent - of_x[0][columns]).mul_(of_x[1][columns])
            bent.sub_(of_q[0][r, None]).mul_(of_q[1][r, None])
            return self.without_self(torch.maximum(bent, z, out=bent), rows, r, columns)

        return top_k(block, len(own.mean), self.size, count)

    def _scaling(self, moments: DistanceMoments) -> tuple[Tensor, Tensor]:
        location, spread = self.z_score(moments)
        dtype = self.tiles.index.squares.dtype
        return location.to(dtype), spread.reciprocal().to(dtype)

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
        """As it is."""
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
        return DistanceMoments(moments.mean.clamp(min=self._narrowest), super().guarded(moments).variance)

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
        smallest, largest = (self.moments.variance / self.moments.mean.square()).aminmax()
        ratio = torch.stack([smallest.expand_as(z), largest.expand_as(z), own.variance / own.mean.square()])
        x = (1 - ratio / 9 - z * ratio.sqrt() / 3).clamp(min=0).pow(3)  # d / mean
        return self.minus_log_survival(x, DistanceMoments(torch.ones_like(x), ratio)).amin(0)


def _minus_log_phi(z: Tensor) -> Tensor:
    survival: Tensor = torch.special.log_ndtr(z)
    return survival.neg_()


def _columns(moments: DistanceMoments) -> DistanceMoments:
    return DistanceMoments(moments.mean[:, None], moments.variance[:, None])
