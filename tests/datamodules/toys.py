"""A tiny datamodule and a module that only remembers which samples it was given."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit
from likeness.batch import Batch


class Numbers(TensorDataModule):
    """Sample i of a split is the point (i, -i) with label i mod 3."""

    input_shape = (2,)
    num_classes = 3
    dataset_name = "numbers"

    def __init__(self, sizes: tuple[int, int, int] = (23, 11, 7), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sizes = dict(zip(("train", "val", "test"), sizes, strict=True))

    def load(self, split: SplitName) -> TensorSplit:
        ids = torch.arange(self.sizes[split])
        return TensorSplit(torch.stack([ids, -ids], 1).float(), ids % 3)


class Recorder(pl.LightningModule):
    """Keeps the ids of every training batch, and of every evaluated one."""

    def __init__(self, order_seeds: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.order_seeds = order_seeds
        self.trained: list[list[int]] = []
        self.evaluated: list[int] = []
        self.inputs: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.trained.append(batch.id.tolist())
        self.inputs.append(batch.x)
        return self.weight * batch.x.float().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluated += batch.id.tolist()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluated += batch.id.tolist()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return batch.id

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Save(Callback):
    """Writes a checkpoint when ``hook`` is reached at step ``step``."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.step, self.path = step, path
        setattr(self, hook, self._save)

    def _save(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path, weights_only=False)


def trainer(**kwargs: Any) -> pl.Trainer:
    """A trainer on the CPU that writes and shows nothing."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    usual = {"accelerator": "cpu", "num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return pl.Trainer(**quiet | usual | kwargs)


def flat(lists: Iterable[list[int]]) -> list[int]:
    """The elements of all the lists, in order."""
    return list(chain.from_iterable(lists))
