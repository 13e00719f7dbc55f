"""What callbacks that measure softmax models at validation share: the cadence, the metric and the clock."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric

from callbacks.validation_pass import EMBEDDING, Seen, ValidationPass
from likeness.checks import require_positive
from likeness.protocols import SoftmaxModel

M = TypeVar("M", bound=Metric)


class MeasureAtValidation(pl.Callback, ABC, Generic[M]):
    """Feeds a metric at every n-th validation and logs what it says, with the seconds that this took.

    Representations come from the validation pass itself; see :class:`~callbacks.validation_pass.ValidationPass`.

    What is measured are the weights that validation uses: with an EMA callback, the averages. Only the first
    validation loader is read, and nothing before training is (the sanity check).
    """

    prefix: ClassVar[str]  # of the keys that are logged

    def __init__(self, every_n_validations: int, layers: Sequence[str] = (EMBEDDING,), head: str | None = None) -> None:
        super().__init__()
        require_positive(every_n_validations=every_n_validations)
        self.every_n_validations = every_n_validations
        self.looking = ValidationPass(layers, head)
        self.values: dict[str, Tensor] = {}  # what was measured last, by name
        self._metric: M | None = None
        self._validations = 0
        self._measuring = False
        self._seconds = 0.0

    @abstractmethod
    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> M:
        """The empty metric, once everything that would make a measurement impossible is ruled out."""

    @abstractmethod
    def _update(self, metric: M, pl_module: pl.LightningModule, seen: Seen) -> None:
        """Add a batch."""

    @abstractmethod
    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        """What is logged of ``values``, by key without the prefix; tables and figures are written here too."""

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = state_dict["validations"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.looking.head is None and not isinstance(pl_module, SoftmaxModel):
            raise ValueError(
                f"{type(self).__name__} measures softmax models, with embed() and unembeddings(); "
                f"{type(pl_module).__name__} is none: name its last linear layer, head=..."
            )
        self.looking.require(self, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            rank_zero_warn(f"{type(self).__name__} measures at validation, but this training has none")
        self._metric = self._metric_on_device(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measuring = False  # a validation before this training may have left it true
        if trainer.sanity_checking:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._validations += fitting
        self._measuring = not fitting or self._validations % self.every_n_validations == 0
        if self._measuring:
            self._metric = self._metric or self._metric_on_device(trainer, pl_module)
            self._metric.reset()
            self.looking.restart()
            self._seconds = 0.0

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._measuring and dataloader_idx == 0:
            self.looking.begin(pl_module)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._measuring and dataloader_idx == 0:
            assert self._metric is not None
            with self._clock(), torch.no_grad():
                self._update(self._metric, pl_module, self.looking.end(trainer, pl_module, outputs, batch))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.looking.stop()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._measuring:
            return
        assert self._metric is not None
        with self._clock():
            self.values = {name: values.cpu() for name, values in self._metric.compute().items()}
            summaries = self._summarise(trainer)
        for key, value in {**summaries, "seconds": self._seconds}.items():
            pl_module.log(f"{self.prefix}/{key}", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _metric_on_device(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> M:
        with torch.no_grad():
            metric = self._new_metric(trainer, pl_module)
        return metric if pl_module.device.type == "mps" else metric.to(pl_module.device)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start


def members(tensor: Tensor) -> Tensor:
    """[P, N, M] of siblings, also where [N, M] is one model's."""
    return tensor if tensor.ndim == 3 else tensor.unsqueeze(0)


def may_write(trainer: pl.Trainer) -> bool:
    """Whether this process writes files: a fast_dev_run claims no run directory, whose files it would replace."""
    return trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
