"""The figure of the width study: distances over pairs of seeds against the width of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from callbacks.figures import PALETTE
from scripts.studies.output import StudyRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = {"d_llv": ("d_LLV", PALETTE[0], "o-", -0.06), "d_fg": ("d_{f,g}", PALETTE[1], "s--", 0.06)}
COLUMNS = 4


def draw(means: Sequence[StudyRow], pairs: Sequence[StudyRow]) -> Figure:
    """A panel for each number of labels: mean and standard deviation against width, and every pair as a dot.

    Widths with too few accurate seeds are not drawn, and their ticks say so.
    """
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(row["num_classes"] for row in means))
    rows, columns = -(-len(panels) // COLUMNS), min(len(panels), COLUMNS)
    figure = Figure(figsize=(3.4 * columns + 0.4, 3.2 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, num_classes in zip(all_axes, panels, strict=False):
        own = [[row for row in table if row["num_classes"] == num_classes] for table in (means, pairs)]
        _panel(axes, *own)
        axes.set_title(f"K = {num_classes}", fontsize=10)
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    all_axes[0].set_ylabel("distance over pairs of seeds")
    all_axes[0].set_ylim(bottom=0)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _panel(axes: Axes, means: Sequence[StudyRow], pairs: Sequence[StudyRow]) -> None:
    places = {row["width"]: place for place, row in enumerate(means)}
    for name, (label, colour, style, shift) in SERIES.items():
        drawn = [row for row in means if row[name] is not None]
        widths = {row["width"] for row in drawn}
        dots = [(places[pair["width"]] + 1.8 * shift, pair[name]) for pair in pairs if pair["width"] in widths]
        x, y = np.array(dots, dtype=float).reshape(-1, 2).T
        axes.scatter(x, y, s=9, color=colour, alpha=0.3, linewidths=0)
        middles = [places[row["width"]] + shift for row in drawn]
        values = np.array([(row[name], row[f"{name}_sd"]) for row in drawn], dtype=float).reshape(-1, 2)
        axes.errorbar(
            middles, values[:, 0], values[:, 1], fmt=style, color=colour, label=label, capsize=3, markersize=5
        )
    ticks = [
        str(row["width"]) + ("" if row["d_llv"] is not None else f"\nonly {row['seeds']}\naccurate") for row in means
    ]
    axes.set_xticks(range(len(places)), ticks)
    axes.set(xlabel="width", xlim=(-0.4, len(places) - 0.6))
    axes.spines[["top", "right"]].set_visible(False)
