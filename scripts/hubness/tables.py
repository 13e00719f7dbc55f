"""Tables and files of an analysis of hubness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likeness.hubness.analysis import HubnessReport
from likeness.hubness.indices import HubnessIndices
from scripts.hubness.analysis import Analysis
from scripts.reporting import Report, Row, write_array, write_json

NAMES = {
    "k_skewness": "k-skewness",
    "robin_hood": "Robin Hood",
    "gini": "Gini",
    "atkinson": "Atkinson, 1/2",
    "shannon_evenness": "1 - Shannon evenness",
    "antihub_rate": "antihubs, of points",
    "hub_rate": "hubs, of points",
    "hub_occurrence": "hubs, of places",
    "groupie_ratio": "largest hub, of places",
    "max_occurrence": "largest hub, N",
    "asymmetry": "one-way edges",
    "bad_occurrence": "other label, of places",
}
SHOWN = 100  # characters of a text


def index_table(analysis: Analysis) -> Report:
    """Each index beside what it is where neighbours are drawn at random: their difference, and their ratio."""
    report, null = analysis.report, shown_indices(analysis.report.null)
    rows: list[Row] = []
    for index, value in shown_indices(report).items():
        chance = null.get(index)
        excess, ratio = (None, None) if chance is None else (value - chance, value / chance if chance else None)
        rows.append({"index": NAMES[index], "value": value, "by chance": chance, "excess": excess, "ratio": ratio})
    return Report(title(analysis), rows, notes=thinned_note(report))


def index_file(report: HubnessReport) -> Report:
    """Each index by its name in Python, with its null, and the metric and recall on which it depends."""
    null = report.null.indices()
    rows: list[Row] = []
    for index, value in report.indices().items():
        chance = null.get(index)
        row: Row = {"index": index, "value": value, "null": chance}
        if chance is not None:
            row |= {"excess": value - chance, "ratio": value / chance if chance else None}
        rows.append(row | {"metric": report.metric, "recall": report.recall})
    return Report("", rows)


def shown_indices(of: HubnessIndices) -> dict[str, float]:
    """Every index by name, of the evenness what it lacks to 1: that grows with hubness, as the others do."""
    return of.indices() | {"shannon_evenness": 1 - of.shannon_evenness}


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


def thinned_note(report: HubnessReport) -> tuple[str, ...]:
    """The skewness over all queries where some were searched, or why there is no estimate of it."""
    if report.thinned is None:
        return ()
    if report.thinned.k_skewness is None:
        return (f"k-skewness over all queries: no estimate, since {report.thinned.reason}",)
    return (f"k-skewness over all {report.thinned.queries:,} queries, estimated: {report.thinned.k_skewness:.3f}",)


def with_recall(name: str, report: HubnessReport) -> str:
    """A name for figures, with the recall where that is not 1."""
    return f"{name} (recall {report.recall:.3f})" if report.recall < 1 else name


def hub_table(analysis: Analysis, top: int) -> Report:
    """The ``top`` hubs: row in the file, N, how many of these queries have another label, label and text."""
    points = analysis.points
    ids, occurrences = (values.tolist() for values in analysis.report.top_hubs(top))
    columns: dict[str, Sequence[Any]] = {"row": ids, "N": occurrences}
    if analysis.bad is not None:
        columns["other label"] = analysis.bad[ids].tolist()
    for name, known in (("label", points.labels), ("text", points.texts)):
        if known is not None:
            columns[name] = [known[row] for row in ids]
    return Report("largest hubs", [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


def shortened(table: Report) -> Report:
    """The table with texts of one line each, for the terminal."""
    rows = [
        {name: _one_line(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in table.rows
    ]
    return Report(table.title, rows, table.about, table.notes)


def _one_line(cell: str) -> str:
    text = " ".join(cell.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def write_all(analysis: Analysis, folder: Path, top: int) -> list[Path]:
    """indices.csv, hubs.csv, report.json and k_occurrence.npy in a folder, which is made; answers the files."""
    return [
        index_file(analysis.report).write(folder / "indices.csv"),
        hub_table(analysis, top).write(folder / "hubs.csv"),
        write_json(folder / "report.json", as_json(analysis)),
        write_array(folder / "k_occurrence.npy", analysis.report.k_occurrence.cpu().numpy()),
    ]


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
