"""The rows of a file: its embeddings, labels and texts by name, whatever its format. Nothing is executed."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.files.errors import DataError
from likeness.files.tensors import open_safetensors
from likeness.files.text_files import (
    DELIMITERS,
    INDEX,
    TableFormat,
    existing_file,
    is_parquet,
    kind_suffix,
    label_texts,
    open_parquet,
    parquet_column,
    read_bytes,
    read_header,
    read_lines,
    read_table,
    refuse_packed,
)

EMBEDDINGS = ("embeddings", "embedding", "vectors", "vector")
LABELS = ("labels", "label", "targets", "target", "y", "class")
TEXTS = ("texts", "text", "sentences", "sentence", "documents", "document")
NAMELESS = ""  # the one column of a file that names none
ALL = "*"  # the columns of a Parquet file that hold a number a row, together

Column = Tensor | list[Any]  # numbers of any shape, or a text or number for each row


@dataclass(frozen=True)
class Columns:
    """The content of a file by name: shapes are known, content is read on demand."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Column]
    unread: Mapping[str, str] = field(default_factory=dict)  # why a name is not among the shapes
    unit: str = "row"
    places: Sequence[int] | None = None  # where the rows stand, counted in units from 1

    def matrices(self) -> list[str]:
        """Names of what could be embeddings [n, d]."""
        return [name for name, shape in self.shapes.items() if len(shape) == 2]

    def lists(self) -> list[str]:
        """Names of what could be labels or texts [n]."""
        return [name for name, shape in self.shapes.items() if len(shape) == 1]

    def usual(self, names: Sequence[str]) -> list[str]:
        """Those of the lists that have one of these names, in capitals or not, in the order of the names."""
        lists = self.lists()
        return [found for name in names for found in lists if found.lower() == name]

    def listed(self, names: Sequence[str]) -> str:
        """Names with their shapes, for messages."""
        shown = [f"{name} {list(self.shapes[name])}".strip() for name in names[:12]]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return (", ".join(shown) or "none") + more

    def place(self, row: int, name: str) -> str:
        """Where a cell stands, for messages."""
        number = row + 1 if self.places is None else self.places[row]
        return f"{self.path}, {self.unit} {number}" + (f", column {name!r}" if name else "")

    def labels(self, name: str) -> list[str]:
        """A list [n] as labels; raises DataError for a missing one."""
        return label_texts(self._cells(name), lambda row: self.place(row, name))

    def texts(self, name: str) -> list[str]:
        """A list [n] as texts; raises DataError for a missing one."""
        cells = self._cells(name)
        for row, cell in enumerate(cells):
            if cell is None:
                raise DataError(f"{self.place(row, name)}: the text is missing")
        return [str(cell) for cell in cells]

    def _cells(self, name: str) -> list[Any]:
        column = self.read(name)
        return column.flatten().tolist() if isinstance(column, Tensor) else column


def open_columns(path: Path) -> Columns:
    """The content of a file by name.

    Raises DataError naming the file if it is missing, damaged, of another kind, or holds nothing.
    """
    path = existing_file(path)
    suffix = kind_suffix(path)
    if suffix not in READERS:
        raise DataError(f"{path} is none of {', '.join(READERS)}")
    columns = (_of_parquet if is_parquet(path) else READERS[suffix])(path)
    if not columns.shapes:
        why = "; ".join(f"{name} is {reason}" for name, reason in columns.unread.items())
        raise DataError(f"{path} holds no array of numbers and no text{': ' if why else ''}{why}")
    return columns


def _of_numpy(path: Path) -> Columns:
    """The array of a ``.npy`` file or those of an archive; one that is no plain numbers or texts is left unread.

    Others put pickles beside their numbers.
    """
    arrays, unread = {}, {}
    with _load_numpy(path) as loaded:
        for name, read in loaded.items():
            try:
                arrays[name] = _plain(read())
            except TypeError as error:
                unread[name] = str(error)
    if NAMELESS in unread:
        raise DataError(f"{path} holds {unread[NAMELESS]}")
    shapes = {name: _shape(name, array.shape) for name, array in arrays.items()}
    return Columns(path, shapes, lambda name: _as_column(arrays[name]), unread)


@contextmanager
def _load_numpy(path: Path) -> Iterator[dict[str, Callable[[], np.ndarray]]]:
    """What reads each array of a file, by name, while the file is open."""
    refuse_packed(path)
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = str(error)
        if "pickle" in reason:  # which numpy says of every file that it does not know
            known = path.read_bytes().startswith(b"\x93NUMPY")
            reason = "it holds pickled objects, which are not read" if known else "it does not begin like one"
        raise DataError(f"{path} is not a readable {path.suffix} file: {reason}") from error
    if isinstance(loaded, np.ndarray):
        yield {NAMELESS: lambda: loaded}
        return
    with loaded:
        yield {name: partial(_member, loaded, name, path) for name in loaded.files}


def _member(archive: Any, name: str, path: Path) -> np.ndarray:
    """One array of an archive. Raises TypeError for pickled objects and what is no array, DataError for damage."""
    try:
        member = archive[name]
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            reason = "pickled objects, which are not read: store it as plain numbers or texts"
            raise TypeError(f"{reason} (astype(str), perhaps)") from error
        raise DataError(f"{path} is damaged at {name}: {error}") from error
    if not isinstance(member, np.ndarray):
        raise TypeError("no array")
    return member


def _plain(array: np.ndarray) -> np.ndarray:
    """Real numbers or texts in a type that torch or Python has; raises TypeError for others, such as dates."""
    kind = array.dtype.kind
    if kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise TypeError("bytes that are not UTF-8") from error
    if kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:  # bfloat16, which numpy has not
        return torch.from_numpy(np.ascontiguousarray(array).view("int16")).view(torch.bfloat16).float().numpy()
    if kind not in "biufU":
        raise TypeError(f"{array.dtype}, neither real numbers nor texts")
    if kind == "u" and array.dtype.itemsize > 1:
        return array if array.ndim == 1 else array.astype("float64")
    return array.astype("float64") if kind == "f" and array.dtype.itemsize > 8 else array


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A column [n, 1] of labels or texts is the list [n]."""
    single = tuple(shape[1:]) == (1,) and name.lower() in (*LABELS, *TEXTS)
    return tuple(shape[:1] if single else shape)


def _as_column(array: np.ndarray) -> Column:
    if array.ndim < 2 or array.dtype.kind == "U":
        return list(array.reshape(-1).tolist())
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def _of_safetensors(path: Path) -> Columns:
    file = open_safetensors(path)
    shapes = {name: _shape(name, file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return Columns(path, shapes, file.get_tensor)


def _of_parquet(path: Path) -> Columns:
    """Columns of lists are matrices; without one, the columns of floating-point numbers are a matrix together.

    Neither the rows' own numbers that pandas stores nor what is called a label or a text belongs to that matrix.
    """
    from pyarrow import types

    file = open_parquet(path)
    rows, names = file.metadata.num_rows, file.schema_arrow.names
    shapes: dict[str, tuple[int, ...]] = {}
    unread = {name: f"the name of {names.count(name)} columns" for name in names if names.count(name) > 1}
    for column in (column for column in file.schema_arrow if column.name not in unread):
        type_, length = _stored(column.type), None
        if _is_list(type_):
            type_, length = _stored(type_.value_type), _length_of_lists(file, column.name, path)
        if not _is_number(type_) and (length is not None or not _is_text(type_)):
            unread[column.name] = f"{column.type}, neither real numbers nor texts"
            continue
        shapes[column.name] = (rows,) if length is None else (rows, length)
    floats = [
        c.name for c in file.schema_arrow if c.name in shapes and types.is_floating(c.type) and not _named(file, c.name)
    ]
    if len(floats) > 1 and all(len(shape) == 1 for shape in shapes.values()):
        shapes[ALL] = (rows, len(floats))
    return Columns(path, shapes, lambda name: _read_parquet(file, name, floats, path), unread)


def _stored(type_: Any) -> Any:
    """The type of the values behind categories and extensions."""
    from pyarrow import types

    type_ = getattr(type_, "storage_type", type_)
    return type_.value_type if types.is_dictionary(type_) else type_


def _is_list(type_: Any) -> bool:
    from pyarrow import types

    return any(is_(type_) for is_ in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _is_number(type_: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(type_) or types.is_floating(type_) or types.is_boolean(type_))


def _is_text(type_: Any) -> bool:
    from pyarrow import types

    return any(is_(type_) for is_ in (types.is_string, types.is_large_string, types.is_string_view))


def _named(file: Any, name: str) -> bool:
    """Whether a column of numbers is called a label or a text, or is pandas' index of the rows."""
    index = (file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
    return name in index or bool(INDEX.fullmatch(name)) or name.lower() in (*LABELS, *TEXTS)


def _length_of_lists(file: Any, name: str, path: Path) -> int:
    first = next(file.iter_batches(batch_size=1, columns=[name]), None)
    return 0 if first is None else len(first.column(0)[0] or ())


def _read_parquet(file: Any, name: str, floats: Sequence[str], path: Path) -> Column:
    """One column, or those that match a pattern, a row's numbers side by side; refuses missing and ragged rows."""
    if "*" in name and name not in file.schema_arrow.names:
        return _side_by_side(file, name, floats, path)
    cells = parquet_column(file, name, path)
    if not _is_list(cells.type):
        return list(cells.to_pylist())
    import pyarrow.compute as pc

    lengths = pc.list_value_length(cells).to_pylist()
    for row, length in enumerate(lengths):
        place = f"{path}, row {row + 1}, column {name!r}"
        if length is None:
            raise DataError(f"{place}: the embedding is missing")
        if length != lengths[0]:
            raise DataError(f"{place}: {length} numbers, but {lengths[0]} in row 1")
    flat = pc.list_flatten(cells)
    if flat.null_count:
        row = flat.is_null().to_numpy(zero_copy_only=False).argmax() // lengths[0]
        raise DataError(f"{path}, row {row + 1}, column {name!r}: a number of the embedding is missing")
    return _as_column(_plain(flat.to_numpy(zero_copy_only=False)).reshape(len(lengths), -1))


def _side_by_side(file: Any, pattern: str, floats: Sequence[str], path: Path) -> Tensor:
    """The columns of one number a row whose names match; with the pattern ``*``, those of floating-point numbers."""
    numbers = [column.name for column in file.schema_arrow if _is_number(column.type)]
    names = [name for name in (floats if pattern == ALL else numbers) if fnmatchcase(name, pattern)]
    if not names:
        raise DataError(f"{path} has no column of numbers that matches {pattern!r}")
    parts = []
    for name in names:
        cells = parquet_column(file, name, path)
        if cells.null_count:
            row = cells.is_null().to_numpy(zero_copy_only=False).argmax()
            raise DataError(f"{path}, row {row + 1}, column {name!r}: the number is missing")
        parts.append(_plain(cells.to_numpy(zero_copy_only=False)))
    return torch.from_numpy(np.column_stack(parts))


def _of_table(path: Path) -> Columns:
    """Texts by the names in the first line. Cells of a CSV file may stand in quotation marks, those of TSV may not."""
    style = TableFormat(quoted=kind_suffix(path) != ".tsv")
    names = read_header(path, style)
    unread = {name: f"the name of {names.count(name)} columns" for name in names if names.count(name) > 1}
    table = read_table(path, [name for name in names if name not in unread], style)
    shapes = {name: (len(table.places),) for name in table.columns if not INDEX.fullmatch(name)}
    return Columns(path, shapes, table.columns.__getitem__, unread, table.unit, table.places)


def _of_lines(path: Path) -> Columns:
    """A text a line; a file whose first line names columns, one of them in a usual way, is a table."""
    lines = read_lines(path)
    for delimiter in DELIMITERS if lines else ():
        names = [name.strip('"') for name in lines[0].split(delimiter)]
        if len(names) > 1 and all(map(str.isidentifier, names)) and {*LABELS, *TEXTS} & {*names}:
            return _of_table(path)
    cells = {line.count("\t") + 1 for line in lines}
    if len(lines) > 1 and len(cells) == 1 and cells != {1}:
        raise DataError(
            f"{path}: each line has {cells.pop()} cells between tabs, but a {path.suffix} file is a text a line; name "
            "the columns in a first line, and the file .tsv"
        )
    return Columns(path, {NAMELESS: (len(lines),)} if lines else {}, lambda name: lines, unit="line")


def _of_json(path: Path) -> Columns:
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} should hold a list with a label or a text for each row")
    for row, entry in enumerate(content, start=1):
        if isinstance(entry, list | dict):
            raise DataError(f"{path}, entry {row}: a label or a text is no {type(entry).__name__}")
    return Columns(path, {NAMELESS: (len(content),)}, lambda name: content, unit="entry")


READERS: dict[str, Callable[[Path], Columns]] = {
    ".npy": _of_numpy,
    ".npz": _of_numpy,
    ".safetensors": _of_safetensors,
    ".parquet": _of_parquet,
    ".csv": _of_table,
    ".tsv": _of_table,
    ".txt": _of_lines,
    ".json": _of_json,
}
