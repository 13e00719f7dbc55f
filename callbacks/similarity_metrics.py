"""Pairwise measures of softmax models as a metric whose states merge exactly over batches and ranks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from callbacks.stored_inputs import empty_store, filled, keep, merge_stores
from likeness.measures.all_pairs import compare_all_pairs
from likeness.measures.comparison_options import ComparisonOptions
from likeness.measures.distribution import logits
from likeness.measures.kinds import STORED, Measure, OfModels, OfMoments, OfSamples, SampleMean
from likeness.measures.moments import JointMoments, Moments, joint_features, require_finite
from likeness.measures.representation import RankDeficientError

MAX_EXACT_SEARCH = 2**26  # pairs of inputs, over all pairs of models: about a second


class PairwiseSimilarity(Metric):
    """Measures between all ordered pairs of P softmax models on the same samples, streamed in float64.

    The answer is the same at any batch size and on any number of ranks. On Apple's MPS, which has no float64,
    leave the metric on the CPU.

    Args:
        measures: by name, from ``likeness.measures.catalogue``.
        dims: representation dimension M_i of each model, the constant coordinate of a biased head included.
        names: of the models, for messages.
        max_stored: inputs that are kept, chosen by a hash of their ids, for the measures that sums do not suffice
            for (d_LLV and its kin, neighbours, kernels); where there are no more than that, these too read them all.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    packed_moments: Tensor  # [D+1, D+1] of the joint features, D = sum of (M_i + 1)
    divergences: Tensor  # [measures that are means over samples, P, P] sums over samples
    stored: Tensor  # [max_stored, 1 + sum of M_i] ids and embeddings; [0, ...] if no measure needs them

    def __init__(
        self, measures: Mapping[str, Measure], dims: Sequence[int], names: Sequence[str], max_stored: int = 2000
    ) -> None:
        super().__init__()
        if max_stored < 1:
            raise ValueError(f"max_stored must be at least 1, got {max_stored}")
        self.measures = dict(measures)
        self.dims, self.names = tuple(dims), tuple(names)
        self.unembeddings: list[Tensor] = []
        size, models = sum(self.dims) + len(self.dims) + 1, len(self.dims)
        sums = sum(isinstance(measure, SampleMean) for measure in self.measures.values())
        zeros = torch.zeros(size, size, dtype=torch.float64)
        self.add_state("packed_moments", zeros, dist_reduce_fx=_merge)
        self.add_state("divergences", torch.zeros(sums, models, models, dtype=torch.float64), dist_reduce_fx="sum")
        size = max_stored if any(isinstance(measure, STORED) for measure in self.measures.values()) else 0
        self.add_state("stored", empty_store(size, sum(self.dims)), dist_reduce_fx=merge_stores)

    def update(self, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], ids: Tensor | None = None) -> None:
        """Add samples: f_i [N, M_i], g_i [K, M_i], and the samples' positions in their split [N].

        Raises ValueError naming the model and sample of a value that is not finite, and where inputs must be stored
        but have no ids.
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
        if len(self.stored):
            self._store(embeddings, ids)

    def compute(self) -> dict[str, Tensor]:
        """The measures by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

        A measure is NaN, with a warning that says why, where a representation does not span its dimensions.
        """
        joint = self.joint_moments()
        means = iter(self.divergences / joint.moments.n)
        answers: dict[str, Tensor] = {}
        for name, measure in self.measures.items():
            if isinstance(measure, OfMoments):
                answers[name] = self._or_nan(
                    name, partial(measure.function, joint, self.unembeddings), RankDeficientError
                )
            elif isinstance(measure, SampleMean):
                answers[name] = next(means)
        answers |= self._of_stored()
        return {name: answers[name] for name in self.measures}

    def joint_moments(self) -> JointMoments:
        """Moments of all embeddings and log-partitions: of this rank's samples, and within compute of all."""
        return JointMoments(Moments.unpack(self.packed_moments), self.dims, self.names)

    def _store(self, embeddings: Sequence[Tensor], ids: Tensor | None) -> None:
        if ids is None:
            raise ValueError("measures that store inputs need their ids, got none")
        rows = torch.column_stack([ids.to(self.stored), *(f.detach().to(self.stored) for f in embeddings)])
        self.stored = keep(torch.cat([self.stored, rows]), len(self.stored))

    def _of_stored(self) -> dict[str, Tensor]:
        """What needs the stored inputs themselves; models' shared work is done once."""
        of_models = {name: measure.key for name, measure in self.measures.items() if isinstance(measure, OfModels)}
        of_samples = {name: measure for name, measure in self.measures.items() if isinstance(measure, OfSamples)}
        if not of_models and not of_samples:
            return {}
        embeddings = list(filled(self.stored)[1].split(self.dims, dim=1))
        answers = {}
        if of_models:
            compared = self._or_nan(
                ", ".join(of_models),
                lambda: compare_all_pairs(
                    embeddings, self.unembeddings, names=self.names, options=input_search(len(embeddings[0]), self.dims)
                ),
            )
            answers = {
                name: compared[key] if isinstance(compared, dict) else compared for name, key in of_models.items()
            }
        bare = [f[:, : f.shape[1] - bool((f[:, -1] == 1).all())] for f in embeddings]
        for name, measure in of_samples.items():
            answers[name] = self._or_nan(name, partial(measure.function, bare, self.names))
        return answers

    def _or_nan(self, name: str, function: Callable[[], Any], degenerate: type[Exception] = ValueError) -> Any:
        """What the function answers, or NaN for all pairs, with the reason, where its input is degenerate."""
        try:
            return function()
        except degenerate as error:
            rank_zero_warn(f"{name} is NaN: {error}")
            return self.divergences.new_full((len(self.dims), len(self.dims)), torch.nan)

    def _sample_means(self) -> list[SampleMean]:
        return [measure for measure in self.measures.values() if isinstance(measure, SampleMean)]


def _merge(packed: Tensor) -> Tensor:
    """One packed state from S stacked ones."""
    return Moments.merge(Moments.unpack(packed)).pack()


def input_search(samples: int, dims: Sequence[int]) -> ComparisonOptions:
    """How d_LLV's input set is found: exactly where that is cheap, else among up to 200 random sets as in the paper.

    The exact search takes N^2 operations for each of the pairs; its value is never above a sampled one.
    """
    pairs = len(dims) * (len(dims) - 1) // 2
    if pairs * samples**2 <= MAX_EXACT_SEARCH:
        return ComparisonOptions(search="exact")
    return ComparisonOptions(search="sampled", num_samples=max(1, min(200, samples // (max(dims) + 1))))


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
