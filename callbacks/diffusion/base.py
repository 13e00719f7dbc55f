"""The base of callbacks that look at a diffusion model while it trains: when they look, on what, and unnoticed.

The few samples that they look at are the same at every look, in every run.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng

from likeness.batch import Batch
from likeness.checks import require_positive
from likeness.diffusion.diagnostics.by_depth import NoisyBatch, noisy_batches
from likeness.protocols import Diffuser

PART = 128  # samples that pass through the networks at once


class DiffusionDiagnostic(pl.Callback, ABC):
    """Looks at the model at every n-th validation of a training, and when training ends.

    What is seen are the weights that validation uses: with an EMA callback, the averages. Modes of layers, gradients
    and random numbers are left as they are. The seconds that it took are logged.
    """

    prefix: ClassVar[str]  # of the keys that are logged
    looks_at_end: ClassVar[bool] = True

    def __init__(self, every_n_validations: int | None) -> None:
        super().__init__()
        require_positive(every_n_validations=every_n_validations)
        self.every_n_validations = every_n_validations
        self._validations = 0
        self._due = False
        self._looked_at_step = -1
        self._seconds = 0.0

    @abstractmethod
    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        """Called on all ranks, in evaluation mode and without gradients; ``final`` when training has ended."""

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_diffuser(self, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            rank_zero_warn(f"{type(self).__name__} looks at validation, but this training has none")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        self._validations += fitting
        cadence = self.every_n_validations
        self._due = fitting and cadence is not None and self._validations % cadence == 0

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        # Here, for an EMA callback exchanges the weights just before the first batch and just after the last.
        if self._due and batch_idx == 0 and dataloader_idx == 0:
            self._look_unnoticed(trainer, pl_module, final=False)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._seconds and not trainer.sanity_checking:
            self._log_at_validation(pl_module, {"seconds": self._seconds})
            self._seconds = 0.0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fast = getattr(trainer, "fast_dev_run", False) or not trainer.enable_validation
        if self.looks_at_end and not fast and self._looked_at_step != trainer.global_step:
            with averaged_weights(trainer, pl_module):
                self._look_unnoticed(trainer, pl_module, final=True)
            for logger in trainer.loggers:  # the module's own log is closed by now; the row is that of the last batch
                logger.log_metrics({f"{self.prefix}/seconds": self._seconds}, step=trainer.global_step - 1)
            self._seconds = 0.0

    def _look_unnoticed(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, final: bool) -> None:
        self._looked_at_step = trainer.global_step
        with self._clock(), evaluating(pl_module), isolate_rng(), trainer.precision_plugin.forward_context():
            self._look(trainer, cast(Diffuser, pl_module), final=final)

    def _log_at_validation(self, pl_module: pl.LightningModule, values: dict[str, Any]) -> None:
        for key, value in values.items():
            name = f"{self.prefix}/{key}"
            pl_module.log(name, value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start


def require_diffuser(callback: pl.Callback, pl_module: pl.LightningModule) -> None:
    """Raise ValueError, naming both, for a module that trains no diffusion model."""
    if not isinstance(pl_module, Diffuser):
        wanted, got = type(callback).__name__, type(pl_module).__name__
        raise ValueError(f"{wanted} looks at diffusion models (likeness.protocols.Diffuser); {got} is none")


@contextmanager
def averaged_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Outside validation the weights that validation would use.

    By the hooks with which weight averaging exchanges them. After training, where it has put the averages in place
    for good, both sides are equal and the exchange changes nothing: the order of callbacks does not matter.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    averages = [callback for callback in callbacks if isinstance(callback, WeightAveraging)]
    for callback in averages:
        callback.on_validation_epoch_start(trainer, pl_module)
    try:
        yield
    finally:
        for callback in averages:
            callback.on_validation_epoch_end(trainer, pl_module)


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards each layer is in the mode that it was in."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


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
