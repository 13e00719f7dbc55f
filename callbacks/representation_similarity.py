"""How alike siblings, or a model and its references, are while they train."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from callbacks.measure_at_validation import MeasureAtValidation, may_write, members
from callbacks.run.publishing import publish_figure, write_table
from callbacks.validation_pass import EMBEDDING, Seen
from lightning_modules.checkpoints import load_embedders, short_names
from likeness.checks import require_positive
from likeness.figures.embeddings import COLUMNS
from likeness.figures.similarity import EmbeddingSample, similarity_figures
from likeness.protocols import Embedder, SoftmaxModel
from likeness.similarity.catalogue import MEASURES, Measure, reads_labels, select
from likeness.similarity.metric import PairwiseSimilarity, require_comparable


class RepresentationSimilarity(MeasureAtValidation[PairwiseSimilarity]):
    """Measures, at validation, between all pairs of siblings or between a model and reference checkpoints.

    Models need not be classifiers: anything with ``embed()``, such as a diffusion model, is compared by the measures
    that read representations alone.

    Logs ``similarity/<measure>/{mean,min,max}`` over the pairs (both directions where they differ) for which the
    measure is defined, with the number of the others as ``similarity/<measure>/undefined`` and of those whose choice
    of inputs or labels was sampled as ``similarity/<measure>/sampled``, where there are any; and its own cost,
    ``similarity/seconds``. Heat maps and a scatter plot of the representations go to
    ``figures/`` in the run directory when training ends, the plot's coordinates as ``figures/embeddings.csv``: of at
    most 8 models the first 2,000 f(x) and g(y), these less their mean over labels.

    Args:
        measures: Names from ``likeness.similarity.catalogue``.
        references: Checkpoints or run directories to compare with; empty compares siblings with each other.
        every_n_validations: How often to measure.
        figures_every_n_validations: How often to draw during training too, keeping each figure under its step;
            only validations that are measured can be drawn.
        max_stored: Inputs that are kept for what is said of single ones (d_LLV's input side, neighbours, kernels). The
            best input set of d_LLV takes of the order of its square for each pair, 0.15 s of CPU at 2,000.
        head: The last linear layer of a module without ``embed()`` and ``unembeddings()``, such as ``model.fc``.
    """

    prefix = "similarity"

    def __init__(
        self,
        measures: Sequence[str] = ("kl", "m_cca"),
        references: Sequence[str] = (),
        every_n_validations: int = 1,
        figures_every_n_validations: int | None = None,
        max_stored: int = 2000,
        head: str | None = None,
    ) -> None:
        super().__init__(every_n_validations, head=head)
        require_positive(figures_every_n_validations=figures_every_n_validations)
        self.measures = select(measures)
        self.reference_paths = tuple(references)
        self.figures_every_n_validations = figures_every_n_validations
        self.max_stored = max_stored
        self._references: list[tuple[str, Embedder]] = []
        self._unembeddings: list[Tensor] = []
        self._sample = EmbeddingSample()

    @property
    def state_key(self) -> str:
        return self._generate_state_key(references=self.reference_paths)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.looking.head is not None or not isinstance(pl_module, Embedder):
            super().setup(trainer, pl_module, stage)
        if stage in ("fit", "validate") and not self._references:
            self._references = _load(self.reference_paths)
        for model in self._others(pl_module):
            _require_labels(self.measures, model)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._measuring:
            self._unembeddings, self._sample = [], EmbeddingSample()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> PairwiseSimilarity:
        for _, model in self._references:
            if isinstance(model, torch.nn.Module):
                model.to(pl_module.device)
        shapes = [(g.shape[0], g.shape[1]) for g in self._all_unembeddings(pl_module)]
        own = len(shapes) - len(self._references)
        names = ["this run"] if own == 1 else [str(member) for member in range(own)]
        names += short_names([name for name, _ in self._references])
        require_comparable(shapes, names)
        return PairwiseSimilarity(self.measures, [dim for _, dim in shapes], names, self.max_stored)

    def _update(self, metric: PairwiseSimilarity, pl_module: pl.LightningModule, seen: Seen) -> None:
        if not self._unembeddings:  # not earlier: an EMA callback exchanges the weights just before
            self._unembeddings = self._all_unembeddings(pl_module)
        embeddings = [*members(seen.layers[EMBEDDING]), *self._of_references(seen)]
        metric.update(embeddings, self._unembeddings, seen.ids)
        if seen.y is not None:
            self._sample.add(seen.y, embeddings)

    def _of_references(self, seen: Seen) -> list[Tensor]:
        return [seen.of(model.embed(seen.x)) for _, model in self._references]

    def _all_unembeddings(self, pl_module: pl.LightningModule) -> list[Tensor]:
        own = [] if self.looking.head is None else [self.looking.unembeddings(pl_module)]
        return own + [vectors for model in self._others(pl_module) for vectors in members(_label_vectors(model))]

    def _others(self, pl_module: pl.LightningModule) -> list[Any]:
        """The models that answer for themselves: the references, and the module unless its head is named."""
        return [pl_module] * (self.looking.head is None) + [model for _, model in self._references]

    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        """Mean, minimum and maximum of each measure over the pairs that are compared, as far as it is defined."""
        cadence = self.figures_every_n_validations
        if cadence is not None and self._validations % cadence == 0:
            self._draw(trainer, keep_history=True)
        assert self._metric is not None
        summaries: dict[str, float] = {}
        for name, matrix in self.values.items():
            compared = self._pairs(len(matrix), self.measures[name].symmetric)
            values = matrix[compared & ~matrix.isnan()]
            if len(values):
                summaries |= {f"{name}/{of}": float(getattr(values, of)()) for of in ("mean", "min", "max")}
            searches = [self._metric.search[name].get((i, j)) for i, j in compared.nonzero().tolist()]
            sampled = sum(search in ("sampled", "bounded") for search in searches)
            counts = {"undefined": int(compared.sum()) - len(values), "sampled": sampled}
            summaries |= {f"{name}/{what}": float(count) for what, count in counts.items() if count}
        return summaries

    def _pairs(self, models: int, symmetric: bool) -> Tensor:
        """Which of P x P entries count: pairs of members, or of a member and a reference where there are any."""
        index = torch.arange(models)
        if self._references:
            index = index >= models - len(self._references)
        pairs = index[:, None] != index
        return pairs.triu() if symmetric else pairs

    def _draw(self, trainer: pl.Trainer, *, keep_history: bool = False) -> None:
        if self._metric is not None and self.values and may_write(trainer):
            for name, figure in similarity_figures(self.values, self._metric, self._sample):
                publish_figure(trainer, figure, name, keep_history=keep_history)
            if (planes := self._sample.planes(self._metric)) is not None:
                write_table(trainer, "embeddings", COLUMNS, planes.rows())


def _require_labels(measures: Mapping[str, Measure], model: Any) -> None:
    """Raise ValueError naming measures that need label vectors where a model has none."""
    wanting = [name for name, measure in measures.items() if reads_labels(measure)]
    if wanting and not isinstance(model, SoftmaxModel):
        known = ", ".join(name for name, measure in MEASURES.items() if not reads_labels(measure))
        raise ValueError(
            f"{', '.join(wanting)} compare softmax models, with embed() and unembeddings(); "
            f"{type(model).__name__} is none: measure {known}"
        )


def _label_vectors(model: Any) -> Tensor:
    """g [K, M], or two zero vectors for a model that has no labels: no measure that is allowed for it reads them."""
    if isinstance(model, SoftmaxModel):
        return model.unembeddings()
    example = torch.zeros(1, *model.hparams["input_shape"], dtype=torch.uint8, device=model.device)
    embedding: Tensor = model.embed(example)
    return embedding.new_zeros(2, embedding.shape[-1])


def _load(paths: Sequence[str]) -> list[tuple[str, Embedder]]:
    """The models of these checkpoints, ready to be evaluated; random numbers are left as they are."""
    if not paths:
        return []
    with isolate_rng():
        return [named for path in paths for named in load_embedders(path)]
