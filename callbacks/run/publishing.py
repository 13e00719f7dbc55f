"""How figures and tables reach the run directory and the loggers."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from callbacks.run.run_files import note
from likeness.figures.output import as_image, save_formats, write_csv
from likeness.files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def publish_figure(trainer: pl.Trainer, figure: Figure, name: str, *, keep_history: bool = False) -> None:
    """``figures/<name>.{png,pdf}`` in the run directory, and an image in every logger that takes images.

    With ``keep_history`` also ``figures/<name>-step=<step>.png``. Call it on rank 0.
    """
    folder = Path(trainer.default_root_dir, "figures")
    for kind in ("png", "pdf"):
        note(folder / f"{name}.{kind}")
    picture, _ = save_formats(figure, folder, name)
    if keep_history:
        with replacing(note(folder / f"{name}-step={trainer.global_step:06d}.png")) as temporary:
            shutil.copyfile(picture, temporary)
    for logger in trainer.loggers:
        log_image: Any = getattr(logger, "log_image", None)
        if log_image is not None:
            log_image(key=f"figures/{name}", images=[as_image(figure)], step=trainer.global_step)


def publish_table(trainer: pl.Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """``figures/<name>.csv`` in the run directory, and a table in every logger that takes tables. Call it on rank 0."""
    write_table(trainer, name, columns, rows)
    log_table(trainer, f"tables/{name}", columns, rows)


def write_table(trainer: pl.Trainer, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """The file alone, of what is too long for a logger."""
    write_csv(note(Path(trainer.default_root_dir, "figures", f"{name}.csv")), columns, rows)


def log_table(trainer: pl.Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in every logger that takes tables."""
    for logger in trainer.loggers:
        log: Any = getattr(logger, "log_table", None)
        if log is not None:
            log(key=key, columns=list(columns), data=[list(row) for row in rows], step=trainer.global_step)
