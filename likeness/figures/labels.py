"""The figures of label geometry: similarities of labels in several inner products, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from likeness.figures.style import COLUMN, PAGE, PALETTE, TINY, blank, in_style, ink_on, without_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

TITLES = {
    "raw": "raw cosine\nany translation moves it",
    "centred": "centred cosine\na linear map moves it",
    "invariant": "correlation of centred logits\nnothing moves it",
    "together": "probable together\nover the inputs",
}
COLOURS = dict(zip(TITLES, PALETTE, strict=False))
MAX_ANNOTATED = 10
MAX_NAMED = 30
BINS = 80


@in_style()
def label_heatmaps(matrices: Mapping[str, Tensor], labels: Sequence[str]) -> Figure:
    """Heat maps of the matrices [K, K], by the names in ``TITLES``, on one scale from -1 to 1.

    NaN, where a similarity is undefined, is grey. Values are written into the cells up to 10 labels, labels' names
    beside them up to 30.
    """
    columns = min(len(matrices), 2)
    rows = -(-len(matrices) // columns)
    caption = "Similarity of each two labels, red alike and blue opposed. Angles tell the truth as far as panels agree."
    figure = blank((COLUMN, PAGE)[columns - 1], 3.1 * rows, caption)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, matrix) in zip(panels.flat, matrices.items(), strict=False):
        image = axes.imshow(matrix.cpu().numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(TITLES[name])
        without_frame(axes)
        _name_labels(axes, labels)
        if len(labels) <= MAX_ANNOTATED:
            _write_values(axes, matrix.cpu().numpy(), image)
    for axes in panels.flat[len(matrices) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01, label="similarity")
    return figure


@in_style()
def similarity_histogram(similarities: Mapping[str, np.ndarray], title: str) -> Figure:
    """Distribution of each similarity, by the names in ``TITLES``, over the pairs [n] that were measured."""
    caption = "How similar pairs of labels are by each measure: where curves differ, angles depend on the coordinates."
    figure = blank(COLUMN, 2.5, caption)
    axes = figure.add_subplot()
    known = {name: values[np.isfinite(values)] for name, values in similarities.items()}
    everything = np.concatenate([*known.values(), np.zeros(1)])
    bins = np.linspace(everything.min(), max(everything.max(), 0.1), BINS + 1)
    for name, values in known.items():
        label = TITLES[name].split("\n")[0]
        axes.hist(values, bins=bins.tolist(), histtype="step", linewidth=1.2, color=COLOURS[name], label=label)
    axes.set(xlabel="similarity of two labels", ylabel="pairs (log scale)", yscale="log", title=title)
    axes.legend()
    return figure


def _name_labels(axes: Axes, labels: Sequence[str]) -> None:
    if len(labels) > MAX_NAMED:
        axes.set_xlabel(f"{len(labels)} labels")
        return
    turned = max(map(len, labels)) > 3
    axes.set_xticks(range(len(labels)), labels, rotation=90 if turned else 0)
    axes.set_yticks(range(len(labels)), labels)


def _write_values(axes: Axes, values: np.ndarray, image: AxesImage) -> None:
    ink = ink_on(image, values)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2f}".replace("0.", ".")
            axes.text(column, row, text, ha="center", va="center", fontsize=TINY, color=ink[row, column])
