"""The few samples on which a diffusion model is looked at: the same at every look, in every run."""

from collections.abc import Iterator
from typing import Any

import torch

from likeness.batch import Batch
from likeness.diffusion.noisy_batch import NoisyBatch, noisy_batches
from likeness.protocols import Diffuser

PART = 128  # samples that pass through the networks at once


def first_samples(loader: Any, size: int, device: torch.device) -> Batch:
    """The first ``size`` samples of the loader's data set, or all where it has fewer."""
    dataset = _dataset(loader)
    return _gather(dataset, torch.arange(min(size, len(dataset))), device)


def spread_samples(loader: Any, size: int, device: torch.device) -> Batch:
    """``size`` samples evenly spread over the loader's data set, or all where it has fewer; numbered from 0."""
    dataset = _dataset(loader)
    size = min(size, len(dataset))
    batch = _gather(dataset, torch.arange(size) * len(dataset) // size, device)
    return batch._replace(id=torch.arange(size, device=device))  # consecutive ids spread times most evenly


def rows(batch: Batch, start: int, step: int = 1) -> Batch:
    """Every ``step``-th sample from ``start`` on: a rank's share."""
    return Batch(*(part[start::step] for part in batch))


def with_noise(module: Diffuser, batch: Batch, draw: int = 0) -> Iterator[NoisyBatch]:
    """The samples in parts that fit into memory, with the noise with which their ids are evaluated in this draw."""
    labels = batch.y if module.class_conditional else None
    return noisy_batches(module.diffusion, batch.x, batch.id, labels, module.seed, draw, PART)


def _dataset(loader: Any) -> Any:
    loader = loader[0] if isinstance(loader, list | tuple) else loader
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__"):
        raise ValueError(f"samples are taken from a data set by their ids, {type(loader).__name__} has none")
    return dataset


def _gather(dataset: Any, ids: torch.Tensor, device: torch.device) -> Batch:
    return Batch(*(part.to(device) for part in dataset[ids]))
