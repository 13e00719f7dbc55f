"""Pairwise measures of softmax models as a metric whose states merge exactly over batches and ranks."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from likeness.measures.catalogue import Measure, OfMoments, SampleMean
from likeness.measures.distribution import logits
from likeness.measures.moments import JointMoments, Moments, joint_features, require_finite
from likeness.measures.representation import RankDeficientError


class PairwiseSimilarity(Metric):
    """Measures between all ordered pairs of P softmax models on the same samples, streamed in float64.

    The answer is the same at any batch size and on any number of ranks. On Apple's MPS, which has no float64,
    leave the metric on the CPU.

    Args:
        measures: by name, from ``likeness.measures.catalogue``.
        dims: representation dimension M_i of each model, the constant coordinate of a biased head included.
        names: of the models, for messages.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    packed_moments: Tensor  # [D+1, D+1] of the joint features, D = sum of (M_i + 1)
    divergences: Tensor  # [measures that are means over samples, P, P] sums over samples

    def __init__(self, measures: Mapping[str, Measure], dims: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        self.measures = dict(measures)
        self.dims, self.names = tuple(dims), tuple(names)
        self.unembeddings: list[Tensor] = []
        size, models = sum(self.dims) + len(self.dims) + 1, len(self.dims)
        sums = sum(isinstance(measure, SampleMean) for measure in self.measures.values())
        zeros = torch.zeros(size, size, dtype=torch.float64)
        self.add_state("packed_moments", zeros, dist_reduce_fx=_merge)
        self.add_state("divergences", torch.zeros(sums, models, models, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], ids: Tensor | None = None) -> None:
        """Add samples: f_i [N, M_i], g_i [K, M_i], and the samples' positions in their split [N].

        Raises ValueError naming the model and sample of a value that is not finite.
        """
        require_finite(embeddings, self.names, ids=ids)
        require_finite(unembeddings, self.names, "label vector", "label")
        self.unembeddings = [g.detach().to(self.packed_moments) for g in unembeddings]
        scores = logits(embeddings, unembeddings).to(self.packed_moments.device)
        features = joint_features(embeddings, scores.logsumexp(-1))
        packed = Moments.of(features).pack()
        self.packed_moments = _merge(torch.stack([self.packed_moments, packed]))
        log_p = scores.log_softmax(-1)
        for total, measure in zip(self.divergences, self._sample_means(), strict=True):
            total += measure.pair_sums(log_p)

    def compute(self) -> dict[str, Tensor]:
        """The measures by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

        A measure is NaN, with a warning that says why, where a representation does not span its dimensions.
        """
        joint = self.joint_moments()
        means = iter(self.divergences / joint.moments.n)
        return {
            name: self._of_moments(name, measure, joint) if isinstance(measure, OfMoments) else next(means)
            for name, measure in self.measures.items()
        }

    def joint_moments(self) -> JointMoments:
        """Moments of all embeddings and log-partitions: of this rank's samples, and within compute of all."""
        return JointMoments(Moments.unpack(self.packed_moments), self.dims, self.names)

    def _of_moments(self, name: str, measure: OfMoments, joint: JointMoments) -> Tensor:
        try:
            return measure.function(joint, self.unembeddings)
        except RankDeficientError as error:
            rank_zero_warn(f"{name} is NaN: {error}")
            return self.divergences.new_full((len(self.dims), len(self.dims)), torch.nan)

    def _sample_means(self) -> list[SampleMean]:
        return [measure for measure in self.measures.values() if isinstance(measure, SampleMean)]


def _merge(packed: Tensor) -> Tensor:
    """One packed state from S stacked ones."""
    return Moments.merge(Moments.unpack(packed)).pack()


def require_comparable(shapes: Sequence[tuple[int, int]], names: Sequence[str]) -> None:
    """Raise ValueError unless there are two models at least, and all have as many labels; shapes are [K, M]."""
    if len(shapes) < 2:
        raise ValueError(f"there is nothing to compare {', '.join(names)} with: two models are needed")
    if len({labels for labels, _ in shapes}) > 1:
        counts = ", ".join(f"{name} has {labels}" for name, (labels, _) in zip(names, shapes, strict=True))
        raise ValueError(f"models with different numbers of labels K cannot be compared: {counts}")


def require_enough(
    measures: Mapping[str, Measure],
    shapes: Sequence[tuple[int, int]],
    names: Sequence[str],
    samples: int | None = None,
) -> None:
    """Raise ValueError if a measure needs more samples or labels than there are; shapes are [K, M].

    The constant coordinate of a biased head counts as one of M here, so the last case is left to the measure.
    """
    for measure_name, measure in measures.items():
        spans = measure.spans if isinstance(measure, OfMoments) else None
        for name, (labels, dim) in zip(names, shapes, strict=True):
            count = {"samples": samples, "labels": labels}.get(spans or "")
            if count is not None and count < dim:
                raise ValueError(
                    f"{measure_name} needs more {spans} than dimensions: model {name!r} has {dim} dimensions, "
                    f"and there are {count} {spans}"
                )
