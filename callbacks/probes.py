"""What simple classifiers read off a model's layers while it trains: linear probes and the nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import default_collate
from torchmetrics import Metric

from callbacks.measure_at_validation import MeasureAtValidation
from callbacks.validation_pass import EMBEDDING, Seen
from likeness.adapters.activations import Activations
from likeness.adapters.batches import as_inputs
from likeness.adapters.modules import moved
from likeness.adapters.unnoticed import unnoticed
from likeness.checks import require_positive
from likeness.neighbours.classification import knn_score
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from likeness.probes import PENALTY, LinearProbe, ProbeName, fit_probe
from likeness.protocols import Embedder, Siblings

PART = 256  # training samples that pass through the model at once


class ProbeAccuracy(Metric):
    """How many samples the probes of each layer classify rightly: ``<layer>/linear`` and ``<layer>/knn``."""

    full_state_update = False

    correct: Tensor  # [layers, 2]
    samples: Tensor

    def __init__(self, layers: Sequence[str], k: int, metric: DistanceName) -> None:
        super().__init__()
        self.layers, self.k, self.metric = tuple(layers), k, metric
        self.linear: dict[str, LinearProbe] = {}
        self.index: dict[str, Tensor] = {}  # [n, M] of the training samples, by layer
        self.index_labels = torch.empty(0, dtype=torch.int64)
        self.add_state("correct", torch.zeros(len(layers), 2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add samples: features [N, M] by layer, and labels [N]."""
        correct = []
        for layer in self.layers:
            predicted = self.linear[layer].predict(features[layer])
            neighbours = nearest_neighbours(self.index[layer], self.k, metric=self.metric, queries=features[layer])
            nearest = knn_score(neighbours, self.index_labels, self.k, query_labels=labels.cpu())
            correct.append(torch.stack([(predicted == labels).sum(), nearest.correct.sum().to(labels.device)]))
        # not in place: states may have been made in inference mode, where Lightning validates outside of training
        self.correct = self.correct + torch.stack(correct)
        self.samples = self.samples + len(labels)

    def compute(self) -> dict[str, Tensor]:
        """Accuracies by name."""
        shares = self.correct.double() / self.samples
        return {
            f"{layer}/{kind}": shares[row, column]
            for row, layer in enumerate(self.layers)
            for column, kind in enumerate(("linear", "knn"))
        }


class Probes(MeasureAtValidation[ProbeAccuracy]):
    """Accuracy of a linear probe and of the k nearest neighbours on each layer, at validation.

    Both are fitted on training samples, evenly spread, which pass through the model once each time, in evaluation mode;
    the validation samples are those of the validation pass itself. Logs ``probes/<layer>/linear`` and
    ``probes/<layer>/knn``, and the cost as ``probes/seconds``. The same samples and a closed form or a deterministic
    optimiser give the same numbers on any number of ranks.

    Args:
        layers: ``embed`` for what the model's ``embed()`` answers, or names of submodules, as for ``Hubness``.
        train_samples: how many training samples.
        probe: ``ridge``, in closed form, or ``logistic``, by L-BFGS; both in float64.
        penalty: on the squared weights of standardised features.
        k: neighbours.
        metric: by which they are near.
        every_n_validations: how often to measure.
    """

    prefix = "probes"

    def __init__(
        self,
        layers: Sequence[str] = (EMBEDDING,),
        train_samples: int = 2000,
        probe: ProbeName = "ridge",
        penalty: float = PENALTY,
        k: int = 10,
        metric: DistanceName = "euclidean",
        every_n_validations: int = 1,
    ) -> None:
        super().__init__(every_n_validations, layers)
        require_positive(train_samples=train_samples, k=k)
        self.layers, self.train_samples = tuple(layers), train_samples
        self.probe: ProbeName = probe
        self.penalty, self.k, self.metric = penalty, k, metric
        self._fitted = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if isinstance(pl_module, Siblings):
            raise ValueError(f"Probes measures one model, and {type(pl_module).__name__} holds siblings")
        self.looking.require(self, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._fitted = False

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._measuring and dataloader_idx == 0 and not self._fitted:
            with self._clock(), trainer.precision_plugin.forward_context():
                self._fit(trainer, pl_module)  # here, for an EMA callback exchanges the weights just before
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> ProbeAccuracy:
        return ProbeAccuracy(self.layers, self.k, self.metric)

    def _update(self, metric: ProbeAccuracy, pl_module: pl.LightningModule, seen: Seen) -> None:
        if seen.y is None:
            raise ValueError("Probes needs labels, and the validation batches have none")
        metric.update(seen.layers, seen.y)

    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        return {name: float(value) for name, value in self.values.items()}

    def _fit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the model over the training samples, and fit the probes of each layer."""
        assert self._metric is not None
        self._fitted = True
        dataset, whole = _training_data(trainer)
        total = len(dataset)
        chosen = torch.arange(min(self.train_samples, total)) * total // min(self.train_samples, total)
        parts: list[dict[str, Tensor]] = []
        labels: list[Tensor] = []
        with unnoticed([pl_module]):
            for ids in torch.split(chosen, PART):
                batch = as_inputs(dataset[ids] if whole else default_collate([dataset[int(i)] for i in ids]))
                if batch.y is None:
                    raise ValueError("Probes needs labels, and the training samples have none")
                parts.append(self._features(pl_module, moved(batch.x, pl_module.device)))
                labels.append(batch.y)
        known = torch.cat(labels)
        self._metric.index_labels = known.cpu()
        for layer in self.layers:
            features = torch.cat([part[layer] for part in parts])
            self._metric.index[layer] = features
            own = known.to(features.device)
            self._metric.linear[layer] = fit_probe(features, own, int(known.max()) + 1, self.probe, self.penalty)

    def _features(self, pl_module: pl.LightningModule, x: Any) -> dict[str, Tensor]:
        """What the layers answer, by ``embed()`` or else ``forward()``."""
        hooked = [layer for layer in self.layers if layer != EMBEDDING]
        with Activations(pl_module, hooked) as activations:
            embedding = cast(Embedder, pl_module).embed(x) if isinstance(pl_module, Embedder) else pl_module(x)
        return {**activations.take(), **({EMBEDDING: embedding} if EMBEDDING in self.layers else {})}


def _training_data(trainer: pl.Trainer) -> tuple[Any, bool]:
    """The data set, and whether it answers the numbers [B] of samples with a batch of them."""
    loader: Any = trainer.train_dataloader
    if loader is None:
        raise ValueError("Probes is fitted on training samples, and outside training there is no loader of these")
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError(f"Probes takes training samples by their numbers, {type(dataset).__name__} has none")
    return dataset, loader.batch_size is None
