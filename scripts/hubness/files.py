"""Files of embeddings, labels and texts: what stands in one, by name, whatever its format. Nothing is executed.

Rows out of files: which of the things that a file holds are embeddings, labels and texts.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.neighbours.distances import as_points
from scripts.inspect_head.files import open_safetensors, read_json

NAMELESS = ""  # the one column of a file that names none
ALL = "*"  # the columns of a Parquet file that hold a number a row, together

Column = Tensor | list[str]  # numbers of any shape, or a text for each row


@dataclass(frozen=True)
class Columns:
    """What a file holds by name: shapes are known, content is read on demand."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Column]

    def matrices(self) -> list[str]:
        """Names of what could be embeddings [n, d]."""
        return [name for name, shape in self.shapes.items() if len(shape) == 2]

    def lists(self) -> list[str]:
        """Names of what could be labels or texts [n]."""
        return [name for name, shape in self.shapes.items() if len(shape) == 1]

    def listed(self, names: Sequence[str]) -> str:
        """Names with their shapes, for messages."""
        shown = [f"{name} {list(self.shapes[name])}".strip() for name in names[:12]]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return (", ".join(shown) or "none") + more


def open_columns(path: Path) -> Columns:
    """The content of a file by name.

    Raises FileNotFoundError, and ValueError naming the file if it is damaged, of another kind, or holds nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir() or path.suffix not in READERS:
        raise ValueError(f"{path} is none of {', '.join(READERS)}")
    columns = READERS[path.suffix](path)
    if not columns.shapes:
        raise ValueError(f"{path} holds no array of numbers and no text")
    return columns


def _of_numpy(path: Path) -> Columns:
    array = _load_numpy(path)
    return Columns(path, {NAMELESS: array.shape}, lambda name: _as_column(array, str(path)))


def _of_archive(path: Path) -> Columns:
    """An array that is no plain numbers or texts is left out: others put pickles beside their numbers."""
    archive, arrays = _load_numpy(path), {}
    for name in archive.files:
        try:
            arrays[name] = archive[name]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise ValueError(f"{path} is damaged at {name}: {error}") from error
    if not arrays and archive.files:
        raise ValueError(f"{path} holds pickled objects alone ({', '.join(archive.files)}), which are not read")
    shapes = {name: array.shape for name, array in arrays.items()}
    return Columns(path, shapes, lambda name: _as_column(arrays[name], f"{path}, {name}"))


def _load_numpy(path: Path) -> Any:
    import zipfile

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        pickled = "pickled" in str(error) or "allow_pickle" in str(error)
        reason = "it holds pickled objects, which are not read" if pickled else str(error)
        raise ValueError(f"{path} is not a readable {path.suffix} file: {reason}") from error


def _as_column(array: np.ndarray, source: str) -> Column:
    """Texts of a numpy array, or its numbers; 2 bytes without a type are bfloat16, which numpy has not."""
    if array.dtype.kind == "U":
        return [str(text) for text in array.reshape(-1)]
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{source} holds {array.dtype}, neither real numbers nor texts")
    if array.dtype.kind == "u":
        array = array.astype("int64")
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def _of_safetensors(path: Path) -> Columns:
    file = open_safetensors(path)
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return Columns(path, shapes, file.get_tensor)


def _of_parquet(path: Path) -> Columns:
    """Columns of lists are matrices; without one, the columns of floating-point numbers are a matrix together."""
    try:
        import pyarrow as pa
        from pyarrow import parquet, types
    except ImportError as error:
        raise ImportError(f'reading {path} needs pyarrow: pip install -e ".[parquet]"') from error
    try:
        file = parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    rows = file.metadata.num_rows
    shapes: dict[str, tuple[int, ...]] = {}
    for field in file.schema_arrow:
        if types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type):
            shapes[field.name] = (rows, _length_of_lists(file, field.name))
        else:
            shapes[field.name] = (rows,)
    floats = [field.name for field in file.schema_arrow if types.is_floating(field.type)]
    if floats and all(len(shape) == 1 for shape in shapes.values()):
        shapes[ALL] = (rows, len(floats))
    return Columns(path, shapes, lambda name: _read_parquet(file, name, floats, path))


def _length_of_lists(file: Any, name: str) -> int:
    first = next(file.iter_batches(batch_size=1, columns=[name]), None)
    return 0 if first is None else len(first.column(0)[0] or ())


def _read_parquet(file: Any, name: str, floats: Sequence[str], path: Path) -> Column:
    """One column, or those that match a pattern, a row's numbers side by side; refuses missing and ragged rows."""
    if "*" in name:
        names = [other for other in floats if fnmatchcase(other, name)]
        parts = [np.asarray(_read_parquet(file, other, floats, path)) for other in names]
        return torch.from_numpy(np.column_stack(parts)) if parts else torch.empty(0, 0)
    table = file.read(columns=[name]).column(0).combine_chunks()
    if table.null_count:
        row = table.is_null().to_numpy(zero_copy_only=False).argmax()
        raise ValueError(f"{path}: {name} is missing in {table.null_count} rows, the first of them {row}")
    if hasattr(table, "flatten") and hasattr(table, "value_lengths"):
        lengths = table.value_lengths().to_numpy(zero_copy_only=False)
        if len(lengths) and lengths.min() != lengths.max():
            row = int((lengths != lengths[0]).argmax())
            raise ValueError(f"{path}: {name} has {lengths[0]} numbers in row 0 but {lengths[row]} in row {row}")
        flat = table.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(np.array(flat)).reshape(len(lengths), -1)
    values = table.to_numpy(zero_copy_only=False)
    return [str(text) for text in values] if values.dtype.kind == "O" else _as_column(values, f"{path}, {name}")


def _of_table(path: Path) -> Columns:
    """Texts by the names in the first line. Cells of a CSV file may stand in quotation marks, those of TSV may not."""
    from datamodules.text_files import TableFormat, read_table

    style = TableFormat(quoted=path.suffix == ".csv")
    with path.open(encoding=style.encoding, errors="replace", newline="") as file:
        names = next(csv.reader(file, delimiter="," if style.quoted else "\t"), [])
    table = read_table(path, list(dict.fromkeys(names)), style)
    return Columns(path, {name: (len(table.places),) for name in names}, table.columns.__getitem__)


def _of_lines(path: Path) -> Columns:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    return Columns(path, {NAMELESS: (len(lines),)} if lines else {}, lambda name: lines)


def _of_json(path: Path) -> Columns:
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} should hold a list with a label or a text for each row")
    return Columns(path, {NAMELESS: (len(content),)}, lambda name: [str(entry) for entry in content])


READERS: dict[str, Callable[[Path], Columns]] = {
    ".npy": _of_numpy,
    ".npz": _of_archive,
    ".safetensors": _of_safetensors,
    ".parquet": _of_parquet,
    ".csv": _of_table,
    ".tsv": _of_table,
    ".txt": _of_lines,
    ".json": _of_json,
}


EMBEDDINGS = ("embeddings", "embedding", "vectors", "vector")
LABELS = ("labels", "label", "targets", "target", "y", "class")
TEXTS = ("texts", "text", "sentences", "sentence", "documents", "document")


@dataclass(frozen=True)
class Source:
    """What the command line says of one set of rows."""

    file: str
    key: str | None = None
    labels: str | None = None  # a file, or a name within FILE
    texts: str | None = None  # the same
    role: str = ""  # "query_" in the names of options


@dataclass(frozen=True)
class Rows:
    """n rows as they are stored, each with an embedding, a text or both."""

    source: str
    vectors: Tensor | None = None  # [n, d]
    labels: list[str] | None = None
    texts: list[str] | None = None

    def __post_init__(self) -> None:
        columns = {"embeddings": self.vectors, "labels": self.labels, "texts": self.texts}
        counts = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            raise ValueError(f"{self.source}: each row has one of each, but there are {found}")


def read_rows(source: Source, *, prefer_texts: bool = False) -> Rows:
    """The rows of a file; with ``prefer_texts`` its texts alone, if it holds embeddings as well.

    Raises FileNotFoundError, and ValueError that names the file, what it holds and the option that would say more.
    """
    columns = open_columns(Path(source.file))
    texts = _beside(columns, source.texts, TEXTS, f"--{source.role}texts")
    labels = _beside(columns, source.labels, LABELS, f"--{source.role}labels")
    vectors = None
    if source.key is not None or (columns.matrices() and not (prefer_texts and texts)):
        vectors = _vectors(columns, source)
    elif texts is None:
        texts = _only_texts(columns, source)
    return Rows(source.file, vectors, labels, texts)


def _vectors(columns: Columns, source: Source) -> Tensor:
    """The matrix that was named, that has a usual name, or that is alone; finite, [n, d]."""
    matrices = columns.matrices()
    usual = [name for name in EMBEDDINGS if name in matrices]
    if source.key is None and not usual and len(matrices) > 1:
        held = columns.listed(matrices)
        raise ValueError(f"name the embeddings in {columns.path} with --{source.role}key: it holds {held}")
    name = source.key or (usual or matrices)[0]
    if name not in columns.shapes and "*" not in name:
        raise ValueError(f"{columns.path} has no {name!r}; its matrices are {columns.listed(matrices)}")
    vectors = columns.read(name)
    where = f"{columns.path}, {name}" if name else str(columns.path)
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.numel():
        found = list(vectors.shape) if isinstance(vectors, Tensor) else f"{len(vectors)} texts"
        raise ValueError(f"embeddings are a matrix [points, dimensions], but {where} is {found}")
    return as_points(vectors, where)


def _beside(columns: Columns, named: str | None, usual: Sequence[str], option: str) -> list[str] | None:
    """What stands beside each embedding under this name, in this file, or under a usual name where none was given."""
    if named is None:
        found = [name for name in usual if name in columns.lists()]
        return _strings(columns.read(found[0])) if found else None
    if named in columns.lists():
        return _strings(columns.read(named))
    if not Path(named).exists():
        names = ", ".join(name for name in columns.lists() if name) or "no names"
        raise FileNotFoundError(f"{option} {named} is neither a file nor a name in {columns.path}, which has {names}")
    other = open_columns(Path(named))
    lists = other.lists()
    known = [name for name in usual if name in lists] or lists
    if len(known) != 1 and known[:1] != lists[:1]:
        raise ValueError(f"{option} {named} holds {other.listed(lists)}: none is called {usual[0]!r}")
    return _strings(other.read(known[0]))


def _only_texts(columns: Columns, source: Source) -> list[str]:
    """The texts of a file that names none in a usual way, where it has only one column."""
    names = columns.lists()
    column = columns.read(names[0]) if len(names) == 1 else None
    if not isinstance(column, list):
        held = columns.listed(list(columns.shapes))
        raise ValueError(f"{columns.path} holds no embeddings, and no texts that --{source.role}texts names: {held}")
    return column


def _strings(column: Column) -> list[str]:
    """Labels and texts as they are written."""
    return [str(value) for value in column.flatten().tolist()] if isinstance(column, Tensor) else list(column)
