"""A tiny diffusion model with dropout and data for it, to hold callbacks against."""

import csv
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from likeness.batch import Batch
from likeness.diffusion import DiffusionModel, LinearSchedule, NoiseSchedule, TrainableEncoder
from likeness.diffusion.elbo import ElboTerms, bits_per_dim
from likeness.diffusion.process import Noise, evaluation_noise, training_noise
from tests.callbacks.toy_siblings import InTurns
from tests.callbacks.toy_siblings import fit as fit_siblings
from tests.likeness.diffusion.exact_models import Smooth

LEVELS, CLASSES = 4, 2
LIMITS = (-5.0, 4.0)  # of gamma


class WithDropout(Smooth):
    """In training the hidden units are masked."""

    def _hidden(self, x: Tensor, gamma: Tensor, labels: Tensor | None) -> Tensor:
        return nn.functional.dropout(super()._hidden(x, gamma, labels), 0.2, self.training)


class GreyLevels(Dataset):
    """``size`` samples of a shape; a whole batch is gathered at once."""

    def __init__(self, size: int, shape: tuple[int, ...], seed: int) -> None:
        source = torch.Generator().manual_seed(seed)
        self.x = torch.randint(0, LEVELS, (size, *shape), generator=source, dtype=torch.uint8)
        self.y = torch.arange(size) % CLASSES

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Tensor) -> Batch:
        return Batch(self.x[index], self.y[index], index)


class ToyImages(pl.LightningDataModule):
    """Training batches of 10 over all ranks, the validation in uneven batches."""

    def __init__(self, shape: tuple[int, ...] = (1, 3, 2), size: int = 40, eval_size: int = 21) -> None:
        super().__init__()
        self.train, self.val = GreyLevels(size, shape, 0), GreyLevels(eval_size, shape, 1)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, 10 // self.trainer.world_size)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.val, 8)

    def _loader(self, samples: GreyLevels, batch_size: int) -> DataLoader:
        sampler = InTurns(len(samples), batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(samples, sampler=sampler, batch_size=None, generator=torch.Generator())


class ToyDiffuser(pl.LightningModule):
    """What ``likeness.protocols.Diffuser`` promises, and the outputs that callbacks read."""

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 3, 2),
        encoder: Any = None,
        schedule: NoiseSchedule | None = None,
        draws: int = 1,
        class_conditional: bool = False,
        learning_rate: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__()
        dims, labels = int(torch.Size(shape).numel()), CLASSES if class_conditional else 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, inner = WithDropout(dims, num_labels=labels), WithDropout(dims, num_labels=labels)
        mean = TrainableEncoder(inner) if encoder is None else encoder
        noise = LinearSchedule(*LIMITS) if schedule is None else schedule
        self.diffusion = DiffusionModel(network, mean, noise, shape, LEVELS, counter_term=True, **options)
        self.seed, self.draws, self.class_conditional = 5, draws, class_conditional
        self.learning_rate = learning_rate
        self.losses: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        like = torch.empty(batch.x.shape)
        step = self.trainer.fit_loop.total_batch_idx
        noise = training_noise(like, self.seed, step, self.global_rank, self.trainer.world_size)
        terms = self._terms(batch, noise)
        loss = bits_per_dim(terms.total, batch.x[0].numel()).mean()
        self.losses.append(loss.detach())
        detached = ElboTerms(*(term.detach() for term in terms))
        return {"loss": loss, "terms": detached, "t": noise.t, "rate": detached.diffusion}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        like = torch.empty(batch.x.shape)
        noises = [evaluation_noise(like, batch.id, self.seed, draw) for draw in range(self.draws)]
        terms = [self._terms(batch, noise) for noise in noises]
        stacked = ElboTerms(*(torch.stack(term) for term in zip(*terms, strict=True)))
        return {"terms": stacked, "t": torch.stack([noise.t for noise in noises]), "rate": stacked.diffusion}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)

    def _terms(self, batch: Batch, noise: Noise) -> ElboTerms:
        labels = batch.y if self.class_conditional else None
        return self.diffusion.elbo_terms(batch.x, **noise._asdict(), labels=labels)


def fit(folder: Path, *callbacks: pl.Callback, model: Any = None, data: Any = None, **options: Any) -> pl.Trainer:
    """Train with these callbacks, under a fixed seed."""
    return fit_siblings(folder, *callbacks, model=model or ToyDiffuser(), data=data or ToyImages(), **options)


def keep_figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures that would be written, by file name without suffix: to draw one takes half a second."""
    figures: dict[str, Any] = {}

    def keep(figure: Any, folder: Path, name: str) -> list[Path]:
        figures[name] = figure
        return not_drawn(figure, folder, name)

    monkeypatch.setattr("callbacks.run.publishing.save_formats", keep)
    return figures


def not_drawn(figure: Any, folder: Path, name: str) -> list[Path]:
    """In the place of ``save_formats``: empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.{kind}" for kind in ("png", "pdf")]
    for file in files:
        file.touch()
    return files


def table(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table beside the figures."""
    with (folder / "figures" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))
