"""The rows that a command measures: embeddings, labels and texts, found in a file by name or by what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from likeness.files.columns import ALL, EMBEDDINGS, LABELS, NAMELESS, TEXTS, Columns, open_columns
from likeness.files.errors import DataError, MissingDataError
from likeness.neighbours.distances import as_points


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
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = {"embeddings": self.vectors, "labels": self.labels, "texts": self.texts}
        counts = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
            raise DataError(f"{self.source}: each row has one of each, but there are {found}")


def read_rows(source: Source, *, prefer_texts: bool = False) -> Rows:
    """The rows of a file; with ``prefer_texts`` its texts alone, if it holds embeddings as well.

    Raises DataError that names the file, what it holds and the option that would say more.
    """
    columns = open_columns(Path(source.file))
    texts = _beside(columns, source.texts, TEXTS, f"--{source.role}texts", Columns.texts)
    labels = _beside(columns, source.labels, LABELS, f"--{source.role}labels", Columns.labels)
    vectors = None
    if source.key is not None or (columns.matrices() and not (prefer_texts and texts)):
        vectors = _vectors(columns, source, texts is not None)
    elif texts is None:
        texts = _only_texts(columns, source)
    unread = [name for name in columns.unread if name.lower() in (*LABELS, *TEXTS)]
    warnings = tuple(f"{name} of {source.file} is left out: {columns.unread[name]}" for name in unread)
    return Rows(source.file, vectors, labels, texts, warnings)


def _vectors(columns: Columns, source: Source, texts: bool) -> Tensor:
    """The matrix that was named, that has a usual name, or that is alone; finite, [n, d]."""
    matrices = columns.matrices()
    usual = [name for name in EMBEDDINGS if name in matrices]
    if source.key is None and texts and matrices == [ALL]:
        raise DataError(
            f"{columns.path} holds texts and {columns.shapes[ALL][1]} columns of numbers: take these with "
            f"--{source.role}key '*', or the texts with --encoder tfidf"
        )
    if source.key is None and not usual and len(matrices) > 1:
        held = columns.listed(matrices)
        raise DataError(f"name the embeddings in {columns.path} with --{source.role}key: it holds {held}")
    name = source.key or (usual or matrices)[0]
    if name not in columns.shapes and "*" not in name:
        why = f"{name} is {columns.unread[name]}" if name in columns.unread else f"there is no {name!r} in it"
        raise DataError(f"{columns.path}: {why}; its matrices are {columns.listed(matrices)}")
    vectors = columns.read(name)
    where = f"{columns.path}, {name}" if name else str(columns.path)
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.numel():
        found = list(vectors.shape) if isinstance(vectors, Tensor) else f"{len(vectors)} texts or numbers"
        raise DataError(f"embeddings are a matrix [points, dimensions], but {where} is {found}")
    narrow = vectors.is_floating_point() and vectors.element_size() == 1  # of which torch cannot ask it
    wrong = ~(vectors.float() if narrow else vectors).isfinite()
    if rows := wrong.any(1).sum().item():
        row, dimension = wrong.nonzero()[0].tolist()
        value = vectors[row, dimension].item()
        raise DataError(
            f"{rows} rows of {where} are not finite; row {row + 1} has {value} in dimension {dimension + 1}"
        )
    return as_points(vectors, where)


def _beside(
    columns: Columns, named: str | None, usual: Sequence[str], option: str, read: Callable[[Columns, str], list[str]]
) -> list[str] | None:
    """The list beside the embeddings of this name, in this file, or under a usual name where none was given."""
    if named is None:
        found = columns.usual(usual)
        return read(columns, found[0]) if found else None
    if named in columns.lists():
        return read(columns, named)
    if named in columns.unread:
        raise DataError(f"{option} {named}: in {columns.path} it is {columns.unread[named]}")
    if named in columns.shapes:
        raise DataError(f"{option} {named}: in {columns.path} it is {columns.listed([named])}, not one a row")
    if not Path(named).expanduser().exists():
        names = ", ".join(name for name in columns.lists() if name) or "no names"
        raise MissingDataError(f"{option} {named} is neither a file nor a name in {columns.path}, which has {names}")
    other = open_columns(Path(named))
    lists = other.lists()
    known = other.usual(usual) or lists
    if len(known) != 1 and known[:1] != lists[:1]:
        raise DataError(f"{option} {named} holds {other.listed(lists)}: none is called {usual[0]!r}")
    return read(other, known[0])


def _only_texts(columns: Columns, source: Source) -> list[str]:
    """The texts of a file that names none in a usual way, where it holds one list of texts.

    The first line of a CSV file with one column may be a text as well as a name, so that column must be named.
    """
    names = columns.lists()
    certain = names == [NAMELESS] or (len(names) == 1 and columns.unit == "row")
    if certain and all(isinstance(cell, str) for cell in columns.read(names[0])):
        return columns.texts(names[0])
    held = columns.listed(list(columns.shapes))
    raise DataError(f"{columns.path} holds no embeddings, and no texts that --{source.role}texts names: {held}")
