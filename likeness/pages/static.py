"""The same figures for papers, by matplotlib: it draws vectors without the browser that plotly's exporter starts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likeness.figures.embeddings import planes_figure
from likeness.figures.output import save_formats
from likeness.figures.style import COLUMN, PALETTE, TINY, blank, cell_text, in_style, ink_on, without_frame
from likeness.files.writing import replacing
from likeness.pages.parts import Curve, Drawn, Figure, Lines, Matrix, Picture, Scatter, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Static

LEGEND = 12  # curves
ANNOTATED = 12  # columns of a matrix whose cells show their values
STYLES = ("-", "--", ":", "-.")  # once all colours are taken
LETTERS = 40  # of a name in a figure


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """``<name>.png`` and ``<name>.svg``, of a picture ``<name>.pdf`` where it has one; answers what was written.

    Of a picture with several frames, the last one.
    """
    name = slug(figure.name)
    if isinstance(figure, Picture):
        return [_copy(content, folder / f"{name}.{kind}") for kind, content in figure.contents.items()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name may be in any script
        return save_formats(draw(figure), folder, name, ("png", "svg"))


def _copy(content: bytes, path: Path) -> Path:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def draw(figure: Drawn) -> Static:
    """The figure as matplotlib draws it."""
    if isinstance(figure, Scatter):
        return _of_scatter(figure)
    return _of_lines(figure) if isinstance(figure, Lines) else _of_matrix(figure)


def _of_scatter(figure: Scatter) -> Static:
    panels = [replace(panel, name=plain(panel.name)) for panel in figure.planes.panels]
    return planes_figure(replace(figure.planes, panels=panels, classes=[plain(name) for name in figure.planes.classes]))


@in_style()
def _of_lines(figure: Lines) -> Static:
    drawn = blank(COLUMN, 2.5, figure.caption or figure.title)
    axes = drawn.add_subplot()
    for curve in figure.curves:
        _add(axes, curve, 1.2 if len(figure.curves) <= LEGEND else 0.7)
    axes.set(title=plain(figure.title), xlabel=plain(figure.x_label), ylabel=plain(figure.y_label))
    for scale, wanted, values in (("x", figure.log_x, _all(figure, "x")), ("y", figure.log_y, _all(figure, "y"))):
        if wanted and (values > 0).any():
            axes.set(**{f"{scale}scale": "log"})
    if 1 < len(figure.curves) <= LEGEND:
        axes.legend()
    return drawn


def _all(figure: Lines, of: str) -> np.ndarray:
    return np.concatenate([getattr(curve, of) for curve in figure.curves] or [np.zeros(0)])


def _add(axes: Axes, curve: Curve, width: float) -> None:
    colour = PALETTE[curve.colour % len(PALETTE)]
    line = "--" if curve.dashed else STYLES[curve.colour // len(PALETTE) % len(STYLES)]
    known = np.isfinite(curve.y)
    marker = "o" if known.sum() <= 60 else ""
    axes.plot(
        curve.x[known], curve.y[known], line, color=colour, lw=width, marker=marker, ms=2.5, label=plain(curve.label)
    )
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, lw=0)


@in_style()
def _of_matrix(figure: Matrix) -> Static:
    rows, columns = figure.values.shape
    size = (1.6 + min(0.32 * columns, 5.3), 1.2 + min(0.28 * rows, 5.3))
    drawn = blank(*size, figure.caption or figure.title)
    axes = drawn.add_subplot()
    colours: dict[str, Any] = {"cmap": "viridis_r" if figure.smaller_is_alike else "viridis"}
    if figure.signed:
        colours = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    image = axes.imshow(np.ma.masked_invalid(figure.values), aspect="auto", **colours)
    without_frame(axes)
    drawn.colorbar(image, ax=axes, label=plain(figure.value_label))
    turn = 90 if max(map(len, figure.columns), default=0) > 3 else 0
    axes.set_xticks(range(columns), [plain(name) for name in figure.columns], rotation=turn)
    axes.set_yticks(range(rows), [plain(name) for name in figure.rows])
    axes.set_title(plain(figure.title))
    ink = ink_on(image, figure.values)
    for i, j, value in _cells(figure.values) if columns <= ANNOTATED else ():
        axes.text(j, i, cell_text(value), ha="center", va="center", fontsize=TINY, color=ink[i, j])
    return drawn


def _cells(values: np.ndarray) -> Iterator[tuple[int, int, float]]:
    return ((i, j, float(values[i, j])) for i, j in np.argwhere(np.isfinite(values)).tolist())


def plain(text: str) -> str:
    """A text in which matplotlib finds no mathematics, no line breaks, and no name of endless length."""
    line = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    short = line if len(line) <= 2 * LETTERS else f"{line[:LETTERS]} ... {line[-LETTERS // 2 :]}"
    return short.replace("$", r"\$")
