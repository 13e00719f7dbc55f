"""A table for the terminal that is a CSV file as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from callbacks.csv_files import write_csv

Cell = str | int | float | None  # None where a row has nothing to say
Row = dict[str, Cell]


@dataclass(frozen=True)
class Report:
    """Rows of the same columns: on the terminal under a title and with four decimals, in a file with all digits.

    ``about`` is what all rows share, and the title says: only the file has columns of it.
    """

    title: str
    rows: Sequence[Row]
    about: Row = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Of the rows, in the order in which they appear; columns in which no row says anything are left out."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [name for name in names if any(row.get(name) is not None for row in self.rows)]

    def show(self) -> None:
        """Print the title and the table."""
        console = Console()
        console.print(self.title, highlight=False)
        console.print(self._table())

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in self.columns:
            numbers = not any(isinstance(row.get(name), str) for row in self.rows)
            table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers)
        for row in self.rows:
            table.add_row(*(_shown(row.get(name)) for name in self.columns))
        return table

    def write(self, path: Path) -> Path:
        """The whole file or none of it; its folder is made."""
        columns = [*self.about, *self.columns]
        rows: list[Mapping[str, Cell]] = [{**self.about, **row} for row in self.rows]
        return write_csv(path, columns, ([row.get(name) for name in columns] for row in rows))


def _shown(value: Cell) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"
