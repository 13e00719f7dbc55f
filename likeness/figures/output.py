"""Files that a reader never sees half of: figures, their captions in them, and tables as CSV."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likeness.figures.style import caption_of, in_style
from likeness.files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, or by its suffix an SVG or a PDF, so that a reader never sees half of it; directories are made.

    The caption is in the file: Description of a PNG or an SVG, Subject of a PDF. Raises ValueError where there is none.
    """
    kind = path.suffix.removeprefix(".")
    metadata = {"Subject" if kind == "pdf" else "Description": caption_of(figure)}
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})  # equal figures are equal files
    with replacing(path) as temporary, in_style():
        figure.savefig(temporary, format=kind, metadata=metadata | undated)
    return path


def save_formats(figure: Figure, folder: Path, name: str, kinds: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """``<name>.<kind>`` of each kind: to look at, and for papers. The places of what is drawn are those of the first.

    Answers what was written. Raises ValueError for a figure without a caption.
    """
    written = []
    for kind in kinds:
        written.append(save_figure(figure, folder / f"{name}.{kind}"))
        figure.set_layout_engine("none")  # which would look for the same places again, at length
    return written


def read_caption(png: bytes) -> str:
    """The caption of a figure that was written as PNG; nothing where there is none, or no picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):  # only its head is read
            return str(Image.open(io.BytesIO(png), formats=["PNG"]).info.get("Description", ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def as_image(figure: Figure) -> np.ndarray:
    """The figure as uint8 RGB [H, W, 3]: wandb shows floats in [0, 1] as black."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with in_style():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> Path:
    """The whole file or none of it; its folder is made, and a cell of None is left empty."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path
