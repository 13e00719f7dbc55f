"""Pairwise measures of softmax models as a metric whose states merge exactly over batches and ranks.

A bounded, reproducible choice of inputs that merges exactly over batches and ranks.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from likeness.numerics import require_finite, threads_for
from likeness.similarity.catalogue import STORED, Measure, OfModels, OfMoments, OfSamples, SampleMean
from likeness.similarity.cca import RankDeficientError
from likeness.similarity.joint_moments import FactoredMoments, JointMoments, joint_features
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import PairwiseDistances
from likeness.similarity.predictions import logits
from likeness.similarity.softmax_models import SoftmaxModels

_FREE = -1  # id of a row that holds no input yet


def empty_store(size: int, features: int) -> Tensor:
    """A store for ``size`` inputs of ``features`` numbers: rows [id, features], float64."""
    store = torch.zeros(size, 1 + features, dtype=torch.float64)
    store[:, 0] = _FREE
    return store


def merge_stores(stores: Tensor) -> Tensor:
    """One store [R, 1 + D] from S stacked ones [S, R, 1 + D]: the inputs of highest priority."""
    return keep(stores.flatten(0, 1), stores.shape[1])


def keep(rows: Tensor, size: int) -> Tensor:
    """The ``size`` rows whose ids have the smallest hashes: a random sample that no order of the data can change."""
    ids = rows[:, 0].long()
    priority = torch.where(ids == _FREE, torch.iinfo(torch.int64).max, _hash(ids))
    return rows[priority.argsort(stable=True)[:size]]


def filled(store: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [n] and features [n, D] of the inputs in a store, by id."""
    rows = store[store[:, 0] != _FREE]
    rows = rows[rows[:, 0].argsort()]
    return rows[:, 0].long(), rows[:, 1:]


def _hash(ids: Tensor) -> Tensor:
    """SplitMix64's finaliser in wrapping arithmetic; non-negative."""
    value = ids * -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
    value = (value ^ _shift(value, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    value = (value ^ _shift(value, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return _shift(value ^ _shift(value, 31), 1)


def _shift(value: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of signed integers."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


M = TypeVar("M", bound=Measure)
MAX_EXACT_SEARCH = 2**26  # pairs of inputs, over all pairs of models: about a second


class PairwiseSimilarity(Metric):
    """Measures between all ordered pairs of P softmax models on the same samples, streamed in float64.

    The answer is that of a single pass to 1e-12 at any batch size and on any number of ranks, and the states' size
    depends neither on the number of samples nor on that of labels. What is said of inputs one by one, term 2 of d_LLV
    to begin with, is said of those that are kept; everything else, of all. On Apple's MPS, which has no float64, leave
    the metric on the CPU.

    Args:
        measures: by name, from ``likeness.similarity.catalogue``.
        dims: representation dimension M_i of each model, the constant coordinate of a biased head included.
        names: of the models, for messages.
        max_stored: inputs that are kept, chosen by a hash of their ids, for what is said of single inputs (the input
            side of d_LLV and d_{f,g}, neighbours, kernels); where there are no more than that, all are.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    moments: Tensor  # [2 D + 1, D + 1] of the joint features, packed; D = sum of (M_i + 1)
    sums: Tensor  # [measures that are means over samples, P, P]
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
        empty = FactoredMoments.of(torch.empty(0, sum(self.dims) + len(self.dims)))
        self.add_state("moments", empty.pack(), dist_reduce_fx=_merge)
        sums = torch.zeros(len(self._of_kind(SampleMean)), len(dims), len(dims), dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        size = max_stored if self._of_kind(*STORED) else 0
        self.add_state("stored", empty_store(size, sum(self.dims)), dist_reduce_fx=merge_stores)

    def update(self, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], ids: Tensor | None = None) -> None:
        """Add samples: f_i [N, M_i], g_i [K, M_i], and the samples' positions in their split [N].

        Raises ValueError naming the model and sample of a value that is not finite, and where inputs must be stored
        but have no ids.
        """
        require_finite(embeddings, self.names, ids=ids)
        require_finite(unembeddings, self.names, "label vector", "label")
        self.unembeddings = [g.detach().to(self.moments) for g in unembeddings]
        scores = logits(embeddings, unembeddings).to(self.moments.device)
        batch = FactoredMoments.of(joint_features(embeddings, scores.logsumexp(-1)))
        self.moments = FactoredMoments.merge([FactoredMoments.unpack(self.moments), batch]).pack()
        log_p = scores.log_softmax(-1)
        for total, measure in zip(self.sums, self._of_kind(SampleMean).values(), strict=True):
            total += measure.pair_sums(log_p)
        if len(self.stored):
            self._store(embeddings, ids)

    def compute(self) -> dict[str, Tensor]:
        """The measures by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

        A measure is NaN, with a warning that says why, where what the models computed is degenerate.
        """
        joint, kept = self.joint_moments(), filled(self.stored)[1].split(self.dims, dim=1)
        answers = dict(zip(self._of_kind(SampleMean), self.sums / joint.moments.n, strict=True))
        for name, of_moments in self._of_kind(OfMoments).items():
            answer = partial(of_moments.function, joint, self.unembeddings)
            answers[name] = self._or_nan(name, answer, RankDeficientError)
        bare = [f[:, : joint.bare_dim(model)] for model, f in enumerate(kept)]
        for name, of_samples in self._of_kind(OfSamples).items():
            answers[name] = self._or_nan(name, partial(of_samples.function, bare, self.names))
        answers |= self._distances(SoftmaxModels(joint, tuple(self.unembeddings), kept))
        return {name: answers[name] for name in self.measures}

    def joint_moments(self) -> JointMoments:
        """Moments of all embeddings and log-partitions: of this rank's samples, and within compute of all."""
        return JointMoments(FactoredMoments.unpack(self.moments), self.dims, self.names)

    def _store(self, embeddings: Sequence[Tensor], ids: Tensor | None) -> None:
        if ids is None:
            raise ValueError("measures that store inputs need their ids, got none")
        rows = torch.column_stack([ids.to(self.stored), *(f.detach().to(self.stored) for f in embeddings)])
        self.stored = keep(torch.cat([self.stored, rows]), len(self.stored))

    def _distances(self, models: SoftmaxModels) -> dict[str, Tensor]:
        options = input_search(len(models.embeddings[0]), self.dims)
        distances = PairwiseDistances(models, options)
        with threads_for(options.largest_tensor(models.embeddings, models.unembeddings)):
            return {
                name: self._or_nan(name, partial(distances.__getitem__, measure.key))
                for name, measure in self._of_kind(OfModels).items()
            }

    def _or_nan(self, name: str, function: Callable[[], Tensor], degenerate: type[Exception] = ValueError) -> Tensor:
        """What the function answers, or NaN for all pairs, with the reason, where its input is degenerate."""
        try:
            return function()
        except degenerate as error:
            rank_zero_warn(f"{name} is NaN: {error}")
            return self.sums.new_full((len(self.dims), len(self.dims)), torch.nan)

    def _of_kind(self, *kinds: type[M]) -> dict[str, M]:
        return {name: measure for name, measure in self.measures.items() if isinstance(measure, kinds)}


def _merge(packed: Tensor) -> Tensor:
    """One packed state from S stacked ones."""
    return FactoredMoments.merge([FactoredMoments.unpack(shard) for shard in packed]).pack()


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
