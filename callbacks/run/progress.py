"""The progress bar of a run: Lightning's rich bar, with the time left for the whole run beside the epoch's."""

import time
from datetime import timedelta

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar


class RunProgressBar(RichProgressBar):
    """Adds ``left``: the time until the last step at the pace since this start, validation included."""

    _start: tuple[float, int] = (0.0, 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start = (time.monotonic(), trainer.global_step)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        if (left := self._seconds_left(trainer)) is not None:
            metrics["left"] = str(timedelta(seconds=round(left)))
        return metrics

    def _seconds_left(self, trainer: pl.Trainer) -> float | None:
        started, first_step = self._start
        done = trainer.global_step - first_step
        if not trainer.training or done < 1 or (total := trainer.estimated_stepping_batches) == float("inf"):
            return None
        return (time.monotonic() - started) / done * max(total - trainer.global_step, 0)
