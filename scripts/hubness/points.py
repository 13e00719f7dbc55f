"""The points of the hubness command: embeddings out of a file, or of its texts, with what is known of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likeness.neighbours.distances import as_points, first_rows
from likeness.progress import tracked
from scripts.hubness.encoders import TFIDF, embedded, load_embedder, text_encoder
from scripts.hubness.files import Rows, Source, read_rows
from scripts.inputs import names_a_model

if TYPE_CHECKING:
    from datamodules.splits import SplitName

BUILT_IN = "docstrings"  # the FILE that needs no file
CPU = torch.device("cpu")
INPUTS = 1024  # embedded at a time


@dataclass(frozen=True)
class Encoding:
    """How texts, or the inputs of a datamodule, become embeddings."""

    encoder: str | None = None  # a name for ``text_encoder``; None is TF-IDF, where there are texts alone
    dim: int | None = None  # of TF-IDF embeddings
    split: SplitName = "test"  # of a datamodule
    device: torch.device = CPU


@dataclass(frozen=True)
class Points:
    """Embeddings [n, d] and what is known of each row."""

    vectors: Tensor
    source: str
    labels: list[str] | None = None
    texts: list[str] | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)


def open_points(sources: Sequence[Source], encoding: Encoding) -> list[Points]:
    """The points of each source: the index and, where there are others, the queries.

    Texts of several sources are embedded together, which decides the words that TF-IDF counts.
    Raises FileNotFoundError, ImportError or ValueError naming file, option or rows.
    """
    rows = [_read(source, encoding) for source in sources]
    texts = [text for part in rows if part.vectors is None for text in part.texts or ()]
    if not texts:
        if encoding.dim is not None:
            raise ValueError(f"--dim {encoding.dim} is of TF-IDF embeddings, but {sources[0].file} holds no texts")
        if encoding.encoder is not None and all(_is_file(source) for source in sources):
            raise ValueError(f"--encoder {encoding.encoder} has nothing to embed: {sources[0].file} holds no texts")
        return [_points(part, part.vectors) for part in rows if part.vectors is not None]
    embed = text_encoder(encoding.encoder or TFIDF, texts, encoding.dim, encoding.device)
    return [_points(part, embed(part.texts or ()) if part.vectors is None else part.vectors) for part in rows]


def _read(source: Source, encoding: Encoding) -> Rows:
    if source.file == BUILT_IN:
        return _docstrings()
    if Path(source.file).suffix == ".yaml":
        return _of_datamodule(source, encoding)
    return read_rows(source, prefer_texts=encoding.encoder is not None)


def texts_of(source: Source) -> list[str]:
    """The texts of a file, or the docstrings. Raises DataError, or ValueError for a file without texts."""
    rows = _docstrings() if source.file == BUILT_IN else read_rows(source, prefer_texts=True)
    if not rows.texts:
        raise ValueError(f"{source.file} holds no texts")
    return rows.texts


def _is_file(source: Source) -> bool:
    return source.file != BUILT_IN and Path(source.file).suffix != ".yaml"


def _docstrings() -> Rows:
    from datamodules.docstrings import standard_library_docstrings

    found = standard_library_docstrings()
    return Rows(BUILT_IN, None, [entry.family for entry in found], [entry.text for entry in found])


def _of_datamodule(source: Source, encoding: Encoding) -> Rows:
    """A split of a datamodule: its texts, or its inputs embedded by a run or checkpoint of this project."""
    from scripts.inputs import load_data

    data = load_data(Path(source.file))
    split: Any = _split_of(data, encoding.split)
    if split is None or not hasattr(split, "x"):
        raise ValueError(f"{source.file}: {type(data).__name__} has no {encoding.split} split of texts or inputs")
    names = getattr(data, "class_names", None)
    every = split[torch.arange(len(split))]
    labels = [str(names[label] if names else label) for label in every.y.tolist()]
    where = f"{encoding.split} of {source.file}"
    if isinstance(every.x, list):
        return Rows(where, None, labels, every.x)
    if encoding.encoder is None or not names_a_model(encoding.encoder):
        raise ValueError(f"{source.file} holds inputs to be embedded: name a run or checkpoint with --encoder")
    return Rows(where, _embedded_inputs(every.x, encoding), labels)


def _split_of(data: Any, name: SplitName) -> Any:
    """One split of a datamodule: read alone where it can be, since the others' files may be missing; None if absent."""
    from datamodules.base import ResumableDataModule

    paths = getattr(data, "paths", {})
    if name in paths and not paths["train"].exists():
        paths["train"] = paths[name]  # the file whose labels are numbered, which need not be those of a model here
    data.prepare_data()
    if isinstance(data, ResumableDataModule):
        split = data.load(name)
        data.check(name, split)
        return split
    data.setup("test" if name == "test" else "fit")
    return getattr(data, "splits", {}).get(name)


def _embedded_inputs(x: Tensor, encoding: Encoding) -> Tensor:
    assert encoding.encoder is not None
    model = load_embedder(encoding.encoder, encoding.device)
    blocks = x.split(INPUTS)
    return torch.cat([embedded(model, block.to(encoding.device)) for block in tracked(blocks, "embedding inputs")])


def _points(rows: Rows, vectors: Tensor) -> Points:
    """Checked points; texts of nothing but white space are warned of, since all of them share one embedding."""
    empty = torch.tensor([not text.strip() for text in rows.texts or ()]).nonzero().flatten()
    warnings = (f"{len(empty)} texts are empty, rows {first_rows(empty)}",) if len(empty) else ()
    return Points(as_points(vectors, rows.source), rows.source, rows.labels, rows.texts, rows.warnings + warnings)
