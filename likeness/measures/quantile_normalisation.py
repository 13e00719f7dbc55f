"""f-norm: features with the same normal distribution each, in rows of length 1."""

from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from likeness.measures.feature_moments import DEAD
from likeness.measures.feature_transforms import FeatureTransform
from likeness.measures.neighbours import DistanceName
from likeness.measures.normal_scores import NormalScores, Order
from likeness.measures.reduction_base import AugmentedVectors
from likeness.measures.samples import require_one_of


class FNorm(FeatureTransform):
    """The values of each dimension replaced by :class:`NormalScores`, then rows divided by their length.

    Nielsen & Hansen 2024 (arXiv 2311.18364). Their code has ``order="random"`` and, as with ``eps=0``, spreads out
    dimensions that hold nothing but rounding errors. Here those become 0 unless ``eps`` is 0.

    ``joint=True`` is their transductive form: index and queries are ranked as one set, so the vectors of either
    depend on all queries, and `transform` and `augment` do not exist.
    """

    name = "f_norm"

    def __init__(
        self,
        order: Order = "deterministic",
        seed: int = 0,
        metric: DistanceName = "cosine",
        joint: bool = False,
        eps: float = DEAD,
    ) -> None:
        super().__init__(metric)
        require_one_of(order, get_args(Order), f"order of {self.name}")
        self.order, self.seed, self.joint, self.eps = order, seed, joint, eps

    def transform(self, queries: Any) -> Tensor:
        """Queries [m, d] by the index's quantiles, of length 1. Raises NotImplementedError if ``joint``."""
        self._require_separate("transform")
        return super().transform(queries)

    def augment(self) -> AugmentedVectors:
        """See :class:`FeatureTransform`. Raises NotImplementedError if ``joint``."""
        self._require_separate("augment")
        return super().augment()

    def transform_jointly(self, queries: Any) -> tuple[Tensor, Tensor]:
        """Index [n, d] and queries [m, d], ranked as one set. Fits nothing, and needs no ``joint``."""
        points = torch.cat([self.index, self._like_index(queries, "queries")])
        vectors: Tensor = normalize(self._scores_of(points)(points), dim=1)
        return vectors[: len(self.index)], vectors[len(self.index) :]

    def _fit_transform(self, index: Tensor) -> None:
        self._scores = self._scores_of(index)

    def _transform(self, points: Tensor) -> Tensor:
        unit: Tensor = normalize(self._scores(points), dim=1)
        return unit

    def _mapped(self, queries: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.transform_jointly(queries) if self.joint and queries is not None else super()._mapped(queries)

    def _scores_of(self, points: Tensor) -> NormalScores:
        return NormalScores.of(points, self.order, self.seed, self.eps)

    def _require_separate(self, method: str) -> None:
        if self.joint:
            raise NotImplementedError(
                f"{self.name} with joint=True has no {method}(): its index depends on the queries. "
                "Use rerank(queries), or transform_jointly(queries)"
            )
