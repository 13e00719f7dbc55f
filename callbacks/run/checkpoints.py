"""The files that a run keeps of its model: checkpoints, whole or not there, and at its end the weights alone."""

import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import Tensor

from callbacks.measure_at_validation import may_write
from callbacks.run.run_files import note
from lightning_modules.checkpoint_files import (
    LAST,
    PREVIOUS,
    WEIGHTS,
    HashingFile,
    damage,
    read_checkpoint,
    read_weights,
    save_weights,
)


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` in the run directory, the file that ``--ckpt_path last`` continues from.

    A checkpoint waits for what belongs to its batch: the rest of an accumulated gradient, a validation, the end of
    the epoch. A run continued from the moment before would leave them out, for Lightning takes them as done. Who
    sets ``due`` gets one at the next moment that nothing is left out of.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
    ) -> None:
        """At most one of the three says how often; without any, once an epoch (after its validation)."""
        if every_n_train_steps is None and train_time_interval is None:
            every_n_epochs = every_n_epochs or 1
        super().__init__(
            filename="last",
            every_n_epochs=every_n_epochs,
            every_n_train_steps=every_n_train_steps,
            train_time_interval=train_time_interval,
            save_on_train_epoch_end=every_n_epochs is not None,
            enable_version_counter=False,
        )
        self.due = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = os.path.join(os.path.realpath(trainer.default_root_dir), "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._every_n_train_steps or self._train_time_interval is not None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.due |= _ends(trainer)
        if not _more_belongs_to_batch(trainer):
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not _epoch_is_complete(trainer):
            self.due |= _ends(trainer)
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning counts an epoch that max_steps or max_time cut short as done; a checkpoint of that moment
        # would continue with the next epoch. The one from the end of the last batch continues where it stopped.
        if not _epoch_is_complete(trainer):
            return
        super().on_train_epoch_end(trainer, pl_module)
        self.due |= _ends(trainer)
        self._save_if_due(trainer)

    def _save_topk_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, Any]) -> None:
        self.due = True  # Lightning's answer to how often; the hooks above know when

    def _save_if_due(self, trainer: pl.Trainer) -> None:
        due, self.due = self.due, False
        if due and not self._should_skip_saving_checkpoint(trainer):
            super()._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    @property
    def state_key(self) -> str:
        """Never the key of a ModelCheckpoint that the user adds, nor dependent on how often this one saves."""
        return type(self).__qualname__

    def _ModelCheckpoint__warn_if_dir_not_empty(self, dirpath: Any) -> None:
        """A run that is continued finds its own checkpoint there."""


def _ends(trainer: pl.Trainer) -> bool:
    """Whether training stops with the batch, or the epoch, that has just been done."""
    last_epoch = trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1
    by_steps = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
    return (by_steps and not trainer.fit_loop._should_accumulate()) or (last_epoch and _epoch_is_complete(trainer))


def _more_belongs_to_batch(trainer: pl.Trainer) -> bool:
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    validates = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
    return validates or loop._should_accumulate() or _epoch_is_complete(trainer)


def _epoch_is_complete(trainer: pl.Trainer) -> bool:
    # ``ready`` counts the batches that were begun; at the end of a batch, and of an epoch, all of them are done.
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush, verify, rename; read only what is whole and cannot execute code.

    Lightning's default builds the file in memory, moves it from TMPDIR (a slow, interruptible copy where that is
    another file system) and hides a PermissionError. What ``last.ckpt`` held before stays as ``previous.ckpt``: if
    a disk damages one of them, the run goes on from the other. So only a file known to be whole becomes
    ``previous.ckpt``: one that this run wrote, or continued from.
    """

    def __init__(self) -> None:
        super().__init__()
        self._whole: Path | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            _write(checkpoint, note(temporary))
            if target.name == LAST and target.exists() and target.resolve() == self._whole:
                os.replace(target, note(target.with_name(PREVIOUS)))
            os.replace(temporary, target)
            note(target)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):  # of a file system that has become read-only
                temporary.unlink(missing_ok=True)
            raise OSError(f"checkpoint {target} could not be written: {error}") from error
        self._remember(target)
        _flush_directory(target.parent)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        path = Path(path)
        if path.suffix == ".safetensors":  # all that an evaluation needs
            return {**read_weights(path), "pytorch-lightning_version": pl.__version__, "callbacks": {}}
        content = read_checkpoint(path)
        self._remember(path)
        return content

    def _remember(self, path: Path) -> None:
        if path.name == LAST:
            self._whole = path.resolve()


def _write(checkpoint: dict[str, Any], path: Path) -> None:
    """The checkpoint with its checksum, on the disk when this returns, and read back."""
    with path.open("wb") as file:
        hashing = HashingFile(file)
        torch.save(_plain(checkpoint), cast(IO[bytes], hashing))
        hashing.seal()
        file.flush()
        os.fsync(file.fileno())
    if reason := damage(path):
        raise OSError(f"read back, {reason}")


def _plain(value: Any) -> Any:
    """The same state with paths as strings, so that it loads with ``weights_only=True``."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value) is dict:
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(entry) for entry in value)
    return value


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ExportWeights(Callback):
    """Writes ``weights.safetensors`` into the run directory when training has ended; of an EMA, the averages.

    Every command that takes a checkpoint takes this file too.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # All ranks take part where they hold shards; a module may keep more than weights, such as a tokenizer.
        weights = trainer.strategy.lightning_module_state_dict()
        content = {"state_dict": _averaged(trainer) or weights}
        pl_module.on_save_checkpoint(content)
        if may_write(trainer):
            save_weights(note(Path(trainer.default_root_dir, WEIGHTS)), content, pl_module.hparams)


def _averaged(trainer: pl.Trainer) -> dict[str, Tensor]:
    """The averages of the weights, empty without any: after a fit of no steps the module itself has not got them."""
    attached: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by its connector
    models = [callback._average_model for callback in attached if isinstance(callback, WeightAveraging)]
    states = models[0].state_dict() if models and models[0] is not None else {}
    return {name.removeprefix("module."): value for name, value in states.items() if name.startswith("module.")}
