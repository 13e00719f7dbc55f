"""A callback for tests: every training step's sample ids and loss, appended to a file a rank, exactly."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Recorder(Callback):
    """Writes ``steps-<rank>.jsonl``; a step is a batch, whether or not the optimiser makes one with it.

    ``crash_at_step`` kills the process without a word, as a power cut would. ``wait_at_step`` gives a test the time
    to send a signal in the middle of a step: from the file ``waiting`` on, for two seconds, or while there is a file
    ``hold``.
    """

    def __init__(self, directory: str, crash_at_step: int = -1, wait_at_step: int = -1) -> None:
        self.directory = Path(directory)
        self.crash_at_step = crash_at_step
        self.wait_at_step = wait_at_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        row = {
            "step": trainer.fit_loop.total_batch_idx + 1,
            "ids": batch.id.tolist(),
            "loss": outputs["loss"].item().hex(),
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"steps-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.crash_at_step:
            os._exit(9)
        if trainer.fit_loop.total_batch_idx == self.wait_at_step:
            (self.directory / "waiting").touch()
            time.sleep(2)
            while (self.directory / "hold").exists():
                time.sleep(0.05)


def steps(directory: Path, rank: int = 0) -> dict[int, dict[str, Any]]:
    """The record by step; a step that was repeated after a crash must have repeated exactly."""
    found: dict[int, dict[str, Any]] = {}
    for line in (directory / f"steps-{rank}.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert found.setdefault(row["step"], row) == row, f"step {row['step']} ran differently the second time"
    return found
