"""Colours of all figures, and files that a reader never sees half of: PNG and CSV.

Figures use matplotlib's object API, so that no global state and no display is touched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likeness.files.writing import replacing

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
