"""A split of a datamodule as commands evaluate it: every sample once, in its own order, train included."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytorch_lightning as pl
import torch

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit
from likeness.batch import Batch
from likeness.checks import require_positive
from likeness.progress import tracked
from scripts.reporting import Row


@dataclass(frozen=True)
class EvaluatedSplit:
    """The first ``size`` samples of a split; nothing is shuffled, augmented or dropped."""

    data: TensorDataModule
    name: SplitName
    split: TensorSplit
    size: int
    batch_size: int
    device: torch.device

    def __str__(self) -> str:
        of = "all" if self.size == len(self.split) else f"the first {self.size} of the"
        return f"{of} {len(self.split)} samples of the {self.name} split of {self.data.dataset_name}"

    def about(self) -> Row:
        """For a table: what it is evaluated on."""
        return {"data": self.data.dataset_name, "split": self.name, "samples": self.size}

    def batches(self, description: str) -> Iterator[Batch]:
        """Batches on the device, with a progress bar of this name on a terminal."""
        for ids in tracked(torch.arange(self.size).split(self.batch_size), description):
            yield Batch(*(tensor.to(self.device) for tensor in self.split[ids]))


def open_split(
    data: pl.LightningDataModule,
    name: SplitName,
    device: torch.device,
    batch_size: int | None = None,
    limit: int | None = None,
) -> EvaluatedSplit:
    """A split, ready to be read; ``batch_size`` is the datamodule's own where None, ``limit`` the most samples.

    Raises ValueError for sizes below 1, and for a datamodule whose splits are not tensors.
    """
    require_positive(batch_size=batch_size, limit=limit)
    if not isinstance(data, TensorDataModule):
        raise ValueError(f"{type(data).__name__} does not hold its splits as tensors")
    data.prepare_data()
    data.setup("test" if name == "test" else "fit")
    split = data.splits[name]
    size = len(split) if limit is None else min(limit, len(split))
    return EvaluatedSplit(data, name, split, size, batch_size or data.eval_batch_size, device)
