"""How a table reaches the run directory and W&B."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.csv_files import write_csv


def publish_table(trainer: pl.Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """``figures/<name>.csv`` in the run directory, and a table in every logger that takes tables. Call it on rank 0."""
    write_csv(Path(trainer.default_root_dir, "figures", f"{name}.csv"), columns, rows)
    for logger in trainer.loggers:
        log_table: Any = getattr(logger, "log_table", None)
        if log_table is not None:
            data = [list(row) for row in rows]
            log_table(key=f"tables/{name}", columns=list(columns), data=data, step=trainer.global_step)
