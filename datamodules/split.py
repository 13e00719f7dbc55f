"""One split of a dataset: what every kind answers, and the kind that is held as tensors with its checks."""

from abc import abstractmethod
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.errors import DataError
from likeness.batch import Batch
from likeness.seeding import generator

SplitName = Literal["train", "val", "test"]
_HELD_OUT = 0x5EED


class Split(Dataset[Any]):
    """Samples 0 to len - 1; indexing with ids [B] gathers a whole batch of them, a named tuple that carries the ids."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, ids: Tensor) -> Any: ...


class TensorSplit(Split):
    """Inputs and labels of one split, gathered a whole batch at a time.

    x: [N, ...] as stored; y: [N] int64. ``rows`` [n], where given, are the samples that belong to the split, so that
    two splits can share one (memory-mapped) tensor. Indexing with ids [B] gives a Batch of the samples at these
    positions of the split.
    """

    def __init__(self, x: Tensor, y: Tensor, rows: Tensor | None = None) -> None:
        self.x = x
        self.y = y
        self.rows = rows

    def __len__(self) -> int:
        return len(self.x if self.rows is None else self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        ids = ids.to(self.y.device)
        rows = ids if self.rows is None else self.rows[ids]
        return Batch(self.x[rows], self.y[rows], ids)

    def to(self, device: torch.device | str) -> Self:
        """The same split on ``device``, with no more than its own samples there."""
        if self.y.device == torch.device(device):
            return self
        if self.rows is None:
            return type(self)(self.x.to(device), self.y.to(device))
        return type(self)(self.x[self.rows].to(device), self.y[self.rows].to(device))


def held_out(num_samples: int, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of the training samples are trained on, and which ``val_size`` are kept for validation; both sorted.

    Raises ValueError where nothing would be left to train on.
    """
    if not 0 < val_size < num_samples:
        raise ValueError(f"val_size must be between 1 and {num_samples - 1} here, got {val_size}")
    order = torch.randperm(num_samples, generator=generator(seed, _HELD_OUT))
    return order[val_size:].sort().values, order[:val_size].sort().values


def check_split(name: str, split: TensorSplit, num_classes: int) -> None:
    """Raise DataError for an empty split, a NaN or infinite input, or a label that is no class.

    Names the split and the id of the first sample that is wrong.
    """
    if len(split) == 0:
        raise DataError(f"the {name} split is empty")
    y = split.y if split.rows is None else split.y[split.rows]
    wrong = (y < 0) | (y >= num_classes)
    if wrong.any():
        id_ = int(wrong.nonzero()[0])
        raise DataError(f"{name} sample {id_} has label {int(y[id_])}, expected 0 to {num_classes - 1}")
    if split.x.is_floating_point():
        x = split.x if split.rows is None else split.x[split.rows]
        finite = x.flatten(1).isfinite().all(1)
        if not finite.all():
            id_ = int((~finite).nonzero()[0])
            raise DataError(f"{name} sample {id_} has an input that is not finite: {_first_bad(x[id_])}")


def _first_bad(sample: Tensor) -> float:
    return float(sample[~sample.isfinite()][0])
