"""What every study leaves behind: a table on the terminal, CSV files and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from callbacks.csv_files import write_csv
from callbacks.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

StudyRow = dict[str, Any]
"""A line of a table by column: text, numbers, or None where a value is undefined."""


def show(title: str, rows: Sequence[StudyRow]) -> None:
    """Print rows of the same columns as a table; numbers have four digits."""
    table = Table(title=Text(title), title_justify="left")
    for name, value in rows[0].items():
        table.add_column(Text(name), justify="left" if isinstance(value, str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row.values()))
    Console().print(table)


def publish(
    folder: Path, *, tables: Mapping[str, Sequence[StudyRow]] | None = None, figures: Mapping[str, Figure] | None = None
) -> None:
    """Write tables (``.csv``) and figures (``.png``) under their names into a folder, and say so."""
    written = [_write(folder / f"{name}.csv", rows) for name, rows in (tables or {}).items()]
    written += [save_figure(figure, folder / f"{name}.png") for name, figure in (figures or {}).items()]
    for path in written:
        print(f"likeness: wrote {path}")


def _write(path: Path, rows: Sequence[StudyRow]) -> Path:
    columns = list(rows[0]) if rows else []
    return write_csv(path, columns, ([row[name] for name in columns] for row in rows))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
