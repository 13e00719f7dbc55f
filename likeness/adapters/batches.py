"""Data of any kind as batches: tensors, pairs, dictionaries, loaders, datasets and datamodules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from likeness.batch import Batch
from likeness.neighbours.distances import as_tensor

LABELS = ("labels", "label", "y", "target", "targets")
INPUTS = ("x", "pixel_values", "image", "images", "img", "input", "inputs", "data", "text", "texts", "sentence")
TOKENS = ("input_ids", "inputs_embeds", "input_values", "input_features")  # which a model takes by name
NUMBERS = "biuf"  # kinds of arrays


class DataKindError(TypeError):
    """Data of a kind that is not known, or a batch in which no inputs are found."""


class Inputs(NamedTuple):
    """One batch, whatever it was made of."""

    x: Any  # what the model is called with: a tensor [N, ...], a dictionary, or a list of N
    y: Tensor | None  # [N] int64 class labels
    ids: Tensor  # [N] int64 by which samples are told apart: the batch's own, or their positions in the data
    start: int  # how many samples came before
    size: int  # N
    next_tokens: Tensor | None = None  # [N, T] of contexts x [N, T], -1 where nothing is predicted


def batches(data: Any, batch_size: int = 64) -> Iterator[Inputs]:
    """Batches of data, in their order, each once.

    A tensor or array [N, ...] and a data set of single samples (torch's or Hugging Face's) are divided into batches, of
    which lists of equally many numbers become tensors; a datamodule gives its test split, or its validation split where
    it has no other; all else is an iterable of batches: tensors, (x, y) pairs or longer tuples, dictionaries, named
    tuples with ``x``, ``y`` and ``id``.

    Raises DataKindError for a batch without inputs, and ValueError for data that yield nothing.
    """
    start = 0
    for batch in _iterable(data, batch_size):
        found = as_inputs(batch, start)
        start += found.size
        yield found
    if start == 0:
        raise ValueError(f"the data, a {type(data).__name__}, yield nothing")


def count(data: Any, batch_size: int = 64) -> int | None:
    """How many batches there will be, where that can be told."""
    iterable = _iterable(data, batch_size)
    try:
        return len(iterable) if isinstance(iterable, Sized) else None
    except TypeError:  # of a loader whose data set has no length
        return None


def as_inputs(batch: Any, start: int = 0) -> Inputs:
    """One batch as inputs, labels and ids; ids count from ``start`` where the batch has none."""
    x, y, ids = _parts(batch)
    x = as_tensor(x) if isinstance(x, np.ndarray) and x.dtype.kind in NUMBERS else x
    size = _size(x)
    if y is not None and y.shape != (size,):
        y = None  # targets of another kind
    ids = torch.arange(start, start + size) if ids is None else ids
    next_tokens = batch.y if isinstance(batch, Batch) and batch.y.ndim > 1 else None
    return Inputs(x, y, ids, start, size, next_tokens)


def _iterable(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, np.ndarray) and data.dtype.kind not in NUMBERS:
        raise DataKindError(f"data are an array of {data.dtype.str}, and not of numbers")
    if isinstance(data, Tensor | np.ndarray):
        return [data[start : start + batch_size] for start in range(0, len(data), batch_size)]
    if hasattr(data, "val_dataloader") and hasattr(data, "setup"):
        return _split_of(data)
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, Dataset) or type(data).__module__.startswith("datasets."):
        return _loader(data, batch_size)
    if isinstance(data, str | bytes) or not isinstance(data, Iterable):
        raise DataKindError(f"data are batches, a loader, a data set or a datamodule, got {data!r:.80}")
    return data


def _split_of(datamodule: Any) -> Iterable[Any]:
    """The test split of a datamodule, or the validation split of one that has no test split."""
    from inspect import getattr_static

    datamodule.prepare_data()
    own = getattr_static(type(datamodule), "test_dataloader", None)
    base = next(c for c in type(datamodule).__mro__ if c.__module__.startswith(("pytorch_lightning", "lightning")))
    stage, loader = (
        ("validate", "val_dataloader")
        if own is getattr(base, "test_dataloader", None)
        else (
            "test",
            "test_dataloader",
        )
    )
    datamodule.setup(stage)
    loaders = getattr(datamodule, loader)()
    answer: Iterable[Any] = loaders[0] if isinstance(loaders, list | tuple) else loaders
    return answer


def _loader(data: Any, batch_size: int) -> DataLoader[Any]:
    """Samples in their order; texts and pictures stay in lists."""
    return DataLoader(data, batch_size=batch_size, collate_fn=None if isinstance(data, TensorDataset) else _collate)


def _collate(samples: list[Any]) -> Any:
    from torch.utils.data import default_collate

    if isinstance(samples[0], Mapping):
        return {name: _collate([sample[name] for sample in samples]) for name in samples[0]}
    if isinstance(samples[0], list) and isinstance(_first_entry(samples[0]), int | float):
        return _stacked(samples)
    if isinstance(samples[0], tuple) and not hasattr(samples[0], "_fields"):
        return tuple(_collate(list(part)) for part in zip(*samples, strict=True))
    try:
        return default_collate(samples)
    except TypeError:
        return samples  # pictures, for one


def _first_entry(nested: Any) -> Any:
    while isinstance(nested, list) and nested:
        nested = nested[0]
    return nested


def _stacked(samples: list[list[Any]]) -> Tensor:
    """Lists of numbers as the rows of a tensor [N, ...]; torch's own way makes columns of them."""
    try:
        return torch.tensor(samples)
    except ValueError as error:
        short, long = min(map(len, samples)), max(map(len, samples))
        raise DataKindError(f"samples are lists of {short} and {long} numbers: pad them to one length") from error


def _parts(batch: Any) -> tuple[Any, Any, Any]:
    """Inputs, labels and ids of a batch."""
    if hasattr(batch, "_fields"):
        return batch[0], _labels(getattr(batch, "y", None)), getattr(batch, "id", None)
    if isinstance(batch, Mapping):
        y = next((batch[name] for name in LABELS if name in batch), None)
        if any(name in batch for name in TOKENS):
            return {name: value for name, value in batch.items() if name not in LABELS}, _labels(y), None
        named = [name for name in INPUTS if name in batch]
        if not named:
            raise DataKindError(f"no inputs are found in a batch with the keys {', '.join(map(str, batch))}")
        return batch[named[0]], _labels(y), None
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor | Mapping | list | tuple):
        return batch[0], _labels(batch[1]) if len(batch) > 1 else None, None
    return batch, None, None


def _labels(y: Any) -> Tensor | None:
    if isinstance(y, list) and y and all(isinstance(label, int) for label in y):
        y = torch.tensor(y)
    whole = isinstance(y, Tensor) and not y.is_floating_point() and not y.is_complex() and y.ndim == 1
    return y.long() if whole else None


def _size(x: Any) -> int:
    first: Any = x
    if isinstance(x, Mapping):
        first = next((x[name] for name in TOKENS if name in x), next(iter(x.values()), None))
    rows = isinstance(first, list | tuple) or (isinstance(first, Tensor | np.ndarray) and first.ndim > 0)
    if not rows or not len(first):
        raise DataKindError(f"a batch holds a {type(x).__name__} where its inputs should be")
    return len(first)
