"""Hubness reductions by name, and their composition: feature transforms first, then one re-ranking."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from likeness.hubness.f_norm import FNorm
from likeness.hubness.feature_transforms import (
    Centring,
    DropComponents,
    FeatureTransform,
    RowCentring,
    RowStandardisation,
    Whitening,
    ZScore,
)
from likeness.hubness.local_scaling import DisSimGlobal, DisSimLocal, LocalScaling, Nicdm
from likeness.hubness.mutual_proximity import MutualProximity
from likeness.hubness.reduction_base import AugmentedVectors, HubnessReduction
from likeness.hubness.similarity_corrections import (
    Csls,
    DynamicInvertedSoftmax,
    InvertedSoftmax,
    LocalisedCentring,
    NearestNeighbourNormalisation,
)
from likeness.neighbours.exact import Neighbours

__all__ = ["REDUCTIONS", "AugmentedVectors", "Composition", "HubnessReduction", "Step", "reduction"]

Step = str | tuple[str, dict[str, Any]] | HubnessReduction

REDUCTIONS: dict[str, type[HubnessReduction]] = {
    method.name: method
    for method in (
        MutualProximity,
        LocalScaling,
        Nicdm,
        DisSimLocal,
        DisSimGlobal,
        Csls,
        NearestNeighbourNormalisation,
        LocalisedCentring,
        InvertedSoftmax,
        DynamicInvertedSoftmax,
        Centring,
        ZScore,
        RowCentring,
        RowStandardisation,
        FNorm,
        DropComponents,
        Whitening,
    )
}
"""Every reduction by its name; those after the inverted softmaxes transform features and may come first in a list."""


def reduction(method: Step | Sequence[Step], **options: Any) -> HubnessReduction:
    """A reduction by name with its options, or the composition of several: ``["f_norm", "mutual_proximity"]``.

    A step is a name of ``REDUCTIONS``, a (name, options) pair or an instance. All but the last transform features,
    of the index and of queries alike. Raises ValueError for a name or an option that does not exist, and lists those
    that do.

    Example:
        >>> import torch
        >>> points = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
        >>> reduction("csls", k=5).fit(points).rerank(k=3).ids.shape
        torch.Size([200, 3])
        >>> reduction(["f_norm", ("mutual_proximity", {"variant": "rank"})]).name
        'f_norm + mutual_proximity'
    """
    if isinstance(method, str):
        return _built(method, options)
    if options:
        raise ValueError(f"options {sorted(options)} belong to one method: write (name, options) pairs in the list")
    if isinstance(method, HubnessReduction) or _is_pair(method):
        return _step(method)
    steps = [_step(step) for step in method]
    return steps[0] if len(steps) == 1 else Composition(steps)


class Composition(HubnessReduction):
    """Feature transforms, applied to index, bank and queries in order, then one last reduction."""

    def __init__(self, steps: Sequence[HubnessReduction]) -> None:
        if not steps:
            raise ValueError("a composition needs at least one reduction, but the list is empty")
        self.transforms = [step for step in steps[:-1] if isinstance(step, FeatureTransform)]
        if len(self.transforms) < len(steps) - 1:
            stuck = [step.name for step in steps[:-1] if not isinstance(step, FeatureTransform)]
            raise ValueError(f"all but the last of a composition must transform features, which {stuck} do not")
        self.last = steps[-1]
        self.name = " + ".join(step.name for step in steps)
        self.takes_bank, self.metric = self.last.takes_bank, self.last.metric

    def augment(self) -> AugmentedVectors:
        """The last reduction's vectors, of transformed points."""
        self.index  # noqa: B018  raises before fit
        vectors = self.last.augment()
        before = [step.operation for step in self.transforms]
        operations = None
        if vectors.operations is not None and None not in before:
            operations = (*(step for step in before if step is not None), *vectors.operations)
        return AugmentedVectors(
            vectors.index, lambda queries: vectors.queries(self._transformed(self._checked(queries))), operations
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the steps."""
        return tuple(note for step in (*self.transforms, self.last) for note in step.notes)

    def _fit(self) -> None:
        points, bank = self.index, self._bank
        for step in self.transforms:
            step.fit(points)
            points, bank = step.transformed_index(), None if bank is None else step.transform(bank)
        self.last.fit(points, bank)

    def _rerank(self, queries: Tensor | None, k: int) -> Neighbours:
        return self.last.rerank(self._transformed(queries), k)

    def _distances(self, queries: Tensor | None) -> Tensor:
        return self.last.distances(self._transformed(queries))

    def _transformed(self, queries: Tensor | None) -> Tensor | None:
        for step in self.transforms:
            queries = None if queries is None else step.transform(queries)
        return queries


def _step(step: Any) -> HubnessReduction:
    if isinstance(step, HubnessReduction):
        return step
    if isinstance(step, str):
        return _built(step, {})
    if _is_pair(step):
        return _built(*step)
    raise ValueError(f"a reduction is a name, a (name, options) pair or an instance, but this is {step!r}")


def _is_pair(step: Any) -> bool:
    return isinstance(step, Sequence) and len(step) == 2 and isinstance(step[0], str) and isinstance(step[1], dict)


def _built(name: str, options: dict[str, Any]) -> HubnessReduction:
    if name not in REDUCTIONS:
        raise ValueError(f"no reduction is called {name!r}; there are {', '.join(sorted(REDUCTIONS))}")
    known = inspect.signature(REDUCTIONS[name]).parameters
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    return REDUCTIONS[name](**options)
