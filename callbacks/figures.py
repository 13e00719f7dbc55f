"""Heat maps of representation similarity, and how a figure reaches the run directory and W&B.

Figures use matplotlib's object API, so no global state and no display is touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl

from likeness.measures.kinds import Measure

if TYPE_CHECKING:  # matplotlib costs a second, and most runs draw nothing before their end
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

MAX_ANNOTATED = 12  # columns of a heat map whose cells show their values
# Paul Tol's "muted" scheme and black: told apart under colour-vision deficiencies too.
PALETTE = (
    "#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499", "#000000",
)  # fmt: skip
MARKERS = "os^Dv"
UPRIGHT = 3  # letters of a column's name that are not turned
LOG_SCALE_FROM = 30  # ratio of the largest to the smallest divergence


def similarity_heatmap(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], measure: Measure) -> Figure:
    """Heat map of one measure between models; bright is alike.

    values: [R, C], NaN where there is nothing to compare (a model with itself). ``rows`` and ``columns`` are
    the models' names. Values are written into the cells up to 12 columns.
    """
    figure, axes, colour_axes = _heatmap_axes(rows, columns)
    colours = "viridis" if measure.larger_is_more_alike else "viridis_r"
    image = axes.imshow(values, cmap=colours, norm=_colour_scale(values, measure), aspect="auto")
    axes.set_facecolor("#dddddd")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if _longest(columns) > UPRIGHT else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    direction = "larger is more alike" if measure.larger_is_more_alike else "smaller is more alike"
    axes.set_title(f"{measure.label}\n({direction})", fontsize=10)
    figure.colorbar(image, cax=colour_axes).ax.tick_params(labelsize=8)
    if len(columns) <= MAX_ANNOTATED:
        _write_values(axes, values, image)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG so that a reader never sees half of it; directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    figure.savefig(temporary, format="png", dpi=150)
    os.replace(temporary, path)
    return path


def publish_figure(trainer: pl.Trainer, figure: Figure, name: str, *, keep_history: bool = False) -> None:
    """``figures/<name>.png`` in the run directory, and an image in every logger that takes images.

    With ``keep_history`` also ``figures/<name>-step=<step>.png``. Call it on rank 0.
    """
    folder = Path(trainer.default_root_dir, "figures")
    save_figure(figure, folder / f"{name}.png")
    if keep_history:
        save_figure(figure, folder / f"{name}-step={trainer.global_step:06d}.png")
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


def _heatmap_axes(rows: Sequence[str], columns: Sequence[str]) -> tuple[Figure, Axes, Axes]:
    """A figure with square cells, room for the names, and a colour bar; laid out here, for speed, in inches."""
    from matplotlib.figure import Figure

    cell = max(0.6 if len(columns) <= MAX_ANNOTATED else 0.3, 2.4 / len(columns))
    inner_width, inner_height = cell * len(columns), cell * len(rows)
    letter = 0.07
    left = 0.15 + letter * _longest(rows)
    bottom = 0.15 + letter * (_longest(columns) if _longest(columns) > UPRIGHT else 2)
    width, height = left + inner_width + 0.85, bottom + inner_height + 0.55
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, inner_width / width, inner_height / height))
    bar_left = left + inner_width + 0.15
    bar = figure.add_axes((bar_left / width, bottom / height, 0.15 / width, inner_height / height))
    return figure, axes, bar


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names))


def _colour_scale(values: np.ndarray, measure: Measure) -> Normalize:
    """Similarities over their whole range; divergences from 0, or by logarithm where they span decades."""
    from matplotlib.colors import LogNorm, Normalize

    known = values[np.isfinite(values)]
    if measure.larger_is_more_alike or not known.size or known.max() <= 0:
        return Normalize(0, measure.limit or 1)
    if known.min() > 0 and known.max() > LOG_SCALE_FROM * known.min():
        return LogNorm(known.min(), known.max())
    return Normalize(0, known.max())


def _write_values(axes: Axes, values: np.ndarray, image: Any) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:.2f}" if 0.095 <= abs(value) < 10 else f"{value:.1e}" if value else "0"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
