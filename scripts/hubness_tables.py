"""Tables and files of an analysis of hubness."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from callbacks.csv_files import write_csv
from likeness.measures.hubness import HubnessReport
from likeness.measures.hubness_indices import HubnessIndices
from scripts.hubness_analysis import Analysis

NAMES = {
    "k_skewness": "k-skewness",
    "robin_hood": "Robin Hood",
    "gini": "Gini",
    "atkinson": "Atkinson, ε = 1/2",
    "shannon_evenness": "1 - Shannon evenness",
    "antihub_rate": "antihubs, of points",
    "hub_rate": "hubs, of points",
    "hub_occurrence": "hubs, of places",
    "groupie_ratio": "largest hub, of places",
    "max_occurrence": "largest hub, N",
    "asymmetry": "one-way edges",
    "bad_occurrence": "other label, of places",
}
COLUMNS = ["index", "value", "null", "excess", "ratio", "recall"]
SHOWN = 100  # characters of a text
NONE = "-"


def printed(analysis: Analysis, top: int) -> Iterator[Table | Text]:
    """Everything for the terminal, in reading order."""
    yield Text(title(analysis))
    yield index_table(analysis)
    for warning in analysis.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    yield Text(reading(analysis.report))
    yield hub_table(analysis, top)


def index_table(analysis: Analysis) -> Table:
    """Each index beside what it is where neighbours are drawn at random."""
    report = analysis.report
    table = Table(caption=_thinned(report), caption_justify="left")
    table.add_column("")
    for name in ("value", "by chance", "against chance"):
        table.add_column(name, justify="right")
    null = shown_indices(report.null)
    for index, value in shown_indices(report).items():
        table.add_row(NAMES[index], number(value), number(null.get(index)), against(index, value, null.get(index)))
    return table


def shown_indices(of: HubnessIndices) -> dict[str, float]:
    """Every index by name, of the evenness what it lacks to 1: that grows with hubness, as the others do."""
    return of.indices() | {"shannon_evenness": 1 - of.shannon_evenness}


def with_recall(name: str, report: HubnessReport) -> str:
    """A name for figures, with the recall where that is not 1."""
    return f"{name} (recall {report.recall:.3f})" if report.recall < 1 else name


def title(analysis: Analysis) -> str:
    """What was measured on what, and the recall where it is not all."""
    report, queries = analysis.report, analysis.queries
    asked = "each among the others" if queries is None else f"for {report.m:,} queries of {queries.source}"
    if report.thinned is not None:
        asked = f"for {report.m:,} of {report.thinned.queries:,} queries"
    own = ", each point its own neighbour" if report.include_self else ""
    recall = f", recall {report.recall:.4f}" if report.recall < 1 else ""
    where = f"{report.n:,} points of {analysis.points.source} in {analysis.points.vectors.shape[1]} dimensions"
    return f"{where}, {asked}: the {report.k} nearest by {report.metric}{own}{recall}"


def reading(report: HubnessReport) -> str:
    """The table in a sentence."""
    share, chance = 100 * report.robin_hood, 100 * report.null.robin_hood
    return (
        f"{share:.1f} % of the places among the {report.k} nearest would have to move for every point to have as many "
        f"as any other; {chance:.1f} % if neighbours were random. "
        f"{100 * report.antihub_rate:.1f} % of the points are nobody's neighbour."
    )


def hub_table(analysis: Analysis, top: int) -> Table:
    """The points that are the most often neighbours."""
    columns, rows = hubs(analysis, top)
    table = Table(title="largest hubs", title_justify="left")
    for name in columns:
        wide = name == "text"
        table.add_column(
            name, justify="left" if name in ("label", "text") else "right", no_wrap=wide, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    return table


def hubs(analysis: Analysis, top: int) -> tuple[list[str], list[list[object]]]:
    """The ``top`` hubs: row in the file, N, how many of these queries have another label, label and text."""
    points = analysis.points
    ids, occurrences = (values.tolist() for values in analysis.report.top_hubs(top))
    columns: dict[str, Sequence[object]] = {"row": ids, "N": occurrences}
    if analysis.bad is not None:
        columns["other label"] = analysis.bad[ids].tolist()
    for name, known in (("label", points.labels), ("text", points.texts)):
        if known is not None:
            columns[name] = [known[row] for row in ids]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def write_all(analysis: Analysis, folder: Path, top: int) -> list[Path]:
    """indices.csv, hubs.csv, report.json and k_occurrence.npy in a folder, which is made; answers the files."""
    import numpy as np

    written = [
        write_csv(folder / "indices.csv", COLUMNS, index_rows(analysis.report)),
        write_csv(folder / "hubs.csv", *hubs(analysis, top)),
        write_json(folder / "report.json", as_json(analysis)),
        folder / "k_occurrence.npy",
    ]
    np.save(written[-1], analysis.report.k_occurrence.cpu().numpy())
    return written


def index_rows(report: HubnessReport) -> list[list[object]]:
    """Each index with its null, the difference and the ratio of the two, and the recall on which it depends."""
    null = report.null.indices()
    rows: list[list[object]] = []
    for index, value in report.indices().items():
        chance = null.get(index)
        excess = None if chance is None else value - chance
        rows.append([index, value, chance, excess, value / chance if chance else None, report.recall])
    return rows


def as_json(analysis: Analysis) -> dict[str, Any]:
    """The report as plain values."""
    report, queries = analysis.report, analysis.queries
    return {
        "source": analysis.points.source,
        "queries": None if queries is None else queries.source,
        "n": report.n,
        "m": report.m,
        "d": analysis.points.vectors.shape[1],
        "k": report.k,
        "metric": report.metric,
        "in_sample": report.in_sample,
        "include_self": report.include_self,
        "recall": report.recall,
        "indices": report.indices(),
        "null": report.null.indices(),
        "thinned": None if report.thinned is None else report.thinned._asdict(),
        "warnings": list(analysis.warnings),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """The whole file or none of it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def number(value: float | None) -> str:
    """About four digits, or a dash where there is none."""
    if value is None:
        return NONE
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def against(index: str, value: float, chance: float | None) -> str:
    """How far an index is from chance: the difference for the skewness, whose zero means nothing, else the ratio."""
    if index == "k_skewness" and chance is not None:
        return f"{value - chance:+.3f}"
    return f"{value / chance:,.2f} x" if chance else NONE


def spaced(method: str) -> Text:
    """A method as the command line writes it, with places where a narrow column may break it."""
    return Text(method.replace("+", " + ").replace(":", ": ").replace(",", ", "))


def _thinned(report: HubnessReport) -> str | None:
    if report.thinned is None:
        return None
    return f"k-skewness over all {report.thinned.queries:,} queries, estimated: {report.thinned.k_skewness:.3f}"


def _one_line(cell: object) -> str:
    text = " ".join(str(cell).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
