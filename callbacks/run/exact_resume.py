"""What Lightning leaves out of a checkpoint and a continued run needs: the log's open row, and the new settings."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from callbacks.loggers import RunCSVLogger, RunWandbLogger

OPEN_ROW = "open_log_row"


class ExactResume(Callback):
    """Makes ``metrics.csv`` and W&B continue without loss or repetition, and lets changed optimiser settings win.

    A checkpoint written at the end of a batch comes before Lightning has logged that batch; its metrics are taken
    along here. A restored optimiser brings its old learning rate along; where the configuration now asks for
    another value, that value is used and said so.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            for logger in _run_loggers(trainer):
                logger.begin(TrainerFn(stage).value)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.strategy.restore_checkpoint_after_setup:
            _begin_unless_resumed(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.strategy.restore_checkpoint_after_setup:  # only now it is known whether there was a checkpoint
            _begin_unless_resumed(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        row = _unlogged_metrics(trainer)
        for logger in _csv_loggers(trainer):
            if row:  # logged now, the row before it is in the file before this checkpoint continues behind it
                logger.log_metrics(row, int(row["step"]))
            row |= logger.state()
        checkpoint[OPEN_ROW] = row

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        open_row = checkpoint.get(OPEN_ROW, {})
        for logger in _csv_loggers(trainer):
            logger.resume(open_row, checkpoint["global_step"])
        _resume_wandb(trainer, open_row)
        _apply_changed_optimizer_settings(pl_module, checkpoint)


def _begin_unless_resumed(trainer: pl.Trainer) -> None:
    if trainer.ckpt_path is None:  # with one, on_load_checkpoint has continued the file already
        for logger in _run_loggers(trainer):
            logger.begin("fit")


def _run_loggers(trainer: pl.Trainer) -> list[RunCSVLogger | RunWandbLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger | RunWandbLogger)]


def _csv_loggers(trainer: pl.Trainer) -> list[RunCSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]


def _resume_wandb(trainer: pl.Trainer, open_row: dict[str, Any]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, RunWandbLogger) and trainer.is_global_zero:
            histories = [file.history() for file in _csv_loggers(trainer)]
            logger.resume(histories[0] if histories else [open_row] if open_row else [])


def _unlogged_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """The finished batch's metrics, when the checkpoint is written before Lightning logs them."""
    epoch_loop = trainer.fit_loop.epoch_loop
    progress = epoch_loop.batch_progress.current
    connector = trainer._logger_connector
    if not trainer.training or progress.ready == progress.completed or not connector.should_update_logs:
        return {}
    assert trainer._results is not None
    metrics = trainer._results.metrics(on_step=True)["log"]
    values = {key: float(value) for key, value in metrics.items()}
    return values | {"epoch": trainer.current_epoch, "step": epoch_loop._batches_that_stepped} if values else {}


def _apply_changed_optimizer_settings(pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
    saved = _settings(checkpoint.get("hyper_parameters", {}).get("optimizer"))
    asked = _settings(pl_module.hparams.get("optimizer"))
    for key in sorted(saved.keys() & asked.keys()):
        if saved[key] == asked[key]:
            continue
        rank_zero_info(f"optimizer.{key}: {saved[key]} in the checkpoint, {asked[key]} asked for and used")
        for optimizer in checkpoint.get("optimizer_states", []):
            for group in optimizer["param_groups"]:
                _set(group, key, saved[key], asked[key])
        for scheduler in checkpoint.get("lr_schedulers", []) if key == "lr" else []:
            scheduler["base_lrs"] = [asked[key] for _ in scheduler.get("base_lrs", [])]


def _set(group: dict[str, Any], key: str, saved: Any, asked: Any) -> None:
    if key != "lr" or group["lr"] == saved:
        group[key] = asked
    else:
        group["lr"] *= asked / saved  # a schedule has moved it: keep the schedule's factor
    if key == "lr" and "initial_lr" in group:
        group["initial_lr"] = asked


def _settings(optimizer: Any) -> dict[str, Any]:
    return dict(optimizer.get("init_args", {})) if isinstance(optimizer, dict) else {}
