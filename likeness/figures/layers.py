"""What is drawn of a comparison of layers: heat maps, the trend of matched layers, and curves during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likeness.figures.similarity import colour_scale
from likeness.figures.style import COLUMN, FAINT, PAGE, PALETTE, REFERENCE, blank, in_style, ink_on, without_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likeness.similarity.layers.answer import LayerComparison

CELL, LETTER, BAR = 0.22, 0.075, 0.14  # inches
LARGEST = 7.0  # inches that the cells take
LABELS = 40  # layers that are named on an axis
MARK = 12.0  # points of a mark, at most
IN_COLUMN = 16  # layers that are named in a narrow figure
CURVES = 10  # layers that have a curve of their own


def layer_figures(found: LayerComparison) -> Iterator[tuple[str, Figure]]:
    """File names (without suffix) and figures."""
    for name in found.values:
        yield f"layers_{name}", layer_heatmap(found, name)
    if len(found.matched) > 1:
        yield "layers_trend", layer_trend(found)


@in_style()
def layer_heatmap(found: LayerComparison, measure: str) -> Figure:
    """Layers of the first model from below upwards, of the second to the right; bright is alike.

    A dot is on the pairs that are above the null of all pairs of layers, where one was computed.
    """
    values, of = found[measure].numpy(), found.measures[measure]
    rows, columns = found.layers_a, found.layers_b
    cell = max(0.04, min(CELL, LARGEST / max(len(rows), len(columns))))
    inner = np.array([cell * len(columns), cell * len(rows)]).clip(1.6)
    left, below = (0.5 + LETTER * max(map(len, _shown(names))) for names in (rows, columns))
    title = _title(found, measure)
    width = max(left + inner[0] + 0.75, left + LETTER * max(map(len, title)) + 0.1)
    height = below + inner[1] + 0.2 + 0.17 * len(title)
    figure = blank(width, height, _caption(found, measure), layout=None)
    axes = figure.add_axes((left / width, below / height, inner[0] / width, inner[1] / height))
    colours = "viridis" if of.larger_is_more_alike else "viridis_r"
    image = axes.imshow(values, cmap=colours, norm=colour_scale(values, of), aspect="auto", origin="lower")
    without_frame(axes)
    _name_layers(axes, rows, columns, found.names)
    if measure in found.nulls:
        _mark(axes, found.nulls[measure].significant.numpy(), image, values, 72 * min(inner / values.shape[::-1]))
    bar = figure.add_axes(((left + inner[0] + 0.12) / width, below / height, BAR / width, inner[1] / height))
    figure.colorbar(image, cax=bar)
    axes.set_title("\n".join(title), loc="left")
    return figure


@in_style()
def layer_trend(found: LayerComparison) -> Figure:
    """Matched layers in the order of the model: values, their bootstrap intervals and the band of the null."""
    names = [found.layers_a[i] for i, _ in found.matched]
    width, legend_columns = (COLUMN, 1) if len(names) <= IN_COLUMN else (PAGE, 2)
    above = 0.3 + (0.6 / legend_columns if _uncertain(found) else 0)
    bottom, panel = 0.15 + LETTER * max(map(len, _shown(names))), 1.7
    height = panel * len(found.values) + bottom + above - 0.3
    caption = "How alike matched layers are, from the first to the last of the model."
    if _uncertain(found):
        caption += " Beyond the dashed line they are more alike than any two layers would be by chance."
    figure = blank(width, height, caption, layout=None)
    for number, measure in enumerate(found.values):
        top = 1 - (above + panel * number) / height
        axes = figure.add_axes((0.75 / width, top - (panel - 0.4) / height, 1 - 0.9 / width, (panel - 0.4) / height))
        _draw_trend(axes, found, measure)
        last = number == len(found.values) - 1
        places = _places(len(names))
        axes.set_xticks(places, [names[place] for place in places] if last else [], rotation=90)
    if _uncertain(found):
        first = figure.axes[0].get_legend_handles_labels()
        figure.legend(*first, loc="upper left", bbox_to_anchor=(0.6 / width, 1), ncols=legend_columns)
    return figure


@in_style()
def training_curves(
    steps: Sequence[int], values: Mapping[str, Sequence[float]], label: str, against: str, limit: float | None = None
) -> Figure:
    """A measure of each layer at each step at which it was taken: early layers dark, late ones bright."""
    from matplotlib import colormaps

    caption = f"How alike each layer is to {against} as the model learns: early layers dark, late ones bright."
    figure = blank(COLUMN, 3.0, caption)
    axes = figure.subplots()
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(values)))
    for colour, (layer, own) in zip(colours, values.items(), strict=True):
        axes.plot(steps, own, color=colour, marker="o", ms=2.5, label=layer)
    axes.set(xlabel="training step", ylabel=label)
    axes.set_title(f"Layers against {against}", loc="left")
    if limit is not None:
        axes.set_ylim(top=1.04 * limit)
    shown = list(values) if len(values) <= CURVES else [list(values)[place] for place in _spread(len(values), CURVES)]
    lines = dict(zip(values, axes.get_lines(), strict=True))
    figure.legend([lines[name] for name in shown], shown, loc="outside lower center", ncols=2)
    return figure


def _draw_trend(axes: Axes, found: LayerComparison, measure: str) -> None:
    rows, columns = (torch.tensor(side) for side in zip(*found.matched, strict=True))
    x, own = np.arange(len(rows)), found[measure][rows, columns].numpy()
    if measure in found.nulls:
        null = found.nulls[measure]
        band = (null.low[rows, columns].numpy(), null.high[rows, columns].numpy())
        axes.fill_between(x, *band, color=FAINT, lw=0, label="unrelated: 5 % to 95 % of a pair", step="mid")
        label = f"unrelated: best of all pairs, at {null.alpha:g}"
        axes.axhline(null.threshold, color=REFERENCE, lw=1, ls="--", label=label)
    if measure in found.intervals:
        interval = found.intervals[measure]
        low, high = interval.low[rows, columns].numpy(), interval.high[rows, columns].numpy()
        label = f"{100 * interval.confidence:g} % interval over samples"
        axes.fill_between(x, low, high, color=PALETTE[4], alpha=0.6, lw=0, label=label)
    axes.plot(x, own, color=PALETTE[0], marker="o", ms=2.5, label="as observed")
    axes.set_xlim(-0.5, len(x) - 0.5)
    axes.set_title(found.measures[measure].label, loc="left")


def _uncertain(found: LayerComparison) -> bool:
    return bool(found.nulls or found.intervals)


def _name_layers(axes: Axes, rows: Sequence[str], columns: Sequence[str], models: tuple[str, str]) -> None:
    for axis, names, model in ((axes.yaxis, rows, models[0]), (axes.xaxis, columns, models[1])):
        places = _places(len(names))
        axis.set_ticks(places, [names[place] for place in places])
        axis.set_label_text(model)
    axes.tick_params(axis="x", rotation=90)


def _mark(axes: Axes, significant: np.ndarray, image: Any, values: np.ndarray, side: float) -> None:
    """A dot in each cell above the null, seen on its colour; ``side`` of a cell in points."""
    y, x = significant.nonzero()
    size = min(MARK, (0.25 * side) ** 2)
    axes.scatter(x, y, s=size, c=ink_on(image, values[y, x]), linewidths=0)


def _caption(found: LayerComparison, measure: str) -> str:
    caption = "Each layer of one model against each of the other, from below and from the left: bright is alike."
    return f"{caption} Dots are on pairs that no chance explains." if measure in found.nulls else caption


def _title(found: LayerComparison, measure: str) -> list[str]:
    of = found.measures[measure]
    direction = "larger is more alike" if of.larger_is_more_alike else "smaller is more alike"
    lines = [f"{of.label} ({direction})", f"{found.kept} samples, pooling: {found.pooling}"]
    if measure in found.nulls:
        null = found.nulls[measure]
        lines.append(f"dots: beyond {null.threshold:.2f}, the null of all pairs at {null.alpha:g}")
    return lines


def _places(count: int) -> list[int]:
    """The layers that are named."""
    return list(range(count)) if count <= LABELS else list(range(0, count, -(-count // LABELS)))


def _spread(count: int, chosen: int) -> list[int]:
    return np.linspace(0, count - 1, chosen).round().astype(int).tolist()


def _shown(names: Sequence[str]) -> list[str]:
    return [names[place] for place in _places(len(names))]
