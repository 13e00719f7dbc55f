"""What the hubness grid is measured on: labelled texts in two parts and their embeddings, which are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from datamodules import DataError, Docstrings
from datamodules.docstring_pairs import held_out_docstrings
from datamodules.standard_library import standard_library_docstrings
from datamodules.text_split import TextSplit, remaining_rows, stratified_rows
from datamodules.texts import TextDataModule
from scripts.compare import load_data
from scripts.hubness_points import Encoding, Points, open_points
from scripts.row_files import Source
from scripts.text_encoding import text_encoder

if TYPE_CHECKING:
    from scripts.studies.hubness_grid_encoders import Encoder

PARTS = ("index", "queries")
TEST_SHARE = 0.2  # of the rows of a file
# What doors raise for data and models that are not there, cannot be read or do not fit.
UNAVAILABLE = (DataError, FileNotFoundError, ImportError, ValueError)


class Skipped(NamedTuple):
    """A part of the grid that is left out."""

    what: str
    why: Exception


@dataclass(frozen=True)
class Corpus:
    """Labelled texts: those of the index, and those that are classified by their neighbours in it."""

    name: str
    index: TextSplit
    queries: TextSplit

    @classmethod
    def of(cls, name: str) -> Corpus:
        """``docstrings``, a data set by the name of its file in configs/data, or a data config of one's own.

        Nothing is chosen on validation samples, so those that would be held out for it are in the index; the
        docstrings that are queries are no part of the training pairs of ``DocstringPairs``.
        Raises DataError, FileNotFoundError or ValueError where there are no such texts with labels.
        """
        data = _docstrings() if name == Docstrings.dataset_name else load_data(_config(name))
        if not isinstance(data, TextDataModule):
            raise ValueError(f"{type(data).__name__} holds no texts with labels")
        if "val" not in data.published:
            data.val_size = 0
        data.prepare_data()
        index, queries = data.load("train"), data.load("test")
        if not isinstance(index, TextSplit) or len(index.y.unique()) < 2:
            raise ValueError(f"{type(data).__name__} holds no texts with two labels or more")
        return cls(name, index, queries)


@dataclass(frozen=True)
class Embedded:
    """The points of one encoder on one data set, on the CPU."""

    index: Points
    queries: Points

    def fingerprint(self) -> str:
        """Of all numbers and labels."""
        parts = (self.index, self.queries)
        vectors = [part.vectors.contiguous().numpy().tobytes() for part in parts]
        return _digest([*vectors, *("\n".join(part.labels or ()).encode() for part in parts)])

    def to(self, device: torch.device) -> Embedded:
        """With the vectors on a device."""
        return Embedded(*(replace(part, vectors=part.vectors.to(device)) for part in (self.index, self.queries)))


def embed_corpus(corpus: Corpus, encoder: Encoder, folder: Path, device: torch.device) -> Embedded:
    """The embeddings of a corpus: those kept in ``folder`` if they are of these texts and this encoder, else new ones.

    TF-IDF counts its words over both parts, without their labels. Raises what ``text_encoder`` does.
    """
    splits = dict(zip(PARTS, (corpus.index, corpus.queries), strict=True))
    texts = [text for split in splits.values() for text in split.x]
    source = {"texts": _digest(map(str.encode, texts)), "index": len(corpus.index), "encoder": _stamp(encoder)}
    vectors = _kept(folder, source)
    if vectors is None:
        embed = text_encoder(encoder.name, texts, None, device)
        vectors = {part: embed(split.x).numpy() for part, split in splits.items()}
        _keep(folder, source, vectors)
    points = [
        Points(torch.from_numpy(vectors[part]), f"{part} of {corpus.name}", [str(y) for y in split.y.tolist()])
        for part, split in splits.items()
    ]
    return Embedded(*points)


def open_embeddings(file: str) -> Embedded:
    """Embeddings with labels out of a file, every fifth of each label as queries.

    Raises what ``open_points`` does, and ValueError for a file without labels.
    """
    points = open_points([Source(file)], Encoding())[0]
    if points.labels is None:
        raise ValueError(f"{file} holds no labels")
    number = {label: place for place, label in enumerate(sorted(set(points.labels)))}
    strata = torch.tensor([number[label] for label in points.labels])
    queries = stratified_rows(strata, round(TEST_SHARE * len(points)), 0)
    return Embedded(*(_rows(points, rows) for rows in (remaining_rows(len(points), queries), queries)))


def file_name(name: str) -> str:
    """A name as one of a file or folder."""
    return re.sub(r"[^\w.+=,-]+", "_", name).strip("_")


def write_whole(path: Path, text: str) -> None:
    """The whole file or none of it; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _docstrings() -> Docstrings:
    return Docstrings(val_size=0, test_size=held_out_docstrings(len(standard_library_docstrings())))


def _config(name: str) -> Path:
    return Path(name) if Path(name).suffix == ".yaml" else Path("configs", "data", f"{name}.yaml")


def _rows(points: Points, rows: torch.Tensor) -> Points:
    assert points.labels is not None
    return Points(points.vectors[rows], points.source, [points.labels[row] for row in rows.tolist()])


def _stamp(encoder: Encoder) -> str:
    """The encoder's name and, of one in files, when they were last changed."""
    path = Path(encoder.name)
    files = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    return f"{encoder.name} {max((file.stat().st_mtime_ns for file in files), default=0)}"


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def _kept(folder: Path, source: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    about = folder / "source.json"
    if not about.is_file() or json.loads(about.read_text()) != source:
        return None
    return {part: np.load(folder / f"{part}.npy", allow_pickle=False) for part in PARTS}


def _keep(folder: Path, source: Mapping[str, Any], vectors: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.json").unlink(missing_ok=True)  # it says that what stands beside it is whole
    for part, array in vectors.items():
        np.save(folder / f"{part}.npy", array, allow_pickle=False)
    write_whole(folder / "source.json", json.dumps(source))
