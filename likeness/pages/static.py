"""The same figures for papers, by matplotlib: it draws vectors without the browser that plotly's exporter starts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likeness.figures.output import PALETTE, save_figure
from likeness.files.writing import replacing
from likeness.pages.parts import Curve, Figure, Lines, Matrix, Picture, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawn

LEGEND = 12  # curves
ANNOTATED = 12  # columns of a matrix whose cells show their values
STYLES = ("-", "--", ":", "-.")  # once all colours are taken
LETTERS = 40  # of a name in a figure


def write_figure(figure: Figure, folder: Path) -> list[Path]:
    """``<name>.png`` and, of all but pictures, ``<name>.svg``; answers what was written.

    Of a picture with several frames, the last one.
    """
    target = folder / f"{slug(figure.name)}.png"
    if isinstance(figure, Picture):
        with replacing(target) as temporary:
            temporary.write_bytes(figure.frames[-1].png)
        return [target]
    drawn = draw(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name may be in any script
        save_figure(drawn, target)
        drawn.set_layout_engine("none")  # what the first file found room for stays where it is in the second
        return [target, _save_vectors(drawn, target.with_suffix(".svg"))]


def _save_vectors(drawn: Drawn, path: Path) -> Path:
    import matplotlib

    # Neither the day nor chance is in the file: equal figures are equal files.
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "likeness"}):
        drawn.savefig(temporary, format="svg", metadata={"Date": None})
    return path


def draw(figure: Lines | Matrix) -> Drawn:
    """The figure as matplotlib draws it."""
    from matplotlib.figure import Figure as Canvas

    if isinstance(figure, Matrix):
        return _of_matrix(figure, Canvas)
    drawn = Canvas(figsize=(5.6, 3.4), layout="constrained")
    axes = drawn.add_subplot()
    for curve in figure.curves:
        _add(axes, curve, 1.3 if len(figure.curves) <= LEGEND else 0.7)
    axes.set_title(plain(figure.title), fontsize=10)
    axes.set(xlabel=plain(figure.x_label), ylabel=plain(figure.y_label))
    for scale, wanted, values in (("x", figure.log_x, _all(figure, "x")), ("y", figure.log_y, _all(figure, "y"))):
        if wanted and (values > 0).any():
            axes.set(**{f"{scale}scale": "log"})
    axes.grid(color="#e3e3e3", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if 1 < len(figure.curves) <= LEGEND:
        axes.legend(fontsize=7, frameon=False)
    return drawn


def _all(figure: Lines, of: str) -> np.ndarray:
    return np.concatenate([getattr(curve, of) for curve in figure.curves] or [np.zeros(0)])


def _add(axes: Axes, curve: Curve, width: float) -> None:
    colour = PALETTE[curve.colour % len(PALETTE)]
    style = "--" if curve.dashed else STYLES[curve.colour // len(PALETTE) % len(STYLES)]
    known = np.isfinite(curve.y)
    marker = "o" if known.sum() <= 60 else ""
    axes.plot(
        curve.x[known], curve.y[known], style, color=colour, lw=width, marker=marker, ms=2.5, label=plain(curve.label)
    )
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.18, lw=0)


def _of_matrix(figure: Matrix, canvas: type[Drawn]) -> Drawn:
    rows, columns = figure.values.shape
    drawn = canvas(figsize=(2.2 + min(0.4 * columns, 7), 1.6 + min(0.34 * rows, 7)), layout="constrained")
    axes = drawn.add_subplot()
    image = axes.imshow(np.ma.masked_invalid(figure.values), cmap="viridis", aspect="auto")
    drawn.colorbar(image, ax=axes, label=plain(figure.value_label))
    turn = 90 if max(map(len, figure.columns), default=0) > 3 else 0
    axes.set_xticks(range(columns), [plain(name) for name in figure.columns], rotation=turn, fontsize=7)
    axes.set_yticks(range(rows), [plain(name) for name in figure.rows], fontsize=7)
    axes.set_title(plain(figure.title), fontsize=10)
    for i, j, value in _cells(figure.values) if columns <= ANNOTATED else ():
        bright = value > 0.4 * np.nanmin(figure.values) + 0.6 * np.nanmax(figure.values)
        axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=6, color="black" if bright else "white")
    return drawn


def _cells(values: np.ndarray) -> Iterator[tuple[int, int, float]]:
    return ((i, j, float(values[i, j])) for i, j in np.argwhere(np.isfinite(values)).tolist())


def plain(text: str) -> str:
    """A text in which matplotlib finds no mathematics, no line breaks, and no name of endless length."""
    line = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    short = line if len(line) <= 2 * LETTERS else f"{line[:LETTERS]} ... {line[-LETTERS // 2 :]}"
    return short.replace("$", r"\$")
