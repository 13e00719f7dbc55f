"""One reduction of hubness, fitted and measured, with what it makes of the points written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from callbacks.csv_files import write_csv
from callbacks.figures import save_figure
from callbacks.hubness_figures import k_occurrence_figure
from likeness.measures.hubness import HubnessReport
from likeness.measures.reduction_base import HubnessReduction
from scripts.hubness_analysis import Search, analyse, report_on, require_comparable
from scripts.hubness_export import Engine, require_faiss, served_share, write_augmented, write_neighbours, write_vectors
from scripts.hubness_points import Points
from scripts.hubness_tables import NAMES, NONE, number, shown_indices, spaced, title

ENOUGH = 0.95  # of the neighbours; an index that finds fewer is printed in yellow


class Reduced(NamedTuple):
    """What is to be printed, and the files that were written."""

    printed: list[Table | Text]
    written: list[Path]


def reduce_points(
    text: str,
    method: HubnessReduction,
    points: Points,
    queries: Points | None,
    bank: Points | None,
    search: Search,
    engine: Engine | None,
    folder: Path,
) -> Reduced:
    """Fit the method that ``text`` names, re-rank, and write what comes of it; for an ``engine`` also vectors.

    Raises NotImplementedError, before anything is written, where a method has no vectors for engines.
    """
    require_comparable(points, queries, search)
    method.fit(points.vectors, None if bank is None else bank.vectors)
    if engine is not None:
        method.augment()
        require_faiss()
    before = analyse(points, queries, search)
    found = method.rerank(None if queries is None else queries.vectors, search.k)
    after = replace(report_on(points, queries, search, found.ids), metric=text)
    written = [
        write_neighbours(folder / "neighbours.npz", found),
        *write_vectors(folder, method, points, queries),
        write_csv(folder / "reduction.csv", *_rows(before.report, after)),
        save_figure(k_occurrence_figure({"before": before.report, text: after}), folder / "k_occurrence.png"),
    ]
    printed: list[Table | Text] = [Text(title(before))]
    printed += [Text(f"warning: {warning}", style="yellow") for warning in before.warnings]
    printed.append(reduction_table(text, before.report, after))
    if engine is not None:
        files = write_augmented(folder, method, text, queries, engine)
        written += files
        index = next(path for path in files if path.suffix == ".faiss")
        share = served_share(index, method, None if queries is None else queries.vectors, found)
        found_again = f"the FAISS index finds {100 * share:.2f} % of these neighbours"
        printed.append(Text(found_again, style="yellow" if share < ENOUGH else ""))
    return Reduced(printed, written)


def reduction_table(text: str, before: HubnessReport, after: HubnessReport) -> Table:
    """Each index before and after, and by how many percent of the former it has fallen."""
    table = Table()
    table.add_column("")
    for name in ("by chance", "before", text, "fallen by, %"):
        table.add_column(spaced(name), justify="right")
    chance, first, second = (shown_indices(indices) for indices in (before.null, before, after))
    for name, value in first.items():
        if name in second:
            fallen = f"{100 * (value - second[name]) / value:.1f}" if value else NONE
            table.add_row(NAMES[name], number(chance.get(name)), number(value), number(second[name]), fallen)
    return table


def _rows(before: HubnessReport, after: HubnessReport) -> tuple[list[str], list[list[object]]]:
    chance, values = before.null.indices(), after.indices()
    rows: list[list[object]] = []
    for name, value in before.indices().items():
        if name in values:
            fallen = 100 * (value - values[name]) / value if value else None
            rows.append([name, chance.get(name), value, values[name], fallen])
    return ["index", "null", "before", "after", "reduction_percent"], rows
