"""Checkpoints that are whole or not there: the newest ones of a run, written atomically."""

import os
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_modules.checkpoint_file import LAST, PREVIOUS, read_checkpoint
from lightning_modules.checkpoint_seal import HashingFile, damage


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt`` in the run directory, the file that ``--ckpt_path last`` continues from."""

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

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = str(Path(trainer.default_root_dir, "checkpoints"))
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._every_n_train_steps or self._train_time_interval is not None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if _ends(trainer) and not _epoch_is_complete(trainer):
            self._save_unless_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning counts an epoch that max_steps or max_time cut short as done; a checkpoint of that moment
        # would continue with the next epoch. The one from the end of the last batch continues where it stopped.
        if not _epoch_is_complete(trainer):
            return
        super().on_train_epoch_end(trainer, pl_module)
        if _ends(trainer):
            self._save_unless_saved(trainer)

    def _save_unless_saved(self, trainer: pl.Trainer) -> None:
        if self._last_global_step_saved != trainer.global_step and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

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


def _epoch_is_complete(trainer: pl.Trainer) -> bool:
    # ``ready`` counts the batches that were begun; at the end of a batch, and of an epoch, all of them are done.
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the target, flush, verify, rename; read only what is whole and cannot execute code.

    Lightning's default builds the file in memory, moves it from TMPDIR (a slow, interruptible copy where that is
    another file system) and hides a PermissionError. What ``last.ckpt`` held before stays as ``previous.ckpt``: if
    a disk damages one of them, the run goes on from the other.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            _write(checkpoint, temporary)
            if target.name == LAST and target.exists():
                os.replace(target, target.with_name(PREVIOUS))
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:
            raise OSError(f"checkpoint {target} could not be written: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        _flush_directory(target.parent)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))


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
