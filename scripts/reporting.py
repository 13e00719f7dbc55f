"""Tables of commands, on the terminal and as CSV or JSON files; figures beside them; progress bars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from likeness.figures.output import save_formats, write_csv
from likeness.files.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 200  # characters
Row = dict[str, Any]  # text, numbers, or None where a value is undefined


@dataclass(frozen=True)
class Report:
    """Rows of the same columns: on the terminal under a title and with four decimals, in a file with all digits.

    ``about`` is what all rows share, and the title says: only the file has columns of it. ``notes`` are footnotes.
    """

    title: str
    rows: Sequence[Row]
    about: Row = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The rows' columns, in the order in which they appear, without those in which no row says anything."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if any(row.get(name) is not None for row in self.rows)]

    def show(self) -> None:
        """Print the title, the table and its footnotes, in a file or a pipe as wide as they are."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDE)
        console.print(Text(self.title))
        console.print(self._table())
        for note in self.notes:
            console.print(Text(note))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in self.columns:
            numbers = not any(isinstance(row.get(name), str) for row in self.rows)
            table.add_column(Text(name), justify="right" if numbers else "left", no_wrap=numbers)
        for row in self.rows:
            table.add_row(*(Text(shown(row.get(name))) for name in self.columns))
        return table

    def write(self, path: Path) -> Path:
        """Write a CSV file, or by its suffix a JSON file, whole or not at all; its folder is made."""
        if path.suffix == ".json":
            return write_json(path, {"title": self.title, **self.about, "rows": list(self.rows), "notes": self.notes})
        columns = [*self.about, *self.columns]
        rows: list[Row] = [{**self.about, **row} for row in self.rows]
        return write_csv(path, columns, ([row.get(name) for name in columns] for row in rows))


def shown(value: Any) -> str:
    """A cell as it is printed: four decimals, or as many digits where these say nothing; empty for None."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file, whole or not at all; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def write_array(path: Path, array: Any) -> Path:
    """Write a .npy file, whole or not at all; its folder is made."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return path


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> Path:
    """Write an uncompressed .npz file, whole or not at all; its folder is made."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return path


def publish(
    folder: Path, *, tables: Mapping[str, Sequence[Row]] | None = None, figures: Mapping[str, Figure] | None = None
) -> None:
    """Write tables (``.csv``) and figures (``.png`` and ``.pdf``) under their names into a folder, and say so."""
    written = [_write(folder / f"{name}.csv", rows) for name, rows in (tables or {}).items()]
    written += chain.from_iterable(save_formats(figure, folder, name) for name, figure in (figures or {}).items())
    for path in written:
        print(f"likeness: wrote {path}")


def _write(path: Path, rows: Sequence[Row]) -> Path:
    # Every column of the first row is written, said or not: readers of the file find the same columns each time.
    columns = list(rows[0]) if rows else []
    return write_csv(path, columns, ([row[name] for name in columns] for row in rows))


def distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """The values of a column, each once, in the order in which they appear."""
    return list(dict.fromkeys(row[name] for row in rows))


def grouped(rows: Sequence[Row], name: str) -> dict[Any, list[Row]]:
    """The rows by their value of a column, in the order in which the values appear."""
    return {value: [row for row in rows if row[name] == value] for value in distinct(rows, name)}


Item = TypeVar("Item")
