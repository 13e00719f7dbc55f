"""The rest of a continued run's state, which Lightning leaves out: the log's open row, settings, paths, early stops."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Timer
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from callbacks.loggers import ContinuedLogger, RunCSVLogger, RunWandbLogger
from callbacks.run.run_files import IN_RUN, absolute_paths, relative_paths

OPEN_ROW = "open_log_row"
STOPPED = "stopped_early"
OPTIMIZER, OWN_RATE = "optimizer.", "_lr"  # how settings of the optimiser begin, and how rates of a part's own end
RATES = (f"{OPTIMIZER}lr", OWN_RATE)
Groups = list[dict[str, Any]]  # of parameters, with the settings of each
NOT_STOPPED = EarlyStoppingReason.NOT_STOPPED.value


class ExactResume(Callback):
    """Makes ``metrics.csv`` and the loggers beside it go on without loss or repetition; changed optimiser settings win.

    A checkpoint written at the end of a batch comes before Lightning has logged that batch; its metrics are taken
    along here. A restored optimiser brings its old learning rate along; where the configuration now asks for
    another value, that value is used, for the parameters that it is asked for, and said so. Paths into the run
    directory in the states of callbacks, as ModelCheckpoint's best checkpoints, are kept relative to it: a run may be
    moved. A run that a callback ended early stays ended, unless ``stays_stopped`` is taken back.
    """

    def __init__(self) -> None:
        self.stays_stopped = True
        self._asked: list[Groups] = []  # of the optimisers as the configuration has them
        self._loaded: dict[str, Any] | None = None  # from when the checkpoint is read to when there are optimisers

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            for logger in _run_loggers(trainer):
                logger.begin(TrainerFn(stage).value)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.strategy.restore_checkpoint_after_setup:
            _begin_unless_resumed(trainer)
        self._asked = [[dict(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        if self._loaded is not None:
            restored = [state["param_groups"] for state in self._loaded.get("optimizer_states", [])]
            self._use_what_changed(trainer, pl_module, self._loaded, restored)
            self._loaded = None

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
        checkpoint[STOPPED] = _is_stopped(trainer)
        checkpoint["callbacks"] = relative_paths(checkpoint["callbacks"], trainer.default_root_dir)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = _relative_to_where_they_were(checkpoint.get("callbacks", {}))
        checkpoint["callbacks"] = absolute_paths(states, trainer.default_root_dir)
        if trainer.state.fn != "fit":
            return
        trainer.should_stop = self.stays_stopped and stopped_early(checkpoint)
        open_row = checkpoint.get(OPEN_ROW, {})
        for logger in _csv_loggers(trainer):
            logger.resume(open_row, checkpoint["global_step"])
        _resume_others(trainer, open_row, checkpoint["global_step"])
        if trainer.strategy.restore_checkpoint_after_setup:  # what it had of optimisers is in them by now
            restored = [optimizer.param_groups for optimizer in trainer.optimizers]
            self._use_what_changed(trainer, pl_module, checkpoint, restored)
        else:
            self._loaded = checkpoint

    def _use_what_changed(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any], restored: list[Groups]
    ) -> None:
        """Put what is asked for now in the place of what the checkpoint's optimisers have, where that was changed."""
        saved, asked = _settings(checkpoint.get("hyper_parameters", {})), _settings(pl_module.hparams)
        changed = sorted(name for name in saved.keys() & asked.keys() if saved[name] != asked[name])
        for name in changed:
            rank_zero_info(f"{name}: {saved[name]} in the checkpoint, {asked[name]} asked for and used")
        rates = {asked[name]: saved[name] for name in changed if name.endswith(RATES)}
        keys = {name.removeprefix(OPTIMIZER) for name in changed if not name.endswith(RATES)}
        for groups, own_groups in zip(restored, self._asked, strict=False):
            for group, own in zip(groups, own_groups, strict=False):  # else Lightning says what does not fit
                group |= {key: own[key] for key in keys & own.keys()}
                if rates:
                    _change_rate(group, own, rates)
        for state, config in zip(checkpoint.get("lr_schedulers", []), trainer.lr_scheduler_configs, strict=False):
            if rates and "base_lrs" in state:
                state["base_lrs"] = [*config.scheduler.base_lrs]


def stopped_early(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a callback had ended training when the checkpoint was written; the end of ``max_time`` does not count."""
    states = (state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, Mapping))
    # Checkpoints from before this was kept have it from EarlyStopping.
    by_state = any(state.get("stopping_reason", NOT_STOPPED) != NOT_STOPPED for state in states)
    return bool(checkpoint.get(STOPPED, by_state))


def _is_stopped(trainer: pl.Trainer) -> bool:
    attached: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by its connector
    timers = [callback for callback in attached if isinstance(callback, Timer)]
    out_of_time = any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)
    return trainer.should_stop and trainer.fit_loop._can_stop_early and not out_of_time


def _relative_to_where_they_were(states: dict[str, Any]) -> dict[str, Any]:
    """States of a checkpoint from before paths were kept relative: the last checkpoint's folder tells of the run's."""
    dirpath = states.get("LastCheckpoint", {}).get("dirpath") or ""
    return relative_paths(states, str(Path(dirpath).parent)) if dirpath and not dirpath.startswith(IN_RUN) else states


def _begin_unless_resumed(trainer: pl.Trainer) -> None:
    if trainer.ckpt_path is None:  # with one, on_load_checkpoint has continued the file already
        for logger in _run_loggers(trainer):
            logger.begin("fit")


def _run_loggers(trainer: pl.Trainer) -> list[RunCSVLogger | RunWandbLogger | ContinuedLogger]:
    kinds = RunCSVLogger | RunWandbLogger | ContinuedLogger
    return [logger for logger in trainer.loggers if isinstance(logger, kinds)]


def _csv_loggers(trainer: pl.Trainer) -> list[RunCSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, RunCSVLogger)]


def _resume_others(trainer: pl.Trainer, open_row: dict[str, Any], global_step: int) -> None:
    others = [logger for logger in _run_loggers(trainer) if not isinstance(logger, RunCSVLogger)]
    if not others or not trainer.is_global_zero:
        return
    histories = [file.history() for file in _csv_loggers(trainer)]
    history = histories[0] if histories else [open_row] if open_row else []
    for logger in others:
        if isinstance(logger, ContinuedLogger):
            logger.resume(history, global_step)
        else:
            logger.resume(history)


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


def _change_rate(group: dict[str, Any], own: dict[str, Any], rates: Mapping[float, float]) -> None:
    """Let a group have begun with the rate that ``own`` asks for; what a schedule made of its rate keeps its factor.

    Schedules note with what a group began; of a group without such a note ``rates`` says it, by the rate asked for.
    """
    now = own.get("initial_lr", own["lr"])
    before = group.get("initial_lr", rates.get(now, now))
    if before != now:
        group["lr"] = now if before in (None, 0, group["lr"]) else group["lr"] * now / before
    if "initial_lr" in group:
        group["initial_lr"] = now


def _settings(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """What the hyper-parameters say of the optimiser, and the learning rates that parts of the model have of their own.

    As ``optimizer.lr``, ..., and ``ratio_lr``, ...
    """
    optimizer = hparams.get("optimizer")
    options = optimizer.get("init_args", {}) if isinstance(optimizer, Mapping) else {}
    rates = {name: value for name, value in hparams.items() if name.endswith(OWN_RATE)}
    return {f"{OPTIMIZER}{name}": value for name, value in options.items()} | rates
