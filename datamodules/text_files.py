"""Columns out of CSV, TSV and Parquet files, with errors that name file, line and column."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.errors import DataError, missing

_UNDECODED = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte that is no character


@dataclass(frozen=True)
class TableFormat:
    """How the cells of a CSV or TSV file are written; Parquet files need none of this.

    Args:
        columns: Names of the columns of a file without a header; None reads them from its first line.
        delimiter: The character between cells; None means a tab in .tsv files and a comma in others.
        quoted: Whether cells may stand in double quotes. In a file that does not quote, a quotation mark is a
            character like any other.
        ragged: Lines may have more cells than there are columns; the further ones are left out.
        encoding: Name of the character encoding; utf-8-sig is UTF-8 with or without a byte order mark.
    """

    columns: tuple[str, ...] | None = None
    delimiter: str | None = None
    quoted: bool = True
    ragged: bool = False
    encoding: str = "utf-8-sig"

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError(f"delimiter must be one character, got {self.delimiter!r}")


CSV = TableFormat()


class Table(NamedTuple):
    """Some columns of a file, each of N cells, and the N places in the file where the rows stand."""

    path: Path
    columns: dict[str, list[Any]]
    places: list[int]
    unit: str  # what a place counts from 1: "line" of a text file, "row" of a Parquet file

    def place(self, row: int, column: str) -> str:
        """Where a cell stands, for messages."""
        return f"{self.path}, {self.unit} {self.places[row]}, column {column!r}"

    def texts(self, column: str) -> list[str]:
        """The cells of a column of text [N]; a null is an empty text. Raises DataError for any other type."""
        cells = self.columns[column]
        for row, cell in enumerate(cells):
            if cell is not None and not isinstance(cell, str):
                raise DataError(f"{self.place(row, column)}: expected a text, got {cell!r}")
        return [cell or "" for cell in cells]


def read_table(path: Path, columns: Sequence[str], file_format: TableFormat = CSV) -> Table:
    """The named columns of a CSV, TSV or Parquet file; cells of Parquet files keep their types, others are str.

    Blank lines are skipped. Raises DataError, naming file, line and column, where the file is missing or empty, a
    column is not there, a line has too few or too many cells, or a byte is no character of the encoding.
    """
    if not path.is_file():
        raise missing(path, "name a CSV, TSV or Parquet file that is there")
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    table = read(path, columns, file_format)
    if not table.places:
        raise DataError(f"{path} is empty: it has no {table.unit} of data")
    return table


def _read_csv(path: Path, columns: Sequence[str], file_format: TableFormat) -> Table:
    delimiter = file_format.delimiter or ("\t" if path.suffix == ".tsv" else ",")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if file_format.quoted else csv.QUOTE_NONE
    try:
        with path.open(encoding=file_format.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            return _columns_of(path, _numbered(path, reader), columns, file_format)
    except UnicodeDecodeError as error:
        raise _undecodable(path, file_format.encoding) from error


def _numbered(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line on which it begins."""
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}: the row that begins in line {line} cannot be read ({error}); "
            "is each quotation mark closed, or is this a file that does not quote (file_format.quoted: false)?"
        ) from error


def _columns_of(
    path: Path, rows: Iterator[tuple[int, list[str]]], columns: Sequence[str], file_format: TableFormat
) -> Table:
    names = file_format.columns or next(rows, (0, []))[1]
    if not names:
        raise DataError(f"{path} is empty: it has no line of data")
    wanted = [_index(path, names, column) for column in columns]
    cells_of: list[list[str]] = [[] for _ in columns]
    places = []
    for line, cells in rows:
        _check_width(path, line, cells, names, file_format.ragged)
        places.append(line)
        for column, index in zip(cells_of, wanted, strict=True):
            column.append(cells[index])
    return Table(path, dict(zip(columns, cells_of, strict=True)), places, "line")


def _index(path: Path, names: Sequence[str], column: str) -> int:
    if (count := list(names).count(column)) != 1:
        how_many = "no column" if count == 0 else f"{count} columns"
        raise DataError(
            f"{path} has {how_many} {column!r}, but: {', '.join(map(repr, names))}; "
            "a file without a header needs file_format.columns"
        )
    return list(names).index(column)


def _check_width(path: Path, line: int, cells: list[str], names: Sequence[str], ragged: bool) -> None:
    if len(cells) < len(names):
        raise DataError(
            f"{path}, line {line}, column {names[len(cells)]!r} is missing: {len(cells)} cells, expected {len(names)}"
        )
    if len(cells) > len(names) and not ragged:
        raise DataError(
            f"{path}, line {line}: {len(cells)} cells, expected {len(names)}, so {cells[len(names)]!r} is in no column"
        )


def _undecodable(path: Path, encoding: str) -> DataError:
    how = f"{path} is not in {encoding}: name its file_format.encoding, latin-1 perhaps"
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            if found := _UNDECODED.search(line):
                byte = ord(found[0]) - 0xDC00
                return DataError(f"{how}; byte 0x{byte:02x} in line {number}, character {found.start() + 1}")
    return DataError(how)


def _read_parquet(path: Path, columns: Sequence[str], file_format: TableFormat) -> Table:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise DataError(f'{path} needs pyarrow to be read: pip install -e ".[parquet]"') from error
    try:
        names = parquet.read_schema(path).names
        for column in columns:
            _index(path, names, column)
        cells = parquet.read_table(path, columns=list(columns))
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error
    places = list(range(1, cells.num_rows + 1))
    return Table(path, {name: cells.column(name).to_pylist() for name in columns}, places, "row")
