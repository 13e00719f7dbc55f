"""Texts and labels out of files: tables in CSV, TSV or Parquet, and files of lines.

Every reader of the project goes through here. Rows and lines are counted from 1 in messages, which name file, place
and column. What cannot be read for certain is refused: nothing is dropped, cut or guessed in silence.
"""

import bz2
import codecs
import csv
import gzip
import lzma
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TextIO

from likeness.files.errors import DataError, missing

# The longer marks first: that of UTF-32 begins like that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
# How files begin that are packed, and files that are no texts, whatever their names: patterns of bytes.
PACKED: dict[bytes, Callable[..., Any]] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9]1AY&SY": bz2.open,
    rb"\xfd7zXZ\x00": lzma.open,
}
FOREIGN = {
    rb"PK\x03\x04": "a zip archive",
    rb"\x28\xb5\x2f\xfd": "packed by zstd",
    rb"7z\xbc\xaf": "a 7z archive",
    rb"ARROW1\x00": "an Arrow or Feather file",
    rb"\x93NUMPY": "a numpy array",
    rb"%PDF-": "a PDF document",
}
PARQUET = b"PAR1"
DELIMITERS = (",", "\t", ";", "|")
BATCH = 1000  # rows of a Parquet file that are read at once
LOOKED_AT = 100  # rows that tell which character stands between cells
LINE_END = re.compile(r"\r\n|\r|\n")  # the only ones: U+2028 and its like are characters of a text
INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # what pandas calls the numbers of its rows
HOW_TO_SAY = "name another file_format.encoding in the data config (latin-1 perhaps), or convert the file by iconv"


@dataclass(frozen=True)
class TableFormat:
    """How the cells of a CSV or TSV file are written; Parquet files need none of this.

    Args:
        columns: Names of the columns of a file without a header; None reads them from its first line.
        delimiter: The character between cells; None is a tab in .tsv files and a comma in others, or the one of
            tab, comma, semicolon and bar that divides header and rows alike where that one does not.
        quoted: Whether cells may stand in double quotes. In a file that does not quote, a quotation mark is a
            character like any other.
        ragged: Lines may have more cells than there are columns; the further ones are left out.
        encoding: Name of the character encoding. With utf-8-sig, UTF-8 needs no byte order mark, and a file that
            begins with the mark of UTF-16 or UTF-32 is read as that.
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

    def labels(self, column: str) -> list[str]:
        """The cells of a column of labels [N] as texts, see :func:`label_texts`."""
        return label_texts(self.columns[column], lambda row: self.place(row, column))


def read_table(path: Path, columns: Sequence[str], file_format: TableFormat = CSV) -> Table:
    """The named columns of a CSV, TSV or Parquet file; cells of Parquet files keep their types, others are str.

    A file is Parquet if its first bytes say so; others may be packed by gzip, bzip2 or xz. Blank lines are skipped.
    Raises DataError, naming file, line and column, where the file is missing or empty, a column is not there, a line
    has too few or too many cells, or a byte is no character of the encoding.
    """
    path = existing_file(path)
    table = _read_parquet(path, columns) if is_parquet(path) else _read_csv(path, columns, file_format)
    if not table.places:
        raise DataError(f"{path} is empty: it has no {table.unit} of data")
    return table


def read_header(path: Path, file_format: TableFormat = CSV) -> list[str]:
    """The names of the columns of a CSV or TSV file."""
    names = file_format.columns or next(iter(_rows(existing_file(path), file_format)), (1, []))[1]
    if not names:
        raise DataError(f"{path} is empty: it has no line of data")
    return list(names)


def read_lines(path: Path, encoding: str = CSV.encoding) -> list[str]:
    """The lines of a text file without their ends: \\n, \\r or \\r\\n, and nothing else. Raises DataError."""
    with _opened(existing_file(path), encoding) as lines:
        return [line.rstrip("\r\n") for line in lines]


def text_lines(path: Path, encoding: str = CSV.encoding) -> Iterator[str]:
    """The lines of a text file one by one, with their ends as they are; together they are its text."""
    with _opened(existing_file(path), encoding) as lines:
        yield from lines


def label_texts(cells: Sequence[Any], place: Callable[[int], str]) -> list[str]:
    """Labels [N] as texts, whole numbers without a decimal point. ``place`` says where a row stands.

    Raises DataError for the first that is missing (null, NaN, blank) or neither a text nor a number.
    """
    return [_label_text(cell, row, place) for row, cell in enumerate(cells)]


def _label_text(cell: Any, row: int, place: Callable[[int], str]) -> str:
    if cell is None or str(cell).strip().lower() in ("", "nan"):
        raise DataError(f"{place(row)}: the label is missing")
    if not isinstance(cell, str | bool | int | float) or (isinstance(cell, float) and math.isinf(cell)):
        raise DataError(f"{place(row)}: a label is a text or a finite number, got {cell!r}")
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def ordered_labels(labels: Iterable[str]) -> list[str]:
    """The distinct labels: in the order of the numbers where all are numbers, else in that of the alphabet."""
    distinct = sorted(set(labels))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def existing_file(path: Path) -> Path:
    """The path with ``~`` replaced. Raises DataError where it is a folder, or missing."""
    path = path.expanduser()
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in it")
    if not path.is_file():
        raise missing(path, "name a file that is there")
    return path


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet: its name says so, or its first and its last bytes."""
    with path.open("rb") as file:
        start = file.read(len(PARQUET))
        file.seek(max(0, file.seek(0, 2) - len(PARQUET)))
        return path.suffix == ".parquet" or start == file.read() == PARQUET


def refuse_packed(path: Path) -> None:
    """Raise DataError for a file that is packed, where the library that reads it cannot unpack it."""
    if _begins(path, PACKED):
        raise DataError(f"{path} is packed by gzip, bzip2 or xz, and only files of text are unpacked: unpack it first")


def _begins(path: Path, patterns: Mapping[bytes, Any]) -> Any:
    """The entry of the pattern that the first bytes of a file match, or None."""
    with path.open("rb") as file:
        first = file.read(16)
    return next((entry for pattern, entry in patterns.items() if re.match(pattern, first)), None)


def kind_suffix(path: Path) -> str:
    """The suffix that says what a file is, in lower case: ``.csv`` of ``a.csv`` and of ``a.csv.gz``."""
    packed = path.suffix.lower() in (".gz", ".bz2", ".xz")
    return (Path(path.stem) if packed else path).suffix.lower()


def read_bytes(path: Path) -> bytes:
    """The whole content of a file, unpacked. Raises DataError where it is of a foreign kind or damaged."""
    with _unpacked(path) as file:
        return file.read()


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """A file opened for reading, through gzip, bzip2 or xz where its first bytes are theirs."""
    if kind := _begins(path, FOREIGN):
        raise DataError(f"{path} is {kind}, not the text that its name promises")
    try:
        with (_begins(path, PACKED) or open)(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged and cannot be unpacked: {error}") from error


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[Iterator[str]]:
    """The lines of a text file with their ends, checked for what no text holds."""
    encoding = _encoding_of(path, encoding)
    try:
        with _unpacked(path) as raw, TextIOWrapper(raw, encoding=encoding, newline="") as file:
            yield _checked(path, file)
    except UnicodeDecodeError as error:
        raise _undecodable(path, encoding) from error


def _encoding_of(path: Path, named: str) -> str:
    """The encoding that is named, or that the file's byte order mark names where UTF-8 was expected."""
    try:
        known = codecs.lookup(named).name
        TextIOWrapper(BytesIO(), encoding=named)  # refuses codecs that give no characters, such as hex
    except LookupError as error:
        raise DataError(f"{path}: there is no encoding {named!r}; {HOW_TO_SAY}") from error
    with _unpacked(path) as file:
        first = file.read(4)
    mark = next((name for bytes_, name in MARKS.items() if first.startswith(bytes_)), None)
    if mark is None:
        return named
    if known in ("utf-8", "utf-8-sig") or known.startswith(mark):
        return mark
    raise DataError(f"{path} begins with the byte order mark of {mark}, but file_format.encoding is {named!r}")


def _checked(path: Path, file: TextIO) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            reason = f"UTF-16 without a byte order mark? {HOW_TO_SAY}"
            raise DataError(f"{path}, line {number} holds the character NUL, which no text does: {reason}")
        if line.startswith("\ufeff"):
            raise DataError(f"{path}, line {number} begins with a byte order mark: was another file appended here?")
        yield line


def _undecodable(path: Path, encoding: str) -> DataError:
    """The first byte that is no character, found by decoding the file as a whole."""
    raw = read_bytes(path)
    try:
        raw.decode(encoding)
    except UnicodeDecodeError as error:
        before, byte = error.object[: error.start], error.object[error.start]  # without a byte order mark
        lines = LINE_END.split(before.decode(encoding, errors="replace"))
        found = f"byte 0x{byte:02x} in line {len(lines)}, character {len(lines[-1]) + 1}"
        return DataError(f"{path} is not in {encoding}: {found}; {HOW_TO_SAY}")
    return DataError(f"{path} is not in {encoding}; {HOW_TO_SAY}")


def _read_csv(path: Path, columns: Sequence[str], file_format: TableFormat) -> Table:
    rows = _rows(path, file_format)
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


def _rows(path: Path, file_format: TableFormat, delimiter: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line on which it begins."""
    delimiter = delimiter or file_format.delimiter or _delimiter(path, file_format)
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if file_format.quoted else csv.QUOTE_NONE
    line = 1
    with _opened(path, file_format.encoding) as lines, _cells_of_any_length():
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
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


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Python's csv module refuses cells of more than 131,072 characters, which documents have."""
    previous = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(previous)


def _delimiter(path: Path, file_format: TableFormat) -> str:
    """The character between cells: that of the suffix, or another one that alone divides header and rows alike.

    Raises DataError where the header is one cell by the suffix, and it is not certain that it is.
    """
    usual = "\t" if kind_suffix(path) == ".tsv" else ","
    if file_format.columns is not None:
        return usual
    widths = {character: _widths(path, file_format, character) for character in DELIMITERS}
    divided = [character for character in DELIMITERS if widths[character][:1] > [1]]
    if usual in divided or not divided:
        return usual
    alike = [character for character in divided if len(set(widths[character])) == 1]
    if len(alike) == 1 and len(widths[alike[0]]) > 1:
        return alike[0]
    found = " or ".join(map(repr, divided))
    raise DataError(
        f"{path}, line 1 has one column between {usual!r} but several between {found}: name file_format.delimiter in "
        f"a data config, or write the file with {usual!r}"
    )


def _widths(path: Path, file_format: TableFormat, delimiter: str) -> list[int]:
    """How many cells the first rows have with this character between them; none where they cannot be read so."""
    try:
        return [len(cells) for _, cells in islice(_rows(path, file_format, delimiter), LOOKED_AT)]
    except DataError:
        return []


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


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    file = open_parquet(path)
    for column in columns:
        _index(path, file.schema_arrow.names, column)
    cells = {name: parquet_column(file, name, path).to_pylist() for name in columns}
    return Table(path, cells, list(range(1, file.metadata.num_rows + 1)), "row")


def open_parquet(path: Path) -> Any:
    """The opened file, of which nothing but the schema is read; raises DataError naming a file that is none."""
    refuse_packed(path)
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f'{path} needs pyarrow to be read: pip install -e ".[parquet]"') from error
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error


def parquet_column(file: Any, name: str, path: Path) -> Any:
    """One column of an opened file as a pyarrow Array, its categories as their values, an extension as its storage."""
    import pyarrow

    try:
        column = file.read(columns=[name]).column(0).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}, column {name!r} is damaged: {error}") from error
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    return column.dictionary_decode() if isinstance(column, pyarrow.DictionaryArray) else column


def parquet_texts(file: Any, name: str, path: Path) -> Iterator[str]:
    """The texts of one column of an opened file, one by one, few rows of it in memory; a null is an empty text."""
    import pyarrow

    row = 0
    try:
        for batch in file.iter_batches(columns=[name], batch_size=BATCH):
            for text in batch.column(0).to_pylist():
                row += 1
                if not isinstance(text, str | None):
                    raise DataError(f"{path}, row {row}, column {name!r}: expected a text, got {text!r:.80}")
                yield text or ""
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}, column {name!r} is damaged: {error}") from error
