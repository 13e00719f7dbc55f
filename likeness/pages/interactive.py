"""Figures as plotly draws them in a browser: plain dictionaries of plotly's schema, with numbers for colours.

Which colour a number is depends on light or dark, and is decided where the page is looked at (``page.js``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from likeness.figures.embeddings import MAX_LABELLED, Panel, Planes
from likeness.figures.style import PALETTE
from likeness.pages.parts import Curve, Drawn, Lines, Matrix, Scatter

DARK_PALETTE = (  # of the same hues
    "#5aa9e0", "#f08a4b", "#3dc79b", "#f2bd4a", "#9ad8f7", "#dfa3c7", "#f0f0f0", "#a79bf0", "#d96a9b", "#ece0a8",
)  # fmt: skip
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"
LEGEND = 12  # curves; of more, the one that is pointed at says its name
ANNOTATED = 12  # columns of a matrix whose cells show their values
DASHES = ("solid", "dash", "dot", "dashdot")  # once all colours are taken
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down")  # those of likeness.figures.style.MARKERS
LOOKS = len(PALETTE) * len(SYMBOLS)  # of more classes some share one
IN_A_ROW, SIDE, NAMES = 2, 270, 24  # panels; pixels of a panel, and of what stands above and below it
POINT = "class %{text}<br>model %{meta.model}<br>(%{customdata[0]:.4~g}, %{customdata[1]:.4~g})"
Plot = dict[str, Any]


def themes() -> dict[str, Plot]:
    """What light and dark pages look like: a plotly template and the palette of each."""
    return {
        "light": {"palette": list(PALETTE), "template": _template("#1d2430", "#dfe3ea", "#aab2bf")},
        "dark": {"palette": list(DARK_PALETTE), "template": _template("#e4e8ef", "#333c4a", "#5b6678")},
    }


def _template(ink: str, grid: str, axis: str) -> Plot:
    ruled: Plot = {"gridcolor": grid, "linecolor": axis, "zerolinecolor": axis, "ticks": "outside", "tickcolor": axis}
    ruled |= {"zeroline": False, "automargin": True, "title": {"standoff": 8, "font": {"size": 12}}}
    layout = {
        "font": {"family": FONT, "size": 12, "color": ink},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": ruled,
        "yaxis": ruled,
        "hoverlabel": {"font": {"family": FONT}, "namelength": -1},
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "x": 0, "font": {"size": 11}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": axis, "activecolor": ink},
    }
    return {"layout": layout}


def plot(figure: Drawn) -> Plot:
    """The figure in plotly's schema."""
    if isinstance(figure, Scatter):
        return _of_planes(figure.planes)
    return _of_lines(figure) if isinstance(figure, Lines) else _of_matrix(figure)


def _of_lines(figure: Lines) -> Plot:
    several, width = len(figure.curves) > 1, 2.0 if len(figure.curves) <= LEGEND else 1.0
    layout = {
        "xaxis": {"title": {"text": escaped(figure.x_label)}, "type": "log" if figure.log_x else "linear"},
        "yaxis": {"title": {"text": escaped(figure.y_label)}, "type": "log" if figure.log_y else "linear"},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 48},
        "hovermode": "closest" if len(figure.curves) > LEGEND else "x unified",
        "showlegend": several and len(figure.curves) <= LEGEND,
        "height": 340 + 21 * (_legend_rows(figure.curves) - 1),
    }
    bands = [trace for number, curve in enumerate(figure.curves) for trace in _band(number, curve)]
    return {
        "data": bands + [_line(number, curve, width) for number, curve in enumerate(figure.curves)],
        "layout": layout,
    }


def _legend_rows(curves: Sequence[Curve]) -> int:
    """About how many rows a legend takes below a figure of usual width; each makes the figure higher."""
    if len(curves) > LEGEND:
        return 1
    pixels = sum(45 + 6.5 * len(curve.label) for curve in curves)
    return max(1, math.ceil(pixels / 420))


def _line(number: int, curve: Curve, width: float) -> Plot:
    points = int(np.isfinite(curve.y).sum())
    dash = "dash" if curve.dashed else DASHES[curve.colour // len(PALETTE) % len(DASHES)]
    return {
        "type": "scatter",
        "name": escaped(curve.label),
        "legendgroup": str(number),
        "mode": "lines" if points > 60 else "lines+markers",
        "x": numbers(curve.x),
        "y": numbers(curve.y),
        "line": {"width": width if not curve.dashed else 0.7 * width, "dash": dash},
        "marker": {"size": 5},
        "meta": {"colour": curve.colour, "line": curve.label},
        "connectgaps": True,
        "hovertemplate": "%{y:.5g}" + _range(curve),
        "customdata": _ends(curve),
    }


def _range(curve: Curve) -> str:
    return "" if curve.low is None else " (%{customdata[0]} to %{customdata[1]})"


def _ends(curve: Curve) -> list[list[str]] | None:
    if curve.low is None or curve.high is None:
        return None
    ends = zip(curve.low.tolist(), curve.high.tolist(), strict=True)
    return [[f"{low:.4g}", f"{high:.4g}"] for low, high in ends]


def _band(number: int, curve: Curve) -> list[Plot]:
    """The area between the two ends, as a closed outline; of a gap in the band nothing is drawn."""
    if curve.low is None or curve.high is None:
        return []
    known = np.isfinite(curve.x) & np.isfinite(curve.low) & np.isfinite(curve.high)
    x, low, high = curve.x[known], curve.low[known], curve.high[known]
    outline = {"x": numbers(np.concatenate([x, x[::-1]])), "y": numbers(np.concatenate([high, low[::-1]]))}
    return [
        {
            "type": "scatter",
            "name": escaped(curve.label),
            "legendgroup": str(number),
            "showlegend": False,
            "mode": "lines",
            "line": {"width": 0},
            "fill": "toself",
            "hoverinfo": "skip",
            "meta": {"colour": curve.colour, "line": curve.label, "band": True},
            **outline,
        }
    ]


def _of_matrix(figure: Matrix) -> Plot:
    wide = len(figure.columns)
    side = min(max(300, 90 + 30 * len(figure.rows)), 640)
    names = {"type": "category", "showgrid": False}
    trace = {
        "type": "heatmap",
        "x": [escaped(name) for name in _told_apart(figure.columns)],
        "y": [escaped(name) for name in _told_apart(figure.rows)],
        "z": [numbers(row) for row in figure.values],
        "colorscale": "Viridis",
        "reversescale": figure.smaller_is_alike,
        "colorbar": {"title": {"text": escaped(figure.value_label), "side": "right"}, "thickness": 12},
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "row %{y}<br>column %{x}<br>%{z:.5g}<br>%{text}<extra></extra>",
        "text": [[escaped(remark) for remark in row] for row in figure.remarks] if figure.remarks else None,
    }
    if wide <= ANNOTATED:
        trace |= {"texttemplate": "%{z:.3~g}", "textfont": {"size": 10}}
    if figure.signed:
        trace |= {"colorscale": "RdBu", "zmin": -1, "zmax": 1}
    if figure.remarks is None:
        trace["hovertemplate"] = "row %{y}<br>column %{x}<br>%{z:.5g}<extra></extra>"
    layout = {
        "xaxis": names,
        "yaxis": {**names, "autorange": "reversed"},
        "margin": {"l": 64, "r": 16, "t": 12, "b": 48},
        "height": side,
    }
    return {"data": [trace], "layout": layout}


def _of_planes(planes: Planes) -> Plot:
    """A panel for each model; the legend, of up to 30 classes, shows and hides a class in all of them."""
    named = len(planes.classes) <= MAX_LABELLED
    data = [trace for number, panel in enumerate(planes.panels) for trace in _looks(number, panel, planes.classes)]
    first = {trace["legendgroup"]: trace for trace in reversed(data) if trace["mode"] == "markers"}
    for trace in data:
        trace["showlegend"] = named and first.get(trace["legendgroup"]) is trace
    rows = math.ceil(len(planes.panels) / IN_A_ROW)
    below = 30 + 21 * math.ceil(len(planes.classes) / 8) if named else 8
    axes = [_axes(number, panel, rows, len(planes.panels)) for number, panel in enumerate(planes.panels)]
    layout = {
        "height": SIDE * rows + below,
        "margin": {"l": 16, "r": 16, "t": 4, "b": below},
        "hovermode": "closest",
        "legend": {"title": {"text": "class"}, "yref": "container", "y": 0, "yanchor": "bottom"},
        "annotations": [_heading(panel, axis) for panel, axis in zip(planes.panels, axes, strict=True)],
    }
    return {"data": data, "layout": layout | {name: axis for pair in axes for name, axis in pair.items()}}


def _looks(number: int, panel: Panel, classes: Sequence[str]) -> Iterator[Plot]:
    """For each colour and symbol the points f(x), and lines and tips of the arrows g(y), as far as there are any."""
    labels, arrows = np.arange(len(panel.g)), panel.arrows
    turns = np.degrees(np.arctan2(arrows[:, 0], arrows[:, 1])).round(1)
    for look in np.unique(np.concatenate([panel.labels, labels]) % LOOKS).tolist():
        common = {
            "type": "scatter",
            "name": escaped(classes[look]),
            "legendgroup": str(look),
            "xaxis": _numbered("x", number),
            "yaxis": _numbered("y", number),
            "meta": {"colour": look % len(PALETTE), "model": escaped(panel.name)},
        }
        own, tips = panel.labels % LOOKS == look, labels % LOOKS == look
        points = _points(panel.f[own], panel.f[own], [classes[label] for label in panel.labels[own]])
        marker: Plot = {"size": 5, "opacity": 0.6, "symbol": SYMBOLS[look // len(PALETTE)]}
        yield common | points | {"mode": "markers", "marker": marker, "hovertemplate": f"{POINT}<extra>f(x)</extra>"}
        if tips.any():
            lines = np.stack([0 * arrows[tips], arrows[tips], np.nan * arrows[tips]], axis=1).reshape(-1, 2)
            yield common | {"mode": "lines", "x": numbers(lines[:, 0]), "y": numbers(lines[:, 1]), "hoverinfo": "skip"}
            ends = _points(arrows[tips], panel.g[tips], [classes[label] for label in labels[tips]])
            mode = "markers+text" if len(classes) <= MAX_LABELLED else "markers"
            marker = {"size": 12, "symbol": "arrow", "angle": turns[tips].tolist()}
            said = {"hovertemplate": f"{POINT}<extra>g(y), centred</extra>", "textposition": "top center"}
            yield common | ends | said | {"mode": mode, "marker": marker}


def _points(places: np.ndarray, values: np.ndarray, classes: Sequence[str]) -> Plot:
    """Where points are drawn, [P, 2], and what they say where they are pointed at."""
    said = [numbers(value) for value in values]
    names = [escaped(name) for name in classes]
    return {"x": numbers(places[:, 0]), "y": numbers(places[:, 1]), "customdata": said, "text": names}


def _axes(number: int, panel: Panel, rows: int, panels: int) -> dict[str, Plot]:
    """The two axes of a panel, as long as each other and without numbers: f is known up to a linear map at best."""
    row, column = divmod(number, IN_A_ROW)
    columns, gap = min(panels, IN_A_ROW), NAMES / (SIDE * rows)
    reach = 1.1 * panel.radius
    x, y = _numbered("x", number), _numbered("y", number)
    plain: Plot = {"range": [-reach, reach], "constrain": "domain", "showgrid": False, "zeroline": True, "mirror": True}
    plain |= {"showline": True, "showticklabels": False, "ticks": ""}
    across: Plot = {"domain": [(column + 0.04) / columns, (column + 0.96) / columns], "anchor": y}
    up: Plot = {"domain": [1 - (row + 1) / rows + gap, 1 - row / rows - gap], "anchor": x, "scaleanchor": x}
    for axis, name in zip((across, up), panel.axis_names, strict=False):
        axis["title"] = {"text": escaped(name), "font": {"size": 10}, "standoff": 2}
    return {_numbered("xaxis", number): plain | across, _numbered("yaxis", number): plain | up}


def _numbered(axis: str, number: int) -> str:
    return f"{axis}{number + 1}" if number else axis


def _heading(panel: Panel, axes: dict[str, Plot]) -> Plot:
    across, up = axes.values()
    place = {"x": sum(across["domain"]) / 2, "xref": "paper", "y": up["domain"][1], "yref": "paper"}
    return place | {"text": escaped(panel.name), "xanchor": "center", "yanchor": "bottom", "showarrow": False}


def _told_apart(names: object) -> list[str]:
    """Names on an axis, where two that are equal would be one place."""
    seen: dict[str, int] = {}
    answer = []
    for name in map(str, names):  # type: ignore[call-overload]
        seen[name] = seen.get(name, 0) + 1
        answer.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return answer


def numbers(values: np.ndarray) -> list[float | None]:
    """Six significant digits of each, None for what is not finite: JSON has no word for that."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in np.asarray(values, float).tolist()]


def escaped(text: str) -> str:
    """A text without what plotly would take for markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
