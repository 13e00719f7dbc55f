"""Models of any kind compared on any data, in one pass whose memory does not grow with the number of samples."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from likeness.adapters.activations import Pooling
from likeness.adapters.arrays import ArrayModel, row_batches
from likeness.adapters.batches import Inputs, batches, count
from likeness.adapters.modules import Measurable, ModelError
from likeness.adapters.sources import adapted
from likeness.adapters.texts import Texts
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_default, require_positive
from likeness.comparisons.bounds import PairwiseBound, bounds_on, sources
from likeness.figures.similarity import EmbeddingSample, similarity_figures
from likeness.language.text_tokenizer import TextTokenizer
from likeness.progress import tracked
from likeness.similarity.catalogue import (
    Measure,
    RepresentationMeasure,
    SoftmaxMeasure,
    needs_inputs,
    reads_labels,
    select,
)
from likeness.similarity.metric import PairwiseSimilarity, require_comparable
from likeness.similarity.predictions import is_correct, logits, nll
from likeness.similarity.representations.permutation_null import PairwiseNulls, pairwise_nulls

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from likeness.comparisons.language_pairs import LanguageComparisons
    from likeness.language.answer import LanguageComparison

MEASURED = ("kl", "js", "agreement", "m_cca", "likelihood", "logit", "linear_cka", "unbiased_linear_cka", "mutual_knn")
_LOGITS = 2**24  # numbers in the logits of all models that are computed at once: 128 MB


@dataclass(frozen=True)
class Comparison:
    """How alike P models are on the same samples, by the names of the measures.

    ``found["kl"]`` is [P, P] in float64, NaN where undefined, with model i of entry (i, j) as the first of the pair. An
    attribute of that name, ``found.kl``, is the same, or for two models the number with the first as the first.

    Example:
        >>> import torch
        >>> from likeness import compare
        >>> f, g = torch.randn(40, 2, generator=torch.manual_seed(0)).double(), torch.eye(4, 2).double()
        >>> found = compare((f, g), (f, 2 * g), measures=["kl", "agreement"], names=["a", "b"])
        >>> found.agreement, sorted(found.to_dict()["pairs"][0])
        (1.0, ['agreement', 'kl_ab', 'kl_ba', 'model_a', 'model_b', 'undefined'])
    """

    names: Sequence[str]
    samples: int
    values: Mapping[str, Tensor]  # [P, P] by the measure's name
    metric: PairwiseSimilarity = field(repr=False)
    data: str = "the data"  # what the samples are of, for titles
    accuracy: Tensor | None = None  # [P], where the data have labels and the models heads
    nll: Tensor | None = None  # [P] in nats
    left_out: Mapping[str, str] = field(
        default_factory=dict
    )  # measures that were asked for, and why they are not there
    bounds: Mapping[str, Sequence[PairwiseBound]] = field(default_factory=dict, repr=False)  # by the measure's name
    nulls: Mapping[str, PairwiseNulls] = field(default_factory=dict, repr=False)  # by the measure's name
    permutations: int = 0  # in each of the nulls
    sample: EmbeddingSample = field(default_factory=EmbeddingSample, repr=False)

    def __getitem__(self, measure: str) -> Tensor:
        """A measure of all ordered pairs, [P, P]; raises KeyError that says why it is left out, or what there is."""
        if measure not in self.values:
            known = f"measured were {', '.join(self.values)}"
            raise KeyError(f"{measure}: {self.left_out.get(measure, known)}")
        return self.values[measure]

    def __getattr__(self, measure: str) -> Tensor | float:
        known = self.__dict__  # a copy that is being made has none yet
        if measure not in known.get("values", {}):
            why = known.get("left_out", {}).get(measure, "it was not measured")
            raise AttributeError(f"this comparison has no {measure!r}: {why}")
        matrix = self.values[measure]
        return float(matrix[0, 1]) if len(matrix) == 2 else matrix

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.values]

    @property
    def undefined(self) -> Mapping[str, Mapping[tuple[int, int], str]]:
        """By measure and pair, why a value is NaN."""
        return {name: self.metric.undefined[name] for name in self.values}

    @property
    def kept(self) -> int | None:
        """How many inputs what is said of single ones is of; None where no measure says anything of these."""
        return len(self.metric.kept_embeddings()[0]) if any(map(needs_inputs, self.metric.measures.values())) else None

    def why_undefined(self, first: int, second: int) -> str:
        """Which measures are undefined for a pair, and why."""
        return "; ".join(
            f"{name}: {reason}"
            for name, reasons in self.undefined.items()
            for reason in dict.fromkeys(reasons[pair] for pair in ((first, second), (second, first)) if pair in reasons)
        )

    def searches(self, name: str) -> Mapping[tuple[int, int], str] | None:
        """How the choices that a measure is taken at were found, by pair; None where none is ever sampled."""
        measure = self.metric.measures[name]
        sampled = isinstance(measure, SoftmaxMeasure) and (measure.needs_inputs or measure.key.startswith("max_d_svd"))
        return self.metric.search[name] if sampled else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the models, and a row for each pair, None where a measure is undefined."""
        from likeness.comparisons.tables import model_rows, pair_rows

        return {
            "samples": self.samples,
            "models": model_rows(self),
            "pairs": pair_rows(self),
            "left_out": dict(self.left_out),
        }

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with a row for each pair of models. Raises ImportError where pandas is not installed."""
        from pandas import DataFrame

        from likeness.comparisons.tables import pair_rows

        return DataFrame(pair_rows(self))

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """A heat map for each measure, and the scatter plot of the representations, with their file names."""
        return similarity_figures(self.values, self.metric, self.sample)

    def plot(self) -> Figure:
        """Heat maps of all measures side by side, each on its own scale; bright is alike."""
        from likeness.figures.similarity import similarity_panels

        return similarity_panels(self.values, self.metric)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``models.csv``, ``comparison.csv``, ``comparison.json``, all figures and a page, ``index.html``.

        Answers what was written.
        """
        from likeness.comparisons.tables import model_rows, pair_rows, write_models, write_pairs
        from likeness.figures.output import save_formats
        from likeness.files.writing import replacing
        from likeness.pages.comparison import comparison_parts, write_comparison

        folder = Path(folder).expanduser()
        written = [write_models(self, folder / "models.csv"), write_pairs(self, folder / "comparison.csv")]
        with replacing(folder / "comparison.json") as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2), encoding="utf-8")
        written.append(folder / "comparison.json")
        figures = [path for name, figure in self.figures() for path in save_formats(figure, folder, name)]
        parts = comparison_parts(pair_rows(self), model_rows(self), "comparison")
        about = f"{self.samples:,} samples of {self.data}"
        others = figures if len(self.names) == 2 else [path for path in figures if path.stem == "embeddings"]
        return [*written, *figures, *write_comparison(folder, ", ".join(self.names), about, parts, others)]

    def __str__(self) -> str:
        from likeness.comparisons.tables import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from likeness.comparisons.tables import as_html

        return as_html(self)


@overload
def compare(
    first: Any,
    second: Any,
    data: Texts | Sequence[str] | Path,
    *,
    names: Sequence[str] | None = ...,
    budget: int | None = ...,
    progress: bool | None = ...,
) -> LanguageComparison: ...


@overload
def compare(
    first: list[Any],
    second: Texts | Path,
    *,
    names: Sequence[str] | None = ...,
    budget: int | None = ...,
    progress: bool | None = ...,
) -> LanguageComparison | LanguageComparisons: ...


@overload
def compare(
    first: Any,
    second: Any = ...,
    data: Any = ...,
    *,
    measures: Iterable[str] = ...,
    names: Sequence[str] | None = ...,
    head: str | bool | Sequence[str | bool] = ...,
    pooling: Pooling | Callable[[Tensor], Tensor] = ...,
    batch_size: int = ...,
    max_stored: int = ...,
    permutations: int = ...,
    progress: bool | None = ...,
) -> Comparison: ...


def compare(
    first: Any,
    second: Any = None,
    data: Any = None,
    *,
    measures: Iterable[str] = MEASURED,
    names: Sequence[str] | None = None,
    head: str | bool | Sequence[str | bool] = True,
    pooling: Pooling | Callable[[Tensor], Tensor] = "mean",
    batch_size: int = 64,
    max_stored: int = 2000,
    permutations: int = 0,
    budget: int | None = None,
    progress: bool | None = None,
) -> Comparison | LanguageComparison | LanguageComparisons:
    """How alike two models are, ``compare(a, b, data)``, or all pairs of several, ``compare([a, b, c], data)``.

    A model is a torch module, whose last linear layer makes it a softmax model; an object with ``embed()`` and perhaps
    ``unembeddings()``; arrays (f, g), or f alone; a file of embeddings; a run or checkpoint of Likeness. Modules stay
    where they are, on a GPU for one, and as they are: modes, hooks and random numbers are afterwards what they were.
    An autocast context around the call holds.

    Two causal language models on texts, ``compare("hf:a", "hf:b", ["a text", ...])``, are compared at the positions of
    the texts by everything that :class:`likeness.LanguageComparison` has; of three and more,
    ``compare([a, b, c], Texts(...))``, all pairs are
    (:class:`likeness.comparisons.language_pairs.LanguageComparisons`), and each model goes over the texts once.
    ``names``, ``budget`` and ``progress`` are the options, and :class:`likeness.Texts` has those of the texts.

    Args:
        first: a model, or a list of all.
        second: a model, or the data where ``first`` is a list.
        data: batches of tensors, of (x, y) pairs or of dictionaries; a tensor, a data set, a loader or a datamodule.
            It is read once. For arrays there need be none. Of language models: texts, or a file of them.
        measures: names, or families, of ``likeness.similarity.catalogue``. Those that read label vectors are left out,
            with the reason, where a model has none.
        names: of the models, for tables.
        head: the name of the last linear layer, True to find it, False to take outputs as representations; one for
            all models, or one for each.
        pooling: how an output that is no vector becomes one; see :func:`likeness.adapters.activations.pooled`.
        batch_size: for data that are not divided into batches.
        max_stored: inputs that are kept for what is said of single ones; see
            :class:`likeness.similarity.metric.PairwiseSimilarity`.
        permutations: for what unrelated representations would score; 0 for none.
        budget: of language models, of how many tokens the row of term 1 of d_LLV may be computed: beyond it term 1 is
            an interval.
        progress: a progress bar with the time left; by default on a terminal and in a notebook.

    Raises:
        ModelError: a model that cannot be measured, or two with other numbers of labels; the message names it.
        ValueError: data that yield nothing, and values that are not finite, with model and sample.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> a, b = (nn.Sequential(nn.Linear(8, 3), nn.Tanh(), nn.Linear(3, 6)) for _ in range(2))
        >>> found = compare(a, b, torch.randn(200, 8))
        >>> found.kl > 0.01, found["m_cca_f"].shape
        (True, torch.Size([2, 2]))
        >>> same = compare(a, a, torch.randn(200, 8), measures=["kl", "d_llv"])
        >>> same.kl, same.d_llv < 1e-12
        (0.0, True)
    """
    require_positive(batch_size=batch_size, max_stored=max_stored)
    given = [first, second]
    if isinstance(first, list):
        if data is not None and second is not None:
            raise ModelError(
                f"several models are compare([a, b, c], data): a {type(second).__name__} stands beside the list"
            )
        given, data = first, second if data is None else data
    if (texts := Texts.of(data)) is not None:
        from likeness.comparisons.language import compare_on_texts

        others = {"measures": tuple(measures), "head": head, "pooling": pooling, "batch_size": batch_size}
        others |= {"max_stored": max_stored, "permutations": permutations}
        require_default(compare, "language models on texts have all their measures, and Texts its options", **others)
        return compare_on_texts(given, texts, names, budget, progress)
    require_default(compare, "it is of language models, which are compared on texts", budget=budget)
    heads = [head] * len(given) if isinstance(head, str | bool) else head
    models = adapted(given, names, heads, pooling)
    with unnoticed(chain.from_iterable(model.modules for model in models)):
        stream = _stream(models, data, batch_size, progress)
        return measured(models, stream, select(measures), max_stored, permutations, progress=progress)


def measured(
    models: Sequence[Measurable],
    stream: Iterable[Inputs],
    measures: Mapping[str, Measure],
    max_stored: int = 2000,
    permutations: int = 0,
    data: str = "the data",
    progress: bool | None = None,
) -> Comparison:
    """Compare adapted models over a stream of batches; see :func:`compare`. Call it inside ``unnoticed``."""
    _require_same_tokens(models)
    stream = iter(stream)
    first = next(stream)
    for model in models:
        model.prepare(first)
    gathered = _Pass(models, measures, max_stored)
    for batch in chain([first], stream):
        gathered.add(batch)
    return gathered.comparison(permutations, data, progress)


def _require_same_tokens(models: Sequence[Measurable]) -> None:
    """Raise ModelError where ids stand for other tokens in two models that know theirs."""
    tokenizers = [(model.name, getattr(model.modules[0], "tokenizer", None)) for model in models if model.modules]
    known = [(name, one.vocabulary_digest[:12]) for name, one in tokenizers if isinstance(one, TextTokenizer)]
    for name, digest in known[1:]:
        if digest != known[0][1]:
            raise ModelError(
                f"ids stand for other tokens in {known[0][0]} and {name}, the digests of their bytes are "
                f"{known[0][1]} and {digest}: on texts, shared_tokens compares them by the tokens that both have"
            )


class _Pass:
    """What is gathered of the models while the data go by."""

    def __init__(self, models: Sequence[Measurable], measures: Mapping[str, Measure], max_stored: int) -> None:
        self.models, self.names = models, [model.name for model in models]
        self.heads = [model.unembeddings() for model in models]
        self.measures, self.left_out = _measurable(models, self.heads, measures)
        self.max_stored = max_stored
        self.metric: PairwiseSimilarity | None = None
        self.sample = EmbeddingSample()
        self.samples = self.labelled = 0
        self.correct, self.loss = torch.zeros(2, len(models), dtype=torch.float64)

    def add(self, batch: Inputs) -> None:
        """Run all models on a batch."""
        embeddings = [model.embed(batch) for model in self.models]
        rows = len(embeddings[0])
        for model, f in zip(self.models, embeddings, strict=True):
            if len(f) != rows:
                raise ModelError(f"{model.name} gives {len(f)} representations of a batch, {self.names[0]} {rows}")
        y, ids = (batch.y, batch.ids) if rows == batch.size else (None, self.samples + torch.arange(rows))
        if self.metric is None:
            self.metric = self._metric(embeddings)
        size = self._rows_at_once()
        for start in range(0, rows, size):
            chosen = slice(start, start + size)
            self._add([f[chosen] for f in embeddings], None if y is None else y[chosen], ids[chosen])
        self.samples += rows

    def comparison(self, permutations: int, data: str, progress: bool | None = None) -> Comparison:
        """Everything that was asked for, computed from the sums."""
        assert self.metric is not None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the answer says what is undefined, and why
            computed = {name: matrix.cpu() for name, matrix in self.metric.compute().items()}
        joint = self.metric.joint_moments()
        known = self.labelled == self.samples
        return Comparison(
            names=self.names,
            samples=self.samples,
            values={name: computed[name] for name in self.measures},
            metric=self.metric,
            data=data,
            accuracy=self.correct / self.samples if known else None,
            nll=self.loss / self.samples if known else None,
            left_out=self.left_out,
            bounds=bounds_on(self.measures, computed, map(joint.bare_dim, range(len(self.names)))),
            nulls=_nulls(self.metric, self.measures, permutations, progress) if permutations else {},
            permutations=permutations,
            sample=self.sample,
        )

    def _metric(self, embeddings: Sequence[Tensor]) -> PairwiseSimilarity:
        dims = [f.shape[1] for f in embeddings]
        heads = [head for head in self.heads if head is not None]
        if len(heads) < len(dims):  # then no measure that is left reads label vectors
            heads = [f.new_zeros(2, dim) for f, dim in zip(embeddings, dims, strict=True)]
        require_comparable([(len(head), dim) for head, dim in zip(heads, dims, strict=True)], self.names)
        self.heads = [*heads]
        needed = {**self.measures, **sources(self.measures)}
        device = embeddings[0].device
        metric = PairwiseSimilarity(needed, dims, self.names, self.max_stored)
        return metric if device.type == "mps" else metric.to(device)

    def _rows_at_once(self) -> int:
        return max(1, _LOGITS // (len(self.models) * max(len(head) for head in self.heads if head is not None)))

    def _add(self, embeddings: Sequence[Tensor], y: Tensor | None, ids: Tensor) -> None:
        assert self.metric is not None
        device = self.metric.device
        embeddings = [f.to(device) for f in embeddings]
        heads = [head.to(device) for head in self.heads if head is not None]
        self.metric.update(embeddings, heads, ids.to(device))
        if y is None or self.left_out or not _are_labels(y, len(heads[0])):
            return
        scores = logits(embeddings, heads)
        self.correct += is_correct(scores, y.to(device)).sum(1).cpu()
        self.loss += nll(scores.log_softmax(-1), y.to(device)).sum(1).cpu()
        self.labelled += len(y)
        self.sample.add(y, embeddings)


def _measurable(
    models: Sequence[Measurable], heads: Sequence[Tensor | None], measures: Mapping[str, Measure]
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures that these models have, and why the others are left out. Raises ModelError where none is left."""
    without = [model for model, head in zip(models, heads, strict=True) if head is None]
    if not without:
        return dict(measures), {}
    why = f"{without[0].name} has no label vectors: {without[0].why_no_head}"
    left_out = {name: why for name, measure in measures.items() if reads_labels(measure)}
    if len(left_out) == len(measures):
        raise ModelError(f"{', '.join(measures)} read label vectors, but {why}")
    return {name: measure for name, measure in measures.items() if name not in left_out}, left_out


def _are_labels(y: Tensor, count: int) -> bool:
    return not len(y) or bool((y >= 0).all() & (y < count).all())


def _nulls(
    metric: PairwiseSimilarity, measures: Mapping[str, Measure], permutations: int, progress: bool | None
) -> dict[str, PairwiseNulls]:
    """Of the measures of samples, on the inputs that the metric kept."""
    bare = metric.kept_embeddings()
    peers = {name: measure for name, measure in measures.items() if isinstance(measure, RepresentationMeasure)}
    steps = tracked(peers, "permuting samples", shown=progress)
    return {name: pairwise_nulls(peers[name], bare, metric.names, n=permutations) for name in steps}


def _stream(models: Sequence[Measurable], data: Any, batch_size: int, progress: bool | None) -> Iterable[Inputs]:
    """The batches of the data, or without data the rows of arrays."""
    if data is not None:
        return tracked(batches(data, batch_size), "comparing", total=count(data, batch_size), shown=progress)
    arrays = [model for model in models if isinstance(model, ArrayModel)]
    if len(arrays) < len(models):
        raise ModelError("data are needed: only arrays and files of embeddings can be compared without any")
    if len({len(model.f) for model in arrays}) > 1:
        rows = " and ".join(f"{model.name} has {len(model.f)}" for model in arrays)
        raise ModelError(f"models are compared on the same inputs, but {rows} rows")
    labels = next((model.labels for model in arrays if model.labels is not None), None)
    return row_batches(len(arrays[0].f), labels)
