"""Hubness of a model's layers on held-out samples while it trains."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from callbacks.measure_at_validation import MeasureAtValidation, may_write, members
from callbacks.run.publishing import publish_figure, publish_table
from callbacks.validation_pass import EMBEDDING, Seen
from likeness.batch import Batch, PairBatch
from likeness.checks import require_positive
from likeness.figures.hubness import k_occurrence_figure
from likeness.hubness.analysis import HubnessReport
from likeness.hubness.metric import HubnessMetric
from likeness.neighbours.exact import DistanceName
from likeness.protocols import Siblings
from likeness.seeding import generator

COLUMNS = ("step", "layer", "sample", "label", "occurrences", "text")
MAX_TEXT = 200
_CHOICE = 0x4B5  # tells the draw of the held-out samples apart from other draws of the seed


class LayerHubness(Metric):
    """A HubnessMetric for each layer of each sibling; the answers' names are ``<layer>/<index>``, means over siblings.

    Of several siblings also ``<layer>/<index>/min`` and ``/max``.
    """

    full_state_update = False

    def __init__(self, layers: Sequence[str], siblings: int, k: int, metric: DistanceName, knn: bool) -> None:
        super().__init__()
        self.of_layers = {
            layer: nn.ModuleList(HubnessMetric(k, metric, knn_accuracy=knn) for _ in range(siblings))
            for layer in layers
        }
        self._all = nn.ModuleList(self.of_layers.values())  # moved and reset with this one

    def update(self, embeddings: Mapping[str, Tensor], ids: Tensor, labels: Tensor | None) -> None:
        """Add samples: representations [B, M], or [P, B, M] of siblings, by layer."""
        for layer, rows in embeddings.items():
            siblings, metrics = members(rows), self.of_layers[layer]
            if len(siblings) != len(metrics):
                raise ValueError(f"layer {layer!r} gives vectors of {len(siblings)} of the {len(metrics)} siblings")
            for metric, of_sibling in zip(metrics, siblings, strict=True):
                cast(HubnessMetric, metric).update(of_sibling, ids, labels)

    def compute(self) -> dict[str, Tensor]:
        """Every index of every layer."""
        answers: dict[str, Tensor] = {}
        for layer, metrics in self.of_layers.items():
            values = [cast(HubnessMetric, metric).compute() for metric in metrics]
            for name in values[0]:
                over = torch.stack([value[name] for value in values])
                answers[f"{layer}/{name}"] = over.mean()
                if len(values) > 1:
                    answers |= {f"{layer}/{name}/min": over.min(), f"{layer}/{name}/max": over.max()}
        return answers

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        for metric in self.modules():
            if isinstance(metric, HubnessMetric):
                metric.reset()


class Hubness(MeasureAtValidation[LayerHubness]):
    """How unequally held-out samples are the nearest neighbours of each other, by layer, at validation.

    Logs ``hubness/<layer>/<index>``: the indices of :class:`~likeness.hubness.metric.HubnessMetric` with the values
    that chance gives them, of siblings their mean, ``/min`` and ``/max``. Indices depend on how many samples there are,
    so the same ones are taken each time: ``max_samples`` of the validation split, drawn by ``seed``. The largest hubs
    stand in ``figures/hubs.csv``, the k-occurrences of each layer are drawn in ``figures/hubness.png`` when training
    ends, both also in the loggers that take them. The callback's own cost is ``hubness/seconds``.

    Args:
        layers: ``embed`` for what the model's ``embed()`` answers, or names of submodules of any LightningModule, whose
            outputs are taken in the validation pass; of feature maps and sequences the mean over positions.
        k: neighbours of each sample.
        metric: by which they are near.
        every_n_validations: how often to measure.
        max_samples: held-out samples; of a model of tokens the positions are taken that it names itself.
        seed: which ones.
        knn_accuracy: log the share that the vote of the k nearest classifies rightly, where samples have labels.
        num_hubs: in the table, of each layer.
    """

    prefix = "hubness"

    def __init__(
        self,
        layers: Sequence[str] = (EMBEDDING,),
        k: int = 10,
        metric: DistanceName = "euclidean",
        every_n_validations: int = 1,
        max_samples: int = 5000,
        seed: int = 0,
        knn_accuracy: bool = False,
        num_hubs: int = 10,
    ) -> None:
        super().__init__(every_n_validations, layers)
        require_positive(k=k, max_samples=max_samples, num_hubs=num_hubs)
        if not layers or len({*layers}) < len(layers):
            raise ValueError(f"layers must name one layer at least, and each once, got {list(layers)}")
        self.layers = tuple(layers)
        self.k, self.metric = k, metric
        self.max_samples, self.seed = max_samples, seed
        self.knn_accuracy = knn_accuracy
        self.num_hubs = num_hubs
        self.reports: dict[str, HubnessReport] = {}  # measured last, by layer; of siblings the first one's
        self._chosen = torch.empty(0, dtype=torch.bool)
        self._numbered = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.looking.require(self, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        if self._measuring:
            self._chosen = choose_samples(len(_held_out(trainer)), self.max_samples, self.seed)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.reports and may_write(trainer):
            publish_figure(trainer, k_occurrence_figure(self.reports), "hubness")

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> LayerHubness:
        siblings = pl_module.num_members if isinstance(pl_module, Siblings) else 1
        return LayerHubness(self.layers, siblings, self.k, self.metric, self.knn_accuracy)

    def _update(self, metric: LayerHubness, pl_module: pl.LightningModule, seen: Seen) -> None:
        ids, self._numbered = seen.ids.cpu(), seen.numbered
        known = ids < len(self._chosen)  # others fill up the last batch of some ranks
        chosen = known & self._chosen[ids.where(known, 0)] if seen.rows is None else torch.ones_like(known)
        rows = chosen.nonzero().flatten()
        if len(rows):
            features = {name: layer.index_select(-2, rows.to(layer.device)) for name, layer in seen.layers.items()}
            labels = None if seen.y is None else seen.y[rows.to(seen.y.device)]
            metric.update(features, ids[rows], labels)

    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        assert self._metric is not None
        first = {layer: cast(HubnessMetric, metrics[0]) for layer, metrics in self._metric.of_layers.items()}
        self.reports = {layer: metric.report() for layer, metric in first.items()}
        if may_write(trainer):
            rows = [row for layer, metric in first.items() for row in self._hubs(trainer, layer, metric)]
            publish_table(trainer, "hubs", COLUMNS, rows)
        return {name: float(value) for name, value in self.values.items()}

    def _hubs(self, trainer: pl.Trainer, layer: str, metric: HubnessMetric) -> Iterator[list[Any]]:
        """The samples that are neighbours of most others: a row for each, in the order of ``COLUMNS``."""
        ids, occurrences = (values.cpu() for values in metric.top_hubs(self.num_hubs))
        batch = _held_out(trainer)[ids] if self._numbered else None
        texts = batch.first if isinstance(batch, PairBatch) else getattr(batch, "x", None)
        for row, (sample, count) in enumerate(zip(ids.tolist(), occurrences.tolist(), strict=True)):
            label = int(batch.y[row]) if isinstance(batch, Batch) else ""
            text = " ".join(texts[row].split())[:MAX_TEXT] if isinstance(texts, list) else ""
            yield [trainer.global_step, layer, sample, label, count, text]


def choose_samples(total: int, size: int, seed: int) -> Tensor:
    """Which of ``total`` samples are measured, [total] bool: ``size`` of them, a function of the three alone."""
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[torch.randperm(total, generator=generator(seed, _CHOICE))[:size]] = True
    return chosen


def _held_out(trainer: pl.Trainer) -> Any:
    """The dataset of the first validation loader, which gives a batch for positions [B]."""
    loaders = trainer.val_dataloaders
    return (loaders[0] if isinstance(loaders, list | tuple) else loaders).dataset  # type: ignore[union-attr]
