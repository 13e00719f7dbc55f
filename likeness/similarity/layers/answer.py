"""What a comparison of layers says: matrices, their nulls and intervals, tables, figures and files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from likeness.similarity.catalogue import Measure
from likeness.similarity.layers.statistics import LayerIntervals, LayerNull

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.table import Table

FEW = 4  # measures whose intervals fit in a table
COLUMNS = ("measure", "layer_a", "layer_b", "value", "p_value", "score", "low", "high", "undefined")


@dataclass(frozen=True)
class LayerComparison:
    """How alike L layers of one model and L' of another, or of the same, are, by the names of the measures.

    ``found["linear_cka"]`` is [L, L'] in float64, NaN where undefined; rows are layers of the first model.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from likeness import compare_layers
        >>> model = nn.Sequential(nn.Linear(8, 6), nn.Tanh())
        >>> found = compare_layers(model, model, torch.randn(50, 8), measures=["linear_cka"])
        >>> list(found.diagonal("linear_cka")), found.matched
        (['0', '1'], [(0, 0), (1, 1)])
    """

    names: tuple[str, str]
    layers_a: Sequence[str]
    layers_b: Sequence[str]
    samples: int  # that were read
    kept: int  # that the values are of
    pooling: str
    estimator: str
    measures: Mapping[str, Measure] = field(repr=False)
    left_out: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})  # layers of each model, and why
    values: dict[str, Tensor] = field(default_factory=dict)  # [L, L'] by the measure's name
    undefined: dict[str, Mapping[tuple[int, int], str]] = field(default_factory=dict, repr=False)
    nulls: dict[str, LayerNull] = field(default_factory=dict, repr=False)  # by the measure's name
    intervals: dict[str, LayerIntervals] = field(default_factory=dict, repr=False)  # by the measure's name

    def __getitem__(self, measure: str) -> Tensor:
        """A measure of all pairs of layers, [L, L']; raises KeyError with the names there are."""
        if measure not in self.values:
            raise KeyError(f"{measure}: measured were {', '.join(self.values)}")
        return self.values[measure]

    @property
    def matched(self) -> list[tuple[int, int]]:
        """Pairs of layers of one name; where there are none, of one place in models of equally many layers."""
        places = {name: place for place, name in enumerate(self.layers_b)}
        pairs = [(place, places[name]) for place, name in enumerate(self.layers_a) if name in places]
        if pairs or len(self.layers_a) != len(self.layers_b):
            return pairs
        return [(place, place) for place in range(len(self.layers_a))]

    def diagonal(self, measure: str) -> dict[str, float]:
        """The measure of matched layers, by the name that the first model has for them."""
        values = self[measure]
        return {self.layers_a[i]: float(values[i, j]) for i, j in self.matched}

    def rows(self) -> Iterator[dict[str, Any]]:
        """Plain values, a row for each measure and pair of layers, with the columns ``COLUMNS``."""
        for name, values in self.values.items():
            null, interval = self.nulls.get(name), self.intervals.get(name)
            beside: list[Tensor | None] = [values]
            beside += [null.p_values, null.scores] if null else [None, None]
            beside += [interval.low, interval.high] if interval else [None, None]
            for i, layer_a in enumerate(self.layers_a):
                for j, layer_b in enumerate(self.layers_b):
                    numbers = (None if of is None else _plain(of[i, j]) for of in beside)
                    why = self.undefined.get(name, {}).get((i, j))
                    yield dict(zip(COLUMNS, (name, layer_a, layer_b, *numbers, why), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where a measure is undefined."""
        return {
            "models": list(self.names),
            "samples": self.samples,
            "kept": self.kept,
            "pooling": self.pooling,
            "estimator": self.estimator,
            "layers": [list(self.layers_a), list(self.layers_b)],
            "left_out": [dict(reasons) for reasons in self.left_out],
            "nulls": {name: _null_facts(null) for name, null in self.nulls.items()},
            "pairs": list(self.rows()),
        }

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame with a row for each measure and pair of layers; ImportError where pandas is missing."""
        from pandas import DataFrame

        return DataFrame(list(self.rows()), columns=list(COLUMNS))

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """A heat map for each measure, and the trend of matched layers, with their file names."""
        from likeness.figures.layers import layer_figures

        return layer_figures(self)

    def plot(self, measure: str | None = None) -> Figure:
        """The heat map of a measure, the first by default; pairs that are above the null are marked."""
        from likeness.figures.layers import layer_heatmap

        return layer_heatmap(self, next(iter(self.values)) if measure is None else measure)

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``layers.csv``, ``layers.json``, all figures and a page, ``index.html``; answers what was written."""
        from likeness.figures.output import save_formats, write_csv
        from likeness.files.writing import replacing
        from likeness.pages.comparison import layer_parts, write_comparison

        folder = Path(folder).expanduser()
        written = [write_csv(folder / "layers.csv", COLUMNS, (row.values() for row in self.rows()))]
        with replacing(folder / "layers.json") as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=2), encoding="utf-8")
        written.append(folder / "layers.json")
        figures = [path for name, figure in self.figures() for path in save_formats(figure, folder, name)]
        title, about = f"Layers of {' and '.join(dict.fromkeys(self.names))}", f"{self.kept} samples"
        trend = [path for path in figures if path.stem == "layers_trend"]
        page = write_comparison(folder, title, about, layer_parts([*self.rows()], "layers"), trend)
        return [*written, *figures, *page]

    def table(self) -> Table:
        """Matched layers in rows and measures in columns; where none match, each layer beside its most alike one."""
        from rich.table import Table

        first, second = self.names
        title = f"layers of {first}" + ("" if first == second else f" and {second}") + f", {self.kept} samples"
        table = Table(title=title, title_justify="left", caption=self._notes(), caption_justify="left")
        table.add_column("layer")
        for name in self.values:
            table.add_column(name, justify="right", overflow="fold")
        for i, layer in enumerate(self.layers_a):
            partners = [j for row, j in self.matched if row == i]
            if partners or not self.matched:
                cells = (self._cell(name, i, partners[0] if partners else None) for name in self.values)
                table.add_row(layer, *cells)
        return table

    def __str__(self) -> str:
        return str(self._recorded().export_text()).rstrip()

    def _repr_html_(self) -> str:
        return str(self._recorded().export_html(inline_styles=True, code_format="<pre>{code}</pre>"))

    def _recorded(self) -> Any:
        from likeness.comparisons.tables import recorded

        console = recorded(self.table())
        for name, reasons in zip(self.names, self.left_out, strict=True):
            for why in dict.fromkeys(reasons.values()):
                layers = ", ".join(layer for layer, reason in reasons.items() if reason == why)
                console.print(f"left out of {name}: {layers}: {why}", markup=False, highlight=False)
            if self.left_out[0] is self.left_out[1]:
                break
        return console

    def _cell(self, name: str, i: int, j: int | None) -> str:
        """A value, with a star where it is above the null, and without a partner j the layer that is most alike."""
        import torch

        values, partner = self.values[name], ""
        if j is None:
            alike = values[i] if self.measures[name].larger_is_more_alike else -values[i]
            j = int(alike.nan_to_num(-torch.inf).argmax())
            partner = f" {self.layers_b[j]}"
        marked = name in self.nulls and bool(self.nulls[name].significant[i, j])
        within = ""
        if name in self.intervals and len(self.values) <= FEW:
            own = self.intervals[name]
            within = f" [{float(own.low[i, j]):.3f}, {float(own.high[i, j]):.3f}]"
        return f"{float(values[i, j]):.3f}{'*' * marked}{within}{partner}"

    def _notes(self) -> str | None:
        """What stands under the table."""
        notes = [
            f"{name}: unrelated models pass {null.threshold:.3f} with a chance of {null.alpha:g}, over all pairs; "
            f"p = {null.best.p_value:.2g}"
            for name, null in self.nulls.items()
        ]
        if self.nulls:
            notes.append("* above the null of all pairs of layers")
        return "\n".join(notes) or None


def _null_facts(null: LayerNull) -> dict[str, Any]:
    facts = {"alpha": null.alpha, "threshold": null.threshold, "p_value": null.best.p_value, "score": null.score}
    return {**facts, "permutations": len(null.best.values)}


def _plain(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
