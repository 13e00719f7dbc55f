"""Models compared on one split of a datamodule, in one pass, with bounds beside the measures that they bound.

The bounds are what d_LLV and the correlations of single log-ratios promise of the representations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from likeness.batch import Batch
from likeness.figures.similarity import EmbeddingSample, similarity_figures
from likeness.protocols import SoftmaxModel
from likeness.similarity.catalogue import MEASURES, Measure, RepresentationMeasure, SoftmaxMeasure, needs_inputs
from likeness.similarity.d_svd import Bound, on_d_svd, paper_bound, squared_bound
from likeness.similarity.metric import PairwiseSimilarity, require_comparable
from likeness.similarity.permutation_null import PairwiseNulls, pairwise_nulls
from likeness.similarity.predictions import is_correct, logits, nll

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PairwiseBound:
    """A bound on a symmetric measure, for all pairs of P models; nan where the measure is undefined."""

    column: str  # in files
    label: str  # on the terminal
    derived: bool  # and not in the paper
    bound: Bound  # [P, P]


@dataclass(frozen=True)
class _Rule:
    """How a bound follows from a measure [P, P] and the dimensions M of the pairs' first models [P, 1]."""

    column: str
    label: str
    derived: bool
    of: str
    function: Callable[[Tensor, Tensor], Bound]


_SOURCES: dict[str, Measure] = {
    "d_llv": MEASURES["d_llv"],
    "certificate": SoftmaxMeasure(label="correlation certificate of max d_SVD(f)", key="certificate"),
}
_RULES: dict[str, tuple[_Rule, ...]] = {
    "max_d_svd_f": (_Rule("certificate", "certificate", True, "certificate", lambda value, _: on_d_svd(value)),),
    "d_fg": (
        _Rule("paper_bound", "2 M d_LLV", False, "d_llv", paper_bound),
        _Rule("squared_bound", "2 d_LLV^2", True, "d_llv", lambda d_llv, _: squared_bound(d_llv)),
    ),
}


def sources(names: Iterable[str]) -> dict[str, Measure]:
    """What the bounds on the measures of these names are computed from, by name."""
    return {rule.of: _SOURCES[rule.of] for name in names for rule in _RULES.get(name, ())}


def bounds_on(
    names: Iterable[str], values: Mapping[str, Tensor], dims: Iterable[int]
) -> dict[str, tuple[PairwiseBound, ...]]:
    """The bounds on those of the measures that have any, from [P, P] by name and the models' M, without biases."""
    dim = torch.tensor(list(dims))[:, None]
    return {
        name: tuple(_of_rule(rule, values[rule.of], values[name].isnan(), dim) for rule in _RULES[name])
        for name in names
        if name in _RULES
    }


def _of_rule(rule: _Rule, values: Tensor, undefined: Tensor, dim: Tensor) -> PairwiseBound:
    value, informative = rule.function(values, dim)
    bound = Bound(value.masked_fill(undefined, torch.nan), informative & ~undefined)
    return PairwiseBound(rule.column, rule.label, rule.derived, bound)


@dataclass(frozen=True)
class Comparison:
    """What was measured of P models on ``samples`` samples of one split."""

    names: Sequence[str]
    split: str
    samples: int
    accuracy: Tensor  # [P]
    nll: Tensor  # [P] in nats
    values: Mapping[str, Tensor]  # [P, P] by the measure's name
    bounds: Mapping[str, Sequence[PairwiseBound]]  # by the name of the measure that they bound
    nulls: Mapping[str, PairwiseNulls]  # by the measure's name
    permutations: int  # in each of the nulls
    metric: PairwiseSimilarity
    sample: EmbeddingSample

    @property
    def kept(self) -> int | None:
        """How many inputs what is said of single ones is of; None where no measure says anything of these."""
        return len(self.metric.kept_embeddings()[0]) if any(map(needs_inputs, self.metric.measures.values())) else None

    def why_undefined(self, first: int, second: int) -> str:
        """Which measures are undefined for a pair, and why."""
        undefined = ((name, self.metric.undefined[name]) for name in self.values)
        return "; ".join(
            f"{name}: {reason}"
            for name, reasons in undefined
            for reason in dict.fromkeys(reasons[pair] for pair in ((first, second), (second, first)) if pair in reasons)
        )

    def searches(self, name: str) -> Mapping[tuple[int, int], str] | None:
        """How the choices that a measure is taken at were found, by pair; None where none is ever sampled."""
        measure = self.metric.measures[name]
        sampled = isinstance(measure, SoftmaxMeasure) and (measure.needs_inputs or measure.key.startswith("max_d_svd"))
        return self.metric.search[name] if sampled else None

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """A heat map for each measure, and the scatter plot of the representations, with their file names."""
        return similarity_figures(self.values, self.metric, self.sample)


@torch.no_grad()
def compare(
    models: Sequence[tuple[str, SoftmaxModel]],
    data: pl.LightningDataModule,
    split: str,
    measures: Mapping[str, Measure],
    device: torch.device,
    max_stored: int = 10_000,
    permutations: int = 0,
) -> Comparison:
    """Evaluate and compare all models on a split, ``val`` or ``test``.

    With ``permutations``, measures of samples (the peers) are set beside what unrelated representations of the same
    inputs would score. Raises ValueError naming the model whose input shape or number of labels does not fit.
    """
    names = [name for name, _ in models]
    ready = [_ready(model, device) for _, model in models]
    unembeddings = [model.unembeddings() for model in ready]
    shapes = [(g.shape[0], g.shape[1]) for g in unembeddings]
    require_comparable(shapes, names)
    _require_labels(names, shapes, data)
    loader = _loader(data, split)
    samples = len(loader.dataset)  # type: ignore[arg-type]
    if not samples:
        raise ValueError(f"the {split} split of {type(data).__name__} has no samples")
    needed = {**measures, **sources(measures)}
    metric = PairwiseSimilarity(needed, [dim for _, dim in shapes], names, max_stored).to(device)
    sample, (correct, loss) = EmbeddingSample(), torch.zeros(2, len(names), dtype=torch.float64)
    for batch in loader:
        x, y, ids = (tensor.to(device) for tensor in batch)
        embeddings = [_embed(name, model, x) for name, model in zip(names, ready, strict=True)]
        metric.update(embeddings, unembeddings, ids)
        scores = logits(embeddings, unembeddings)
        correct += is_correct(scores, y).sum(1).cpu()
        loss += nll(scores.log_softmax(-1), y).sum(1).cpu()
        sample.add(y, embeddings)
    computed = {name: matrix.cpu() for name, matrix in metric.compute().items()}
    return Comparison(
        names=names,
        split=split,
        samples=samples,
        accuracy=correct / samples,
        nll=loss / samples,
        values={name: computed[name] for name in measures},
        bounds=bounds_on(measures, computed, map(metric.joint_moments().bare_dim, range(len(names)))),
        nulls=_nulls(metric, measures, permutations) if permutations else {},
        permutations=permutations,
        metric=metric,
        sample=sample,
    )


def _nulls(metric: PairwiseSimilarity, measures: Mapping[str, Measure], permutations: int) -> dict[str, PairwiseNulls]:
    """Of the measures of samples, on the inputs that the metric kept; a progress bar on a terminal."""
    bare = metric.kept_embeddings()
    peers = {name: measure for name, measure in measures.items() if isinstance(measure, RepresentationMeasure)}
    console = Console(stderr=True)
    steps = track(peers, "permuting samples", console=console, transient=True, disable=not console.is_terminal)
    return {name: pairwise_nulls(peers[name], bare, metric.names, n=permutations) for name in steps}


def _ready(model: SoftmaxModel, device: torch.device) -> SoftmaxModel:
    return model.to(device).eval() if isinstance(model, torch.nn.Module) else model


def _loader(data: pl.LightningDataModule, split: str) -> DataLoader[Batch]:
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    loader: DataLoader[Batch] = data.val_dataloader() if split == "val" else data.test_dataloader()
    return loader


def _require_labels(names: Sequence[str], shapes: Sequence[tuple[int, int]], data: pl.LightningDataModule) -> None:
    labels = getattr(data, "num_classes", shapes[0][0])
    for name, (own, _) in zip(names, shapes, strict=True):
        if own != labels:
            raise ValueError(f"model {name!r} has {own} labels, but {type(data).__name__} has {labels}")


def _embed(name: str, model: SoftmaxModel, x: Tensor) -> Tensor:
    try:
        return model.embed(x)
    except ValueError as error:
        raise ValueError(f"model {name!r} does not take inputs {list(x.shape)}: {error}") from error
