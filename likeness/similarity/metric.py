"""Pairwise measures of softmax models as a metric whose states merge exactly over batches and ranks.

Sums and joint moments are of all inputs. For what is said of inputs one by one a bounded number is kept, those with
the smallest hashes of their ids: a random choice that no order of the data can change.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from likeness.checks import require_positive
from likeness.numerics import FactoredMoments, threads_for
from likeness.seeding import hashed
from likeness.similarity.catalogue import (
    DivergenceMeasure,
    Measure,
    MomentMeasure,
    RepresentationMeasure,
    SoftmaxMeasure,
    needs_inputs,
)
from likeness.similarity.joint_moments import JointMoments, joint_features
from likeness.similarity.options import ComparisonOptions
from likeness.similarity.pairwise import PairValues, PairwiseDistances
from likeness.similarity.softmax_models import SoftmaxModels, checked_predictions
from likeness.spans import epsilon, type_of

M = TypeVar("M", bound=Measure)

FREE = -1  # id of a row that holds no input yet
_REASONS = 3  # that a warning gives


class PairwiseSimilarity(Metric):
    """Measures between all ordered pairs of P softmax models on the same samples, streamed in float64.

    The answer is that of a single pass to 1e-12 at any batch size and on any number of ranks, and the states' size
    depends neither on the number of samples nor on that of labels. What is said of inputs one by one, term 2 of d_LLV
    to begin with, is said of those that are kept; everything else, of all. The numbers of a pair depend on no other
    model. On Apple's MPS, which has no float64, leave the metric on the CPU.

    Args:
        measures: by name, from ``likeness.similarity.catalogue``.
        dims: representation dimension M_i of each model, the constant coordinate of a biased head included.
        names: of the models, for messages.
        max_stored: inputs that are kept, chosen by a hash of their ids, for what is said of single inputs (the input
            side of d_LLV and d_{f,g}, neighbours, kernels); where there are no more than that, all are.

    Attributes:
        widths: after ``compute``, M_i of each model, the constant coordinate of a biased head left out.
        undefined: after ``compute``, by measure and pair (i, j), why the value is NaN.
        search: after ``compute``, by measure and pair, how the choices that it is taken at were found: exact, or
            sampled or bounded, so that the value is that of the best choice that was tried.
        ranks: after ``compute``, how many dimensions the embeddings of each model span, which is the M that the
            measures of softmax models take it to have: a final LayerNorm makes it one less than the ``widths``.

    Example:
        >>> import torch
        >>> from likeness.similarity.catalogue import select
        >>> metric = PairwiseSimilarity(select(["kl", "m_cca"]), dims=[2, 2], names=["a", "b"])
        >>> g = torch.eye(4, 2).double()
        >>> for start in range(0, 100, 25):
        ...     f = torch.randn(25, 2, generator=torch.manual_seed(start)).double()
        ...     metric.update([f, f @ torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double()], [g, g])
        >>> found = metric.compute()
        >>> round(float(found["m_cca_f"][0, 1]), 6), bool(found["kl"][0, 1] > 0.01)
        (1.0, True)
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    moments: Tensor  # [2 D + 1, D + 1] of the joint features, packed; D = sum of (M_i + 1)
    sums: Tensor  # [measures that are means over samples, P, P]
    epsilon: Tensor  # of the type that the embeddings were computed in
    stored: Tensor  # [max_stored, 1 + sum of M_i] ids and embeddings; [0, ...] if no measure needs them

    def __init__(
        self, measures: Mapping[str, Measure], dims: Sequence[int], names: Sequence[str], max_stored: int = 2000
    ) -> None:
        super().__init__()
        require_positive(max_stored=max_stored)
        self.measures = dict(measures)
        self.dims, self.names = tuple(dims), tuple(names)
        self.unembeddings: list[Tensor] = []
        self.undefined: dict[str, dict[tuple[int, int], str]] = {}
        self.search: dict[str, dict[tuple[int, int], str]] = {}
        self.ranks: tuple[int, ...] = ()
        self.widths: tuple[int, ...] = ()
        empty = FactoredMoments.of(torch.empty(0, sum(self.dims) + len(self.dims)))
        self.add_state("moments", empty.pack(), dist_reduce_fx=_merge)
        self.add_state("epsilon", torch.tensor(torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        sums = torch.zeros(len(self._of_kind(DivergenceMeasure)), len(dims), len(dims), dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        size = max_stored if any(map(needs_inputs, self.measures.values())) else 0
        self.add_state("stored", empty_store(size, sum(self.dims)), dist_reduce_fx=merge_stores)

    def update(self, embeddings: Sequence[Tensor], unembeddings: Sequence[Tensor], ids: Tensor | None = None) -> None:
        """Add samples: f_i [N, M_i], g_i [K, M_i], and the samples' positions in their split [N]; N may be 0.

        Raises ValueError naming the model and sample of a value that is not finite, and where inputs must be stored
        but have no ids.
        """
        self.unembeddings = [g.detach().to(self.moments) for g in unembeddings]
        if not len(embeddings[0]):
            return
        predicted = checked_predictions(embeddings, unembeddings, self.names, ids)
        self.epsilon = self.epsilon.clamp(max=epsilon(embeddings))
        features = joint_features([f.detach() for f in embeddings], predicted.log_partitions)
        batch = FactoredMoments.of(features.to(self.moments.device))
        self.moments = FactoredMoments.merge([FactoredMoments.unpack(self.moments), batch]).pack()
        for row, measure in enumerate(self._of_kind(DivergenceMeasure).values()):
            sums = len(embeddings[0]) * getattr(predicted, measure.key)
            sums = (sums.round() if measure.key == "agreement" else sums).to(self.sums)
            # not in place: states may have been made in inference mode, where Lightning validates outside of training
            self.sums = self.sums.index_add(0, torch.tensor([row], device=self.sums.device), sums[None])
        if len(self.stored):
            self._store(embeddings, ids)

    def compute(self) -> dict[str, Tensor]:
        """The measures by name, [P, P] in float64; entry (i, j) has model i as the first of the pair.

        NaN where a measure is undefined for a pair, with a warning that says why.
        """
        found = self._explained()
        self.undefined = {name: found[name].undefined for name in self.measures}
        self.search = {name: found[name].search for name in self.measures}
        for line in self.remarks():
            rank_zero_warn(line)
        return {name: found[name].values for name in self.measures}

    def joint_moments(self) -> JointMoments:
        """Moments of all embeddings and log-partitions: of this rank's samples, and within compute of all."""
        return JointMoments(FactoredMoments.unpack(self.moments), self.dims, self.names, type_of(float(self.epsilon)))

    def kept_embeddings(self) -> list[Tensor]:
        """f_i [n, M_i] of the inputs that are kept, by id, without the constant coordinate of a biased head."""
        joint = self.joint_moments()
        kept = filled(self.stored)[1].split(self.dims, dim=1)
        return [f[:, : joint.bare_dim(model)] for model, f in enumerate(kept)]

    def _explained(self) -> dict[str, PairValues]:
        kept = filled(self.stored)[1].split(self.dims, dim=1)
        models = SoftmaxModels(self.joint_moments(), tuple(self.unembeddings), kept).reduced()
        self.ranks, self.widths, joint = models.dims, models.given_dims, models.joint
        options = ComparisonOptions(search="auto")
        distances = PairwiseDistances(models, options)
        means = self.sums / joint.moments.n
        found = {
            name: PairValues(mean, {}, {}) for name, mean in zip(self._of_kind(DivergenceMeasure), means, strict=True)
        }
        for name, of_moments in self._of_kind(MomentMeasure).items():
            found[name] = of_moments.function(joint)
        with threads_for(options.largest_tensor(kept, self.unembeddings)):
            for name, of_softmax in self._of_kind(SoftmaxMeasure).items():
                found[name] = distances.explained(of_softmax.key)
        bare = self.kept_embeddings()
        for name, of_representations in self._of_kind(RepresentationMeasure).items():
            found[name] = of_representations.function(bare, self.names)
        return found

    def remarks(self) -> list[str]:
        """After ``compute``, a line for each measure that is NaN for some pairs, with the reasons."""
        count, lines = len(self.names), []
        for name, reasons in self.undefined.items():
            own = {pair: reason for pair, reason in reasons.items() if pair[0] != pair[1]}
            pairs = len({tuple(sorted(pair)) for pair in own})
            if pairs:
                why = "; ".join(list(dict.fromkeys(own.values()))[:_REASONS])
                lines.append(f"{name} is NaN for {pairs} of {count * (count - 1) // 2} pairs: {why}")
        return lines

    def _store(self, embeddings: Sequence[Tensor], ids: Tensor | None) -> None:
        if ids is None:
            raise ValueError("measures that store inputs need their ids, got none")
        rows = torch.column_stack([ids.to(self.stored), *(f.detach().to(self.stored) for f in embeddings)])
        self.stored = keep(torch.cat([self.stored, rows]), len(self.stored))

    def _of_kind(self, kind: type[M]) -> dict[str, M]:
        return {name: measure for name, measure in self.measures.items() if isinstance(measure, kind)}


def _merge(packed: Tensor) -> Tensor:
    """One packed state from S stacked ones."""
    return FactoredMoments.merge([FactoredMoments.unpack(shard) for shard in packed]).pack()


def empty_store(size: int, features: int) -> Tensor:
    """A store for ``size`` inputs of ``features`` numbers: rows [id, features], float64."""
    store = torch.zeros(size, 1 + features, dtype=torch.float64)
    store[:, 0] = FREE
    return store


def merge_stores(stores: Tensor) -> Tensor:
    """One store [R, 1 + D] from S stacked ones [S, R, 1 + D]: the inputs of highest priority."""
    return keep(stores.flatten(0, 1), stores.shape[1])


def keep(rows: Tensor, size: int) -> Tensor:
    """The ``size`` rows whose ids have the smallest hashes: a random sample that no order of the data can change."""
    ids = rows[:, 0].long()
    priority = torch.where(ids == FREE, torch.iinfo(torch.int64).max, hashed(ids))
    return rows[priority.argsort(stable=True)[:size]]


def filled(store: Tensor) -> tuple[Tensor, Tensor]:
    """Ids [n] and features [n, D] of the inputs in a store, by id."""
    rows = store[store[:, 0] != FREE]
    rows = rows[rows[:, 0].argsort()]
    return rows[:, 0].long(), rows[:, 1:]


def require_comparable(shapes: Sequence[tuple[int, int]], names: Sequence[str]) -> None:
    """Raise ValueError unless there are two models at least, and all have as many labels; shapes are [K, M]."""
    if len(shapes) < 2:
        raise ValueError(f"there is nothing to compare {', '.join(names)} with: two models are needed")
    if len({labels for labels, _ in shapes}) > 1:
        counts = ", ".join(f"{name} has {labels}" for name, (labels, _) in zip(names, shapes, strict=True))
        raise ValueError(f"models with different numbers of labels K cannot be compared: {counts}")
