"""All layers of one model against all layers of another, or of itself, in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Literal, get_args

from torch import Tensor

from likeness.adapters.arrays import ArrayModel, row_batches
from likeness.adapters.batches import Inputs, batches, count
from likeness.adapters.modules import Measurable, ModelError
from likeness.adapters.sources import adapted
from likeness.adapters.texts import Texts
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_default, require_one_of, require_positive
from likeness.progress import tracked
from likeness.similarity.catalogue import RepresentationMeasure
from likeness.similarity.layers.answer import LayerComparison
from likeness.similarity.layers.kernel_sums import AT_LEAST, Gram, KernelSums, gram
from likeness.similarity.layers.matrices import LayerMatrices, select_measures
from likeness.similarity.layers.outputs import LayerStore, Rule, Side, one_row_each
from likeness.similarity.layers.statistics import layer_intervals, layer_null
from likeness.similarity.undefined import UndefinedError

Estimator = Literal["stored", "minibatch"]
Patterns = str | Iterable[str] | None
STREAMED = {"unbiased_linear_cka": True, "linear_cka": False}  # with sums over batches, and whether unbiased
MAX_BYTES = 4 * 2**30


def compare_layers(
    first: Any,
    second: Any = None,
    data: Any = None,
    *,
    layers: Patterns = None,
    layers_of_second: Patterns = None,
    measures: Sequence[str] = ("unbiased_linear_cka",),
    pooling: Rule = "mean",
    estimator: Estimator = "stored",
    max_stored: int = 1000,
    max_bytes: int = MAX_BYTES,
    permutations: int = 0,
    alpha: float = 0.05,
    bootstrap: int = 0,
    confidence: float = 0.95,
    names: Sequence[str] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool | None = None,
) -> LayerComparison:
    """How alike the layers of two models are, ``compare_layers(a, b, data)``, or those of one, ``(a, None, data)``.

    Models and data are of the kinds that :func:`likeness.compare` takes, and models are afterwards what they were. The
    data are read once, for all layers of both models. Widths may differ. Layers that answer the same, as a block and
    its last layer do, are computed once.

    Of causal language models on texts, see :func:`likeness.compare`, samples are positions without the first one of
    each text, and layers by default those of the residual stream: embeddings, blocks, and the norm behind them.

    Memory: of each different layer ``max_stored`` samples in its own dtype, and for all measures but Procrustes, SVCCA,
    PWCCA and m_CCA, of one measure at a time, 8 max_stored^2 bytes. With ``estimator="minibatch"``, which is for linear
    CKA, the Gram matrices of one batch, whatever the number of samples and the width of layers.

    Args:
        first: a model.
        second: another; None, or the same, for the layers of one model among themselves.
        data: batches of tensors, of (x, y) pairs or of dictionaries; a tensor, a data set, a loader or a datamodule.
        layers: names, or patterns such as ``"blocks.*.mlp"``; by default all layers and blocks that run.
        layers_of_second: those of the second model where they are others.
        measures: names from ``likeness.similarity.catalogue`` that read representations alone; ``peers`` for all of
            these, and ``m_cca``.
        pooling: how a feature map or a sequence of tokens becomes a vector, or with ``positions`` many; see
            :func:`likeness.adapters.activations.pooled`. Positions are compared between layers that have as many, and
            samples, not positions, are permuted and drawn.
        estimator: ``stored`` computes from the samples that are kept, chosen by a hash of their ids; ``minibatch``
            averages HSIC over batches of all samples (Nguyen et al. 2021), so that flattened feature maps fit.
        max_stored: samples that are kept.
        max_bytes: that these, and what is computed of them, may take.
        permutations: for the null of all pairs of layers at once, see
            :class:`likeness.similarity.layers.statistics.LayerNull`; 0 for none.
        alpha: the chance of unrelated models to have any pair of layers above the threshold.
        bootstrap: draws of the samples for intervals of each pair; 0 for none.
        confidence: of these intervals.
        names: of the models.
        batch_size: for data that are not divided into batches.
        seed: of permutations and draws.
        progress: a progress bar with the time left; by default on a terminal and in a notebook.

    Raises:
        LayerError: a name that matches nothing or does not run.
        ModelError: a model that answers differently when asked twice, with its layer.
        ValueError: values that are not finite, with model, layer and sample; layers that take more than ``max_bytes``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> a, b = (nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)) for _ in range(2))
        >>> found = compare_layers(a, b, torch.randn(100, 8), permutations=99)
        >>> found.layers_a, found["unbiased_linear_cka"].shape
        (['0', '1', '2'], torch.Size([3, 3]))
        >>> bool(found.nulls["unbiased_linear_cka"].significant[0, 0])
        True
        >>> compare_layers(a, None, torch.randn(100, 8), layers=["1", "2"])["unbiased_linear_cka"].shape
        torch.Size([2, 2])
    """
    require_positive(batch_size=batch_size, max_stored=max_stored, max_bytes=max_bytes)
    require_one_of(estimator, get_args(Estimator), "estimator")
    chosen = select_measures(measures)
    _require_possible(estimator, chosen, pooling, permutations, bootstrap)
    if (texts := Texts.of(data)) is not None:
        from likeness.comparisons.language_layers import POOLING, token_sides

        require_default(compare_layers, "Texts has options of its own", pooling=pooling, batch_size=batch_size)
        few = texts if estimator == "minibatch" else replace(texts, positions=min(texts.positions, max_stored))
        sides, tokens = token_sides(first, second, few, names, (layers, layers_of_second), estimator)
        stream: Iterator[Inputs] = iter(tracked(tokens, "comparing layers", shown=progress))
        rule, expected = POOLING, None
    else:
        sides = _sides(first, second, names, (layers, layers_of_second), pooling, estimator)
        stream = iter(_stream([side.model for side in sides], data, batch_size, progress))
        rule, expected = rule_name(pooling), None if data is None else count(data, batch_size)
    models = [side.model for side in sides]
    statistics = Statistics(permutations, alpha, bootstrap, confidence, seed)
    with ExitStack() as open_:
        open_.enter_context(unnoticed(chain.from_iterable(model.modules for model in models)))
        batch = next(stream)
        for side in sides:
            side.prepare(batch)
            open_.enter_context(side.watched())
        stream = chain([batch], stream)
        if estimator == "minibatch":
            return _streamed(sides, stream, chosen, rule)
        kept, samples = _stored(sides, stream, max_stored, max_bytes, expected)
    return compared(kept, chosen, statistics, max_bytes, samples, rule, progress)


@dataclass(frozen=True)
class Statistics:
    """What is computed besides the values; see :func:`compare_layers`."""

    permutations: int = 0
    alpha: float = 0.05
    bootstrap: int = 0
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Sampled:
    """The layers of one model on the samples that were kept."""

    name: str
    rows: Mapping[str, Tensor]  # [N, P, d] by layer
    left_out: Mapping[str, str] = field(default_factory=dict)  # layers that ran in no way that can be compared, and why


def compared(
    models: Sequence[Sampled],
    measures: Mapping[str, RepresentationMeasure[Any]],
    statistics: Statistics,
    max_bytes: int = MAX_BYTES,
    samples: int | None = None,
    pooling: str = "mean",
    progress: bool | None = None,
) -> LayerComparison:
    """Compare the layers of one model, or of two, on the same N samples, chosen from ``samples``."""
    first, second = models[0], models[-1]
    own = list(first.rows.values()), None if len(models) == 1 else list(second.rows.values())
    kept = len(own[0][0])
    found = LayerComparison(
        names=(first.name, second.name),
        layers_a=list(first.rows),
        layers_b=list(second.rows),
        samples=kept if samples is None else samples,
        kept=kept,
        pooling=pooling,
        estimator="stored",
        left_out=(first.left_out, second.left_out),
        measures=measures,
    )
    for name, measure in tracked(measures.items(), "comparing layers", total=len(measures), shown=progress):
        cells = LayerMatrices(measure, *own, max_bytes, _full_names(models))
        _compute(found, name, cells, kept, statistics)
    return found


def _compute(found: LayerComparison, name: str, cells: LayerMatrices, kept: int, asked: Statistics) -> None:
    """Add a measure, its intervals, and its null unless no pair has a value."""
    own = found.values[name] = cells.observed()
    found.undefined[name] = cells.reasons
    if asked.permutations:
        with suppress(UndefinedError):
            found.nulls[name] = layer_null(
                cells, kept, n=asked.permutations, alpha=asked.alpha, seed=asked.seed, observed=own
            )
    if asked.bootstrap:
        found.intervals[name] = layer_intervals(
            cells, kept, n=asked.bootstrap, confidence=asked.confidence, seed=asked.seed, observed=own
        )


def _full_names(models: Sequence[Sampled]) -> tuple[list[str], list[str]]:
    own = [[f"{layer} of {model.name}" for layer in model.rows] for model in (models[0], models[-1])]
    return own[0], own[1]


def _sides(
    first: Any,
    second: Any,
    names: Sequence[str] | None,
    patterns: tuple[Patterns, Patterns],
    rule: Rule,
    estimator: Estimator,
) -> list[Side]:
    """One or two models. Raises ModelError for another number."""
    given = [first] if second is None or second is first else [first, second]
    models = adapted(given, names, [False] * len(given))
    if len(models) > 2:
        raise ModelError(f"the layers of two models are compared, got {', '.join(model.name for model in models)}")
    read = partial(_gram if estimator == "minibatch" else one_row_each, pooling=rule)
    own, other = patterns
    return [
        Side(model, own if number == 0 or other is None else other, rule, read) for number, model in enumerate(models)
    ]


def _stream(models: Sequence[Measurable], data: Any, batch_size: int, progress: bool | None) -> Iterable[Inputs]:
    if data is not None:
        total = count(data, batch_size)
        return tracked(batches(data, batch_size), "comparing layers", total=total, shown=progress)
    rows = {len(model.f) for model in models if isinstance(model, ArrayModel)}
    if len(rows) != 1 or not all(isinstance(model, ArrayModel) for model in models):
        raise ModelError("data are needed: without any, two arrays or files of embeddings with equally many rows do")
    return row_batches(rows.pop(), None)


def _stored(
    sides: Sequence[Side], stream: Iterable[Inputs], max_stored: int, max_bytes: int, batch_count: int | None
) -> tuple[list[Sampled], int]:
    """What was kept of each model, and of how many samples."""
    stores = [LayerStore(max_stored, max_bytes // len(sides), side.model.name) for side in sides]
    samples = 0
    for batch in stream:
        for side, store in zip(sides, stores, strict=True):
            rows = side.collect(batch)
            if samples == 0:
                store.expect(batch.size * (batch_count or 1), rows, batch.size)
            store.add(batch.ids, rows)
        samples += batch.size
    kept = [
        Sampled(side.model.name, store.stored().rows, side.left_out) for side, store in zip(sides, stores, strict=True)
    ]
    return kept, samples


def _streamed(
    sides: Sequence[Side],
    stream: Iterable[Inputs],
    measures: Mapping[str, RepresentationMeasure[Any]],
    pooling: str,
) -> LayerComparison:
    """From sums over batches."""
    sums = {name: KernelSums(STREAMED[name]) for name in measures}
    for batch in stream:
        grams = [_grams(side, batch) for side in sides]
        for own in sums.values():
            own.add(grams[0], grams[1] if len(grams) > 1 else None, batch.size)
    first, second = sides[0], sides[-1]
    some = next(iter(sums.values()))
    if some.samples == 0:
        raise ValueError(f"estimator='minibatch' needs batches of at least {AT_LEAST} samples")
    found = LayerComparison(
        names=(first.model.name, second.model.name),
        layers_a=first.layers,
        layers_b=second.layers,
        samples=some.samples,
        kept=some.samples,
        pooling=pooling,
        estimator="minibatch",
        left_out=(first.left_out, second.left_out),
        measures=measures,
    )
    for name, own in sums.items():
        found.values[name] = own.values()
        missing = [(i, j) for i, j in found.values[name].isnan().nonzero().tolist()]
        found.undefined[name] = dict.fromkeys(missing, "a layer is the same for all samples of each batch")
    return found


def _gram(value: Tensor, name: str, mask: Tensor | None, pooling: Rule) -> Gram:
    """The Gram matrix of a layer's output, of which no copy is made where it is flattened."""
    flat = value.ndim == 2 or pooling == "flatten"
    return gram(value.flatten(1) if flat else one_row_each(value, name, mask, pooling))


def rule_name(pooling: Rule) -> str:
    """A pooling in words."""
    return pooling if isinstance(pooling, str) else getattr(pooling, "__name__", "a function")


def _grams(side: Side, batch: Inputs) -> list[Gram]:
    """Of all layers; raises ValueError naming a layer that is not finite."""
    packed = side.collect(batch)
    for layer, one in packed.items():
        if not bool(one.trace.isfinite()):
            raise ValueError(
                f"layer {layer!r} of {side.model.name!r} answers values that are not finite, "
                f"in the batch from sample {batch.start}"
            )
    return list(packed.values())


def _require_possible(
    estimator: str,
    measures: Mapping[str, RepresentationMeasure[Any]],
    pooling: Rule,
    permutations: int,
    bootstrap: int,
) -> None:
    if estimator == "stored":
        return
    others = [name for name in measures if name not in STREAMED]
    if others:
        raise ValueError(f"estimator='minibatch' is for {', '.join(STREAMED)}, got {', '.join(others)}")
    if permutations or bootstrap:
        raise ValueError("nulls and intervals are of samples that are kept: they need estimator='stored'")
    if pooling == "positions":
        raise ValueError("estimator='minibatch' takes a vector a sample: pooling='positions' needs estimator='stored'")
