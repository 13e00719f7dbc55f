"""Labels as they are written in the data, and the classes that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from datamodules.own.samples import Source
from likeness.files.errors import DataError
from likeness.files.text_files import label_texts, ordered_labels

_SHOWN = 20  # names, in a message


def coded(labels: Sequence[Any] | np.ndarray, place: Callable[[int], str]) -> tuple[Tensor, tuple[str, ...]]:
    """The distinct labels as texts, and the number [N] int64 of each sample's; ``place`` says where a row stands.

    Raises DataError for a label that is missing, or neither a text nor a number.
    """
    if isinstance(labels, np.ndarray):
        if labels.ndim != 1:
            labels = _one_a_row(labels, place)
        values, first, codes = np.unique(labels, return_index=True, return_inverse=True)
        return torch.from_numpy(codes.astype(np.int64)), tuple(
            label_texts(values.tolist(), lambda row: place(int(first[row])))
        )
    texts = label_texts(labels, place)
    numbers = {name: number for number, name in enumerate(ordered_labels(texts))}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.long), tuple(numbers)


def _one_a_row(labels: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    if labels.ndim != 2 or labels.shape[1] != 1:
        what = f"{list(labels.shape)}: one label a sample is expected, not scores or a one-hot code"
        raise DataError(f"{place(0) if len(labels) else 'the labels'}: labels are {what}")
    return labels[:, 0]


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """The distinct labels in the order of the classes: numbers as numbers, other names by the alphabet.

    Says so where whole numbers are not their own classes.
    """
    names = tuple(ordered_labels(labels))
    if names != tuple(map(str, range(len(names)))) and all(name.lstrip("-").isdigit() for name in names):
        rank_zero_info(f"labels {_listed(names)} are the classes 0 to {len(names) - 1}: see class_names")
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def classes(source: Source, names: Sequence[str]) -> Tensor:
    """The class [N] int64 of each sample, zeros without labels. Raises DataError for a label that is no class."""
    if source.codes is None:
        return torch.zeros(len(source), dtype=torch.long)
    numbers = {name: number for number, name in enumerate(names)}
    of_code = torch.tensor([numbers.get(name, -1) for name in source.names], dtype=torch.long)
    y = of_code[source.codes]
    if (wrong := (y < 0).nonzero()).numel():
        row = int(wrong[0, 0])
        label = source.names[int(source.codes[row])]
        raise DataError(f"{source.place(row)}: label {label!r} is none of the {len(names)} classes {_listed(names)}")
    return y
