"""Documents out of text files, folders of them, tables, Parquet files and Hugging Face data sets, one by one.

A source is gone through several times, and is never in memory as a whole. Documents and their order are a function of
the files: those of a folder come in the order of their paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from datamodules.docstrings import standard_library_docstrings
from datamodules.own.datamodule import SPELLINGS
from datamodules.own.huggingface import is_saved_dataset, may_be_hub_name, open_dataset, split_names
from datamodules.splits import SplitName
from likeness.checks import require_one_of
from likeness.files.columns import TEXTS
from likeness.files.errors import DataError, missing
from likeness.files.text_files import (
    CSV,
    existing_file,
    is_parquet,
    kind_suffix,
    open_parquet,
    parquet_texts,
    read_header,
    read_table,
    text_lines,
)

DOCSTRINGS = "docstrings"
TABLES = (".csv", ".tsv")
Unit = Literal["file", "line"]
_ROWS = 1000  # of a data set that are read at once
_NAMED = 5  # kinds of files, in a message


class Document(NamedTuple):
    """A text, and where it stands, for messages."""

    text: str
    place: str


Reader = Callable[[], Iterator[Document]]


@dataclass(frozen=True)
class Reading:
    """How documents are found in files.

    Args:
        unit: Whether a text file is a document, or each of its lines.
        pattern: Which files of a folder are texts.
        column: The column of texts in tables, Parquet files and data sets; None: the one that is called as texts
            usually are.
        encoding: Of text files.
    """

    unit: Unit = "file"
    pattern: str = "*.txt"
    column: str | None = None
    encoding: str = CSV.encoding

    def __post_init__(self) -> None:
        require_one_of(self.unit, get_args(Unit), "unit")


def open_documents(source: str, reading: Reading) -> Mapping[SplitName, Reader]:
    """The parts of a source that are there, "train" among them, each a function that goes through its documents.

    source: a text file, a table, a Parquet file, a folder of such, one with a folder or file for each part, a folder
    of ``save_to_disk``, the name of a data set in the local cache of the hub, or "docstrings", those of the standard
    library. Raises DataError naming what is not there.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return {"train": partial(_of_files, [path], reading)}
    if path.is_dir() and not is_saved_dataset(path):
        parts = _parts_of(path, reading)
    elif source == DOCSTRINGS:
        return {"train": _docstrings}
    elif path.is_dir() or may_be_hub_name(source):
        parts = _parts_of_dataset(source, reading)
    else:
        raise missing(path, "name a file or a folder of texts")
    if "train" not in parts:
        raise DataError(f"{source} has no training part, but {' and '.join(parts)}")
    return parts


def _docstrings() -> Iterator[Document]:
    for docstring in standard_library_docstrings():
        yield Document(docstring.text, f"the docstring of {docstring.module}")


def _parts_of(folder: Path, reading: Reading) -> dict[SplitName, Reader]:
    """The parts after which files or folders inside are named, else the training part."""
    children = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    spelt: dict[str, SplitName] = {name: part for part, names in SPELLINGS.items() for name in names}
    part_of = {path: spelt.get(path.name.partition(".")[0].partition("-")[0].lower()) for path in children}
    named = [part for part in SPELLINGS if part in part_of.values()]
    if not named:
        return {"train": partial(_of_files, _files(folder, reading), reading)}
    if others := [path for path, part in part_of.items() if part is None and _texts_in(path, reading)]:
        raise DataError(f"{others[0]} belongs to none of the parts {', '.join(named)} that {folder} has")
    found = {part: [path for path, its in part_of.items() if its == part] for part in named}
    return {
        part: partial(_of_files, [file for path in paths for file in _files(path, reading)], reading)
        for part, paths in found.items()
    }


def _files(path: Path, reading: Reading) -> list[Path]:
    """The file, or the Parquet files or else the texts below a folder, in the order of their paths."""
    if path.is_file():
        return [path]
    if found := _texts_in(path, reading):
        return found
    kinds = Counter(file.suffix or "no suffix" for file in path.rglob("*") if file.is_file())
    there = ", ".join(f"{suffix} ({count})" for suffix, count in kinds.most_common(_NAMED)) or "nothing"
    raise DataError(f"{path} has no files {reading.pattern} or *.parquet, but {there}: name a pattern")


def _texts_in(path: Path, reading: Reading) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".parquet" or path.match(reading.pattern) else []
    for pattern in ("*.parquet", reading.pattern):
        found = (file for file in path.rglob(pattern) if file.is_file())
        if visible := sorted(f for f in found if not any(n.startswith(".") for n in f.relative_to(path).parts)):
            return visible
    return []


def _of_files(files: Sequence[Path], reading: Reading) -> Iterator[Document]:
    for path in map(existing_file, files):
        if is_parquet(path):
            yield from _of_parquet(path, reading.column)
        elif kind_suffix(path) in TABLES:
            column = _text_column(read_header(path), reading.column, path)
            table = read_table(path, [column])
            for row, text in enumerate(table.texts(column)):
                yield Document(text, table.place(row, column))
        elif reading.unit == "line":
            for number, line in enumerate(text_lines(path, reading.encoding), start=1):
                yield Document(line.rstrip("\r\n"), f"{path}, line {number}")
        else:
            yield Document("".join(text_lines(path, reading.encoding)), str(path))


def _of_parquet(path: Path, column: str | None) -> Iterator[Document]:
    file = open_parquet(path)
    name = _text_column(file.schema_arrow.names, column, path)
    for row, text in enumerate(parquet_texts(file, name, path), start=1):
        yield Document(text, f"{path}, row {row}, column {name!r}")


def _parts_of_dataset(source: str, reading: Reading) -> dict[SplitName, Reader]:
    found = open_dataset(source)
    if not isinstance(found, Mapping):
        return {"train": partial(_of_dataset, found, reading.column, source)}
    there = split_names(found, SPELLINGS, source)
    if not there:
        raise DataError(f"{source} has the splits {', '.join(found)}, and none is called as a training part is")
    return {
        part: partial(_of_dataset, found[name], reading.column, f"{source}, {name}") for part, name in there.items()
    }


def _of_dataset(dataset: Any, column: str | None, where: str) -> Iterator[Document]:
    name = _text_column(list(dataset.features), column, where)
    row = 0
    for rows in dataset.select_columns([name]).iter(batch_size=_ROWS):
        for text in rows[name]:
            if not isinstance(text, str | None):
                raise DataError(f"{where}, row {row}, column {name!r}: expected a text, got {text!r:.80}")
            yield Document(text or "", f"{where}, row {row}, column {name!r}")
            row += 1


def _text_column(names: Sequence[str], column: str | None, where: object) -> str:
    """The column that is named, else the one called in a usual way, else the only one."""
    usual = [name for wanted in TEXTS for name in names if name.lower() == wanted]
    found = column or next(iter(usual), names[0] if len(names) == 1 else None)
    if found is None or found not in names:
        what = "no column of texts that is called as usual" if found is None else f"no column {found!r}"
        raise DataError(f"{where} has {what}, but: {', '.join(names)}; name the column")
    return found
