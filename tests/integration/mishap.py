"""A callback for tests: one signal, to one rank or to all, at the start of one training step, once in a run."""

import os
import signal
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Mishap(Callback):
    """Sends this process ``signum`` when ``step`` steps are done; ``rank`` -1 is every rank.

    A file in ``directory`` for each mishap that has happened keeps it from happening again after a restart.
    """

    def __init__(self, directory: str, step: int, signum: int = signal.SIGKILL, rank: int = -1) -> None:
        self.directory = Path(directory)
        self.step = step
        self.signum = signum
        self.rank = rank

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        happened = self.directory / f"mishap-{self.step}-{trainer.global_rank}"
        if trainer.global_step == self.step and self.rank in (-1, trainer.global_rank) and not happened.exists():
            happened.touch()
            os.kill(os.getpid(), self.signum)

    @property
    def state_key(self) -> str:
        """Several in one trainer are told apart."""
        return f"Mishap{self.step}"
