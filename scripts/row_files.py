"""Rows out of files: which of the things that a file holds are embeddings, labels and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from likeness.measures.points import as_points
from scripts.embedding_files import Column, Columns, open_columns

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
