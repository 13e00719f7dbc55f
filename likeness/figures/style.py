"""How all figures look: sizes of a paper's columns, colours that everybody tells apart, and a caption for each.

A function that draws is decorated with :func:`in_style` and begins with :func:`blank`. Figures use matplotlib's object
API, so that no global state and no display is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9  # inches: one column of a paper, and both
# Okabe and Ito's colours (2008), told apart under colour-vision deficiencies too. In the place of their yellow, which
# is too faint on white, Tol's indigo, wine and sand make ten: ten classes have a colour each.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7", "#000000", "#332288", "#882255", "#ddcc77",
)  # fmt: skip
MARKERS = "os^Dv"
REFERENCE, FAINT = "#777777", "#cccccc"  # of what curves are held against: nulls, limits, zero
UNKNOWN = "#dddddd"  # of a cell without a value
SMALL, TINY = 7.0, 6.0  # points: what stands at ticks and in legends, and in cells
STYLE: Any = {
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "figure.labelsize": 8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "errorbar.capsize": 2,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: conferences and journals refuse the Type 3 of matplotlib's default
    "svg.hashsalt": "likeness",  # equal figures are equal files
}


@contextmanager
def in_style() -> Iterator[None]:
    """What is drawn or saved within has the look of all figures; also a decorator: ``@in_style()``."""
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def blank(width: float, height: float, caption: str, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure in inches. Its caption, a sentence or two, says what to see, and goes where the figure goes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    figure.set_label(caption)
    return figure


def caption_of(figure: Figure) -> str:
    """What :func:`blank` was told. Raises ValueError where a figure was made without."""
    caption = str(figure.get_label())
    if not caption:
        raise ValueError(
            f"a figure with {len(figure.axes)} axes has no caption: make it by likeness.figures.style.blank"
        )
    return caption


def cell_text(value: float) -> str:
    """A number short enough for a cell of a heat map."""
    return f"{value:.2f}" if 0.095 <= abs(value) < 10 else f"{value:.1e}" if value else "0"


def without_frame(*panels: Axes) -> None:
    """Neither grid nor spines nor marks at ticks, and grey where there is no value: for panels of cells."""
    for axes in panels:
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_facecolor(UNKNOWN)


def ink_on(image: Any, values: np.ndarray) -> np.ndarray:
    """Black or white, whichever is seen on the colours that ``image`` gives to ``values``; an array of their shape."""
    red, green, blue, _ = np.moveaxis(np.asarray(image.cmap(image.norm(values))), -1, 0)
    return np.where(0.299 * red + 0.587 * green + 0.114 * blue < 0.5, "white", "black")
