"""Heat maps of representation similarity, and how a figure reaches the run directory and W&B.

Figures use matplotlib's object API, so no global state and no display is touched.

CSV files that are written as a whole.

How a table reaches the run directory and W&B.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl

from callbacks.run.run_files import note
from likeness.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme and black: told apart under colour-vision deficiencies too.
PALETTE = (
    "#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499", "#000000",
)  # fmt: skip
MARKERS = "os^Dv"


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG so that a reader never sees half of it; directories are made."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return path


def publish_figure(trainer: pl.Trainer, figure: Figure, name: str, *, keep_history: bool = False) -> None:
    """``figures/<name>.png`` in the run directory, and an image in every logger that takes images.

    With ``keep_history`` also ``figures/<name>-step=<step>.png``. Call it on rank 0.
    """
    folder = Path(trainer.default_root_dir, "figures")
    save_figure(figure, note(folder / f"{name}.png"))
    if keep_history:
        save_figure(figure, note(folder / f"{name}-step={trainer.global_step:06d}.png"))
    for logger in trainer.loggers:
        log_image: Any = getattr(logger, "log_image", None)
        if log_image is not None:
            log_image(key=f"figures/{name}", images=[as_image(figure)], step=trainer.global_step)


def as_image(figure: Figure) -> np.ndarray:
    """The figure as uint8 RGB [H, W, 3]: wandb shows floats in [0, 1] as black."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Path:
    """The whole file or none of it; its folder is made, and a cell of None is left empty."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def publish_table(trainer: pl.Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """``figures/<name>.csv`` in the run directory, and a table in every logger that takes tables. Call it on rank 0."""
    write_csv(note(Path(trainer.default_root_dir, "figures", f"{name}.csv")), columns, rows)
    for logger in trainer.loggers:
        log_table: Any = getattr(logger, "log_table", None)
        if log_table is not None:
            data = [list(row) for row in rows]
            log_table(key=f"tables/{name}", columns=list(columns), data=data, step=trainer.global_step)
