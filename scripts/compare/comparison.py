"""Runs and checkpoints compared on one split of a datamodule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import pytorch_lightning as pl
import torch

from likeness.adapters.batches import batches
from likeness.adapters.modules import EmbedderModel
from likeness.adapters.unnoticed import unnoticed
from likeness.comparisons.compare import Comparison, measured
from likeness.protocols import SoftmaxModel
from likeness.similarity.catalogue import Measure
from likeness.similarity.metric import require_comparable


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
    for _, model in models:
        if isinstance(model, torch.nn.Module):
            model.to(device)
    adapted = [EmbedderModel(model, name) for name, model in models]
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    if not len(loader.dataset):
        raise ValueError(f"the {split} split of {type(data).__name__} has no samples")
    _require_labels(models, data)
    with unnoticed(chain.from_iterable(model.modules for model in adapted)):
        return measured(adapted, batches(loader), measures, max_stored, permutations, f"the {split} split")


def _require_labels(models: Sequence[tuple[str, SoftmaxModel]], data: pl.LightningDataModule) -> None:
    heads = [model.unembeddings() for _, model in models]
    require_comparable([(len(head), head.shape[1]) for head in heads], [name for name, _ in models])
    labels = getattr(data, "num_classes", None)
    for (name, _), head in zip(models, heads, strict=True):
        own = len(head)
        if labels is not None and own != labels:
            raise ValueError(f"model {name!r} has {own} labels, but {type(data).__name__} has {labels}")
