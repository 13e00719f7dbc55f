"""The kinds of pairwise measures, by what they read: what a callback, a table and a figure need to know of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from torch import Tensor

from likeness.measures.joint_moments import JointMoments
from likeness.measures.samples import Compare, Prepare, S, compare_all, compare_two


@dataclass(frozen=True)
class Measure:
    """A number for each ordered pair of P models."""

    label: str  # in figures; "row" is the first model of a pair and "column" the second
    larger_is_more_alike: bool
    limit: float | None  # its largest value; None where there is none
    symmetric: bool


@dataclass(frozen=True)
class SampleMean(Measure):
    """The mean over samples of something between predictive distributions."""

    pair_sums: Callable[[Tensor], Tensor]  # from log-probabilities [P, N, K] to sums over samples [P, P]


@dataclass(frozen=True)
class OfMoments(Measure):
    """A function of the joint moments and of the unembeddings [K, M_i]; it answers [P, P]."""

    function: Callable[[JointMoments, Sequence[Tensor]], Tensor]
    spans: str | None = None  # "samples" or "labels": of these it needs more than a model has dimensions


@dataclass(frozen=True)
class OfModels(Measure):
    """One of :class:`likeness.measures.pairwise_distances.PairwiseDistances`, from joint moments and unembeddings."""

    key: str


@dataclass(frozen=True)
class OfModelsAndInputs(OfModels):
    """One of these that reads embeddings of stored inputs too: those on the input side of d_LLV."""


@dataclass(frozen=True)
class OfSamples(Measure, Generic[S]):
    """A function of stored representations: what is prepared of each model once, and the comparison."""

    prepare: Prepare[S]
    compare: Compare[S]
    reorder: Callable[[S, Tensor], S]  # what was prepared, with the samples in each of B orders [B, N]

    def function(self, samples: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        """The measure of all pairs, [P, P], of P representations [N, M_i]; ``names`` are for messages."""
        return compare_all(self.prepare, self.compare, samples, names, self.symmetric)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The measure of x [N, M] and y [N, M'], a scalar."""
        return compare_two(self.prepare, self.compare, x, y)


STORED = (OfModelsAndInputs, OfSamples)  # these need inputs to be kept, not only sums over them


def reads_labels(measure: Measure) -> bool:
    """Whether it is said of label vectors or predictions too, which only softmax models have."""
    return isinstance(measure, SampleMean | OfModels) or (isinstance(measure, OfMoments) and measure.spans == "labels")
