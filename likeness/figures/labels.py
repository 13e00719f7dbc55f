"""The figures of label geometry: similarities of labels in several inner products, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "raw": "raw cosine\nany translation moves it",
    "centred": "centred cosine\na linear map moves it",
    "invariant": "correlation of centred logits\nnothing moves it",
    "together": "probable together\nover the inputs",
}
COLOURS = {"raw": "#cc6677", "centred": "#ddaa33", "invariant": "#332288"}
MAX_ANNOTATED = 10
MAX_NAMED = 30
BINS = 80


def label_heatmaps(matrices: Mapping[str, Tensor], labels: Sequence[str]) -> Figure:
    """Heat maps of the matrices [K, K], by the names in ``TITLES``, on one scale from -1 to 1.

    NaN, where a similarity is undefined, is grey. Values are written into the cells up to 10 labels, labels' names
    beside them up to 30.
    """
    from matplotlib.figure import Figure

    side = min(6.0, max(2.6, (0.42 if len(labels) <= MAX_ANNOTATED else 0.2) * len(labels)))
    figure = Figure(figsize=(side * len(matrices) + 1.2, side + 1.3), layout="constrained")
    panels = figure.subplots(1, len(matrices), sharey=True, squeeze=False)[0]
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        image = axes.imshow(matrix.cpu().numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(TITLES[name], fontsize=9)
        axes.set_facecolor("#bbbbbb")
        axes.tick_params(length=0, labelsize=7)
        axes.spines[:].set_visible(False)
        _name_labels(axes, labels)
        if len(labels) <= MAX_ANNOTATED:
            _write_values(axes, matrix.cpu().numpy())
    figure.colorbar(image, ax=panels, fraction=0.03, pad=0.01).ax.tick_params(labelsize=7)
    return figure


def similarity_histogram(similarities: Mapping[str, np.ndarray], title: str) -> Figure:
    """Distribution of each similarity, by the names in ``TITLES``, over the pairs [n] that were measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    known = {name: values[np.isfinite(values)] for name, values in similarities.items()}
    everything = np.concatenate([*known.values(), np.zeros(1)])
    bins = np.linspace(everything.min(), max(everything.max(), 0.1), BINS + 1)
    for name, values in known.items():
        label = TITLES[name].split("\n")[0]
        axes.hist(values, bins=bins.tolist(), histtype="step", linewidth=1.6, color=COLOURS[name], label=label)
    axes.set(xlabel="similarity of two labels", ylabel="pairs (log scale)", yscale="log")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _name_labels(axes: Axes, labels: Sequence[str]) -> None:
    if len(labels) > MAX_NAMED:
        axes.set_xlabel(f"{len(labels)} labels", fontsize=8)
        return
    turned = max(map(len, labels)) > 3
    axes.set_xticks(range(len(labels)), labels, rotation=90 if turned else 0)
    axes.set_yticks(range(len(labels)), labels)


def _write_values(axes: Axes, values: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if abs(value) > 0.65 else "black"
            text = f"{value:.2f}".replace("0.", ".")
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5, color=colour)
