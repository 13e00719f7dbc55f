"""Comparisons as pages: a matrix of all pairs of models or layers for each measure, with its null and its bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from likeness.figures.output import read_caption
from likeness.pages.parts import Cell, Frame, Matrix, Page, Part, Picture, Section, Table, distinct, shown

Row = Mapping[str, Cell]
COMPANIONS = ("_null", "_p", "_search", "_informative", "_null_ab", "_null_ba", "_p_ab", "_p_ba")
OTHER = {"model_a", "model_b", "undefined", "kept_inputs"}
PAIRS = ("model_a", "model_b")
LARGER, SMALLER = "Larger is more alike.", "Smaller is more alike."
MATRIX_FROM = 3  # models; two are one pair, which is a table


def comparison_parts(rows: Sequence[Row], models: Sequence[Row], name: str, where: str = "") -> list[Part]:
    """The parts of ``comparison.csv`` and ``models.csv``: heat maps of three models and more, and the tables."""
    parts: list[Part] = []
    named = list(dict.fromkeys(str(row[side]) for row in rows for side in PAIRS if row.get(side) is not None))
    if len(named) >= MATRIX_FROM:
        parts += [_matrix(rows, named, measure, name, where) for measure in measures(rows)]
    if models:
        parts.append(table(f"{name}/models", f"Models{where}", models))
    if rows:
        pairs = table(f"{name}/pairs", f"Pairs{where}", rows)
        parts.append(replace(pairs, folded=len(named) >= MATRIX_FROM))
    return parts


def layer_parts(rows: Sequence[Row], name: str, where: str = "") -> list[Part]:
    """The parts of ``layers.csv``: a matrix of layers for each measure."""
    found = dict.fromkeys(str(row["measure"]) for row in rows)
    return [_layers([row for row in rows if row["measure"] == measure], measure, name, where) for measure in found]


def _layers(rows: Sequence[Row], measure: str, name: str, where: str) -> Matrix:
    own, others = (list(dict.fromkeys(str(row[side]) for row in rows)) for side in ("layer_a", "layer_b"))
    values = np.full((len(own), len(others)), np.nan)
    remarks = [[""] * len(others) for _ in own]
    for row in rows:
        i, j, value = own.index(str(row["layer_a"])), others.index(str(row["layer_b"])), row.get("value")
        values[i, j] = value if isinstance(value, int | float) else np.nan
        told = {key: row.get(key) for key in ("p_value", "score", "low", "high", "undefined")}
        remarks[i][j] = "; ".join(f"{key}: {shown(cell)}" for key, cell in told.items() if cell is not None)
    label, alike = called(measure)
    caption = f"{alike} Rows: layers of the first model, columns: of the second. A cell pointed at says what is known."
    return Matrix(
        *(f"{name}/{measure}", f"{label}, layers{where}", own, others, values, measure, caption, remarks),
        smaller_is_alike=alike == SMALLER,
    )


def table(name: str, title: str, rows: Sequence[Row], caption: str = "") -> Table:
    """Rows as they are, under all columns that any of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Table(name, title, columns, [[row.get(column) for column in columns] for row in rows], caption)


def write_comparison(
    folder: Path, title: str, about: str, parts: Sequence[Part], pictures: Sequence[Path] = ()
) -> list[Path]:
    """A page, ``index.html``, of these parts and of pictures that are there already as PNG and PDF files.

    Answers what was written.
    """
    from likeness.pages.writing import write_page

    drawn = [_picture(path) for path in pictures if path.suffix == ".png"]
    return write_page(Page(title, distinct([Section("Comparison", [*parts, *drawn])]), about), folder)


def _picture(path: Path) -> Picture:
    png, title = path.read_bytes(), path.stem.replace("_", " ").capitalize()
    return Picture(path.stem, title, [Frame("", png)], read_caption(png), path.with_suffix(".pdf").read_bytes())


def measures(rows: Sequence[Row]) -> list[str]:
    """The measures that the columns are of, without their directions, nulls, searches and bounds."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    bounds = {column.removesuffix("_informative") for column in columns if column.endswith("_informative")}
    own = [c for c in columns if not c.endswith(COMPANIONS) and c not in bounds | OTHER and _is_number(rows, c)]
    return list(dict.fromkeys(_root(column, columns) for column in own))


def called(measure: str) -> tuple[str, str]:
    """What a measure is called, with its unit, and which values of it are alike; its own name where it is unknown."""
    from likeness.similarity.catalogue import MEASURES

    if measure not in MEASURES:
        return measure, ""
    known = MEASURES[measure]
    return known.label, LARGER if known.larger_is_more_alike else SMALLER


def _root(column: str, columns: Sequence[str]) -> str:
    root = column[:-3]
    return root if column.endswith(("_ab", "_ba")) and {f"{root}_ab", f"{root}_ba"} <= {*columns} else column


def _is_number(rows: Sequence[Row], column: str) -> bool:
    return any(isinstance(row.get(column), int | float) for row in rows)


def _matrix(rows: Sequence[Row], names: list[str], measure: str, name: str, where: str) -> Matrix:
    values = np.full((len(names), len(names)), np.nan)
    remarks = [[""] * len(names) for _ in names]
    for row in rows:
        if any(row.get(side) is None for side in PAIRS):
            continue
        i, j = (names.index(str(row[side])) for side in PAIRS)
        for direction, a, b in (("_ab", i, j), ("_ba", j, i)):
            value = row.get(f"{measure}{direction}", row.get(measure))
            values[a, b] = value if isinstance(value, int | float) else np.nan
            remarks[a][b] = _remark(row, measure, direction)
    asymmetric = any(f"{measure}_ab" in row for row in rows)
    label, alike = called(measure)
    caption = (
        f"{alike} {'The first of a pair is the row, the second the column.' if asymmetric else 'Symmetric.'}".strip()
    )
    if any(map(any, remarks)):
        caption += " Point at a cell for what unrelated models would score, and for bounds."
    return Matrix(
        *(f"{name}/{measure}", f"{label}{where}", names, names, values, measure, caption, remarks),
        smaller_is_alike=alike == SMALLER,
    )


def _remark(row: Row, measure: str, direction: str) -> str:
    """What is known of a pair beside the value: null, p value, search and bounds."""
    said = []
    for suffix, words in (("_null", "if unrelated"), ("_p", "p"), ("_search", "search")):
        value = row.get(f"{measure}{suffix}{direction}", row.get(f"{measure}{suffix}"))
        if value is not None:
            said.append(f"{words}: {shown(value)}")
    for column in row:
        bound = column.removesuffix("_informative")
        if bound != column and BOUND_OF.get(bound) == measure and row.get(bound) is not None:
            remark = "" if row[column] == "yes" else ", says nothing"
            said.append(f"at most {shown(row[bound])} ({bound.replace('_', ' ')}{remark})")
    if isinstance(reason := row.get("undefined"), str) and measure in reason:
        said.append(reason)
    return "; ".join(said)


BOUND_OF = {"certificate": "max_d_svd_f", "paper_bound": "d_fg", "squared_bound": "d_fg"}  # columns of bounds
