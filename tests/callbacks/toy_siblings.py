"""A tiny softmax model with siblings, data for it and a quiet training, to hold callbacks against."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, Sampler

from likeness.batch import Batch


class Points(Dataset):
    """``size`` points in five dimensions with labels; a whole batch is gathered at once."""

    def __init__(self, size: int, num_classes: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(size, 5, generator=generator)
        self.y = (self.x[:, 0].argsort().argsort() * num_classes).div(size, rounding_mode="floor")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Batch:
        return Batch(self.x[index], self.y[index], index)


class InTurns(Sampler):
    """Batches of samples rank, rank + world, ...: each sample once, however uneven the ranks."""

    def __init__(self, size: int, batch_size: int, rank: int = 0, world: int = 1) -> None:
        self.batches = torch.arange(rank, size, world).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class ToyData(pl.LightningDataModule):
    def __init__(self, size: int = 40, eval_size: int = 30, eval_batch_size: int = 16, num_classes: int = 4) -> None:
        super().__init__()
        self.train, self.val = Points(size, num_classes), Points(eval_size, num_classes, seed=1)
        self.eval_batch_size = eval_batch_size

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, 10)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val, self.eval_batch_size)

    def _loader(self, points: Points, batch_size: int) -> DataLoader:
        sampler = InTurns(len(points), batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(points, sampler=sampler, batch_size=None, generator=torch.Generator())


class ToySiblings(pl.LightningModule):
    """``members`` linear classifiers side by side; ``members=0`` is a single model without that dimension."""

    def __init__(
        self,
        members: int = 3,
        dim: int = 2,
        num_classes: int = 4,
        seed: int = 0,
        bias: bool = False,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        lead = (members,) if members else ()
        self.f = nn.Parameter(torch.randn(*lead, 5, dim, generator=generator))
        self.g = nn.Parameter(torch.randn(*lead, num_classes, dim + bias, generator=generator))
        self.dropout = nn.Dropout(0.5)
        self.bias = bias
        self.learning_rate = learning_rate

    def embed(self, x: Tensor) -> Tensor:
        f = self.dropout(x) @ self.f
        return torch.cat([f, torch.ones_like(f[..., :1])], dim=-1) if self.bias else f

    def unembeddings(self) -> Tensor:
        return self.g

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.embed(batch.x) @ self.unembeddings().mT
        return cross_entropy(
            logits.reshape(-1, logits.shape[-1]), batch.y.repeat(logits.numel() // logits.shape[-1] // len(batch.y))
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


def trainer(folder: Path, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    """One that writes nothing of its own."""
    defaults = {"max_epochs": 2, "logger": False, "num_sanity_val_steps": 1, "log_every_n_steps": 1}
    return pl.Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        accelerator="cpu",
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **(defaults | options),
    )


def fit(folder: Path, *callbacks: pl.Callback, model: Any = None, data: Any = None, **options: Any) -> pl.Trainer:
    """Train with these callbacks, under a fixed seed."""
    run = trainer(folder, *callbacks, **options)
    torch.manual_seed(0)
    run.fit(model or ToySiblings(), datamodule=data or ToyData())
    return run


def save_checkpoint(model: pl.LightningModule, path: Path) -> None:
    """Write the checkpoint that a training of this model would."""
    saver = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    saver.strategy.connect(model)
    saver.save_checkpoint(path)
