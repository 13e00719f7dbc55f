"""A callback that stops the clock: one rank, or all of them, waits at a given moment of a run while there is a file."""

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

MOMENTS = ("setup", "sanity check", "step", "validation", "figures", "save", "last batch", "teardown")
MIDDLE, LAST = 13, 29  # steps done before the batch that is meant


class Hold(Callback):
    """Waits at ``moment`` while ``directory`` has a file ``hold``; ``at-<rank>`` then holds the process's number.

    ``rank`` -1 is every rank. The other ranks wait in their next collective operation.
    """

    def __init__(self, directory: str, moment: str, rank: int = -1) -> None:
        self.directory = Path(directory)
        self.moment = moment
        self.rank = rank

    def setup(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        (self.directory / f"pid-{trainer.global_rank}").write_text(str(os.getpid()))
        self._reach("setup", trainer)

    def on_sanity_check_start(self, trainer: pl.Trainer, *args: Any) -> None:
        self._reach("sanity check", trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step in (MIDDLE, LAST):
            self._reach("step" if trainer.global_step == MIDDLE else "last batch", trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking:
            self._reach("validation", trainer)

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking:
            self._reach("figures", trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, *args: Any) -> None:
        self._reach("save", trainer)

    def teardown(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._reach("teardown", trainer)

    def _reach(self, moment: str, trainer: pl.Trainer) -> None:
        if moment != self.moment or self.rank not in (-1, trainer.global_rank):
            return
        (self.directory / f"at-{trainer.global_rank}").touch()
        while (self.directory / "hold").exists():
            time.sleep(0.02)
