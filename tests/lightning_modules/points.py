"""A tiny datamodule, and trainers that leave nothing behind."""

from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit


class Points(TensorDataModule):
    """Gaussian points in the plane with three labels: the sector they lie in."""

    input_shape = (2,)
    num_classes = 3
    dataset_name = "points"
    sizes = {"train": 80, "val": 21, "test": 17}  # noqa: RUF012

    def __init__(self, batch_size: int = 16, eval_batch_size: int = 5, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)

    def load(self, split: SplitName) -> TensorSplit:
        x = torch.randn(self.sizes[split], 2, generator=torch.Generator().manual_seed(self.sizes[split]))
        sector = (torch.atan2(x[:, 1], x[:, 0]) / (2 * torch.pi / 3)).floor().long() % 3
        return TensorSplit(3 * x, sector)


def trainer(**kwargs: Any) -> pl.Trainer:
    """A quiet trainer on the CPU that writes nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "use_distributed_sampler": False}
    return pl.Trainer(**{"num_sanity_val_steps": 0} | quiet | defaults | kwargs)


def save(module: pl.LightningModule, path: Any) -> None:
    """A checkpoint of ``module`` as Lightning writes it."""
    saver = trainer()
    saver.strategy.connect(module)
    saver.save_checkpoint(path)
