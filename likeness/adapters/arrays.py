"""Arrays and files of embeddings as models: the rows stand in the order of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from likeness.adapters.batches import Inputs
from likeness.adapters.modules import Measurable, ModelError
from likeness.files.columns import EMBEDDINGS, LABELS, open_columns
from likeness.neighbours.distances import as_tensor

F_NAMES = ("f", *EMBEDDINGS, "representations", "features")
G_NAMES = ("g", "unembeddings", "unembedding", "weight", "head")
SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")


class ArrayModel(Measurable):
    """f [N, M] of N inputs and, of a classifier, g [K, M]; the bias of a head is a constant last coordinate of f.

    Args:
        f: the representations.
        g: the label vectors.
        name: for messages.
        labels: [N] true classes.
    """

    def __init__(self, f: Any, g: Any = None, name: str = "", labels: Tensor | None = None) -> None:
        self.name, self.labels = name, labels
        self.f = _matrix(f, "f", name)
        self.g = None if g is None else _matrix(g, "g", name)
        if self.g is not None and self.g.shape[1] != self.f.shape[1]:
            raise ModelError(f"{name} has f {list(self.f.shape)} and g {list(self.g.shape)}: both need the same M")

    @classmethod
    def of_file(cls, path: Path, name: str) -> ArrayModel:
        """From ``f`` or another usual name in a file and, if it is there, ``g``; DataError where there is neither."""
        columns = open_columns(path)
        matrices = {matrix.lower(): matrix for matrix in columns.matrices()}
        f = next((matrices[usual] for usual in F_NAMES if usual in matrices), None)
        if f is None:
            others = [matrix for matrix in matrices.values() if matrix.lower() not in G_NAMES]
            if len(others) != 1:
                held = columns.listed(others)
                raise ModelError(f"which matrix of {path} are the embeddings? It holds {held}: name one of them f")
            (f,) = others
        g = next((matrices[usual] for usual in G_NAMES if usual in matrices and matrices[usual] != f), None)
        found = columns.usual(LABELS)
        y = columns.read(found[0]) if found else None
        labels = torch.as_tensor(y) if y is not None and all(isinstance(label, int) for label in y) else None
        return cls(columns.read(f), None if g is None else columns.read(g), name, labels)

    @override
    def prepare(self, batch: Inputs) -> None:
        self.embed(batch)

    @override
    def embed(self, batch: Inputs) -> Tensor:
        stop = batch.start + batch.size
        if stop > len(self.f):
            raise ModelError(f"{self.name} has {len(self.f)} rows, but the data have more inputs: {stop} so far")
        return self.f[batch.start : stop]

    @override
    def unembeddings(self) -> Tensor | None:
        return self.g


def _matrix(array: Any, what: str, name: str) -> Tensor:
    tensor = as_tensor(array) if isinstance(array, np.ndarray) else torch.as_tensor(array)
    if tensor.ndim != 2 or not tensor.numel():
        raise ModelError(f"{what} of {name} must be a matrix, but is {list(tensor.shape)}")
    return tensor.detach() if tensor.is_floating_point() else tensor.double()


def row_batches(rows: int, labels: Tensor | None, size: int = 4096) -> Iterator[Inputs]:
    """Batches of the rows of arrays, which have no inputs."""
    for start in range(0, rows, size):
        ids = torch.arange(start, min(start + size, rows))
        yield Inputs(None, None if labels is None else labels[ids], ids, start, len(ids))
