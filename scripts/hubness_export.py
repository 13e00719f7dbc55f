"""Points with less hubness, on disk: moved vectors, re-ranked neighbours, and vectors for inner-product engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.measures.hubness_reduction import Composition
from likeness.measures.neighbours import Neighbours, without_own
from likeness.measures.reduction_base import HubnessReduction
from scripts.hubness_methods import transforms_points
from scripts.hubness_points import Points
from scripts.hubness_tables import write_json
from scripts.query_operations import query_operation

Engine = Literal["flat", "hnsw"]
LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128  # of an HNSW index
CHECKED = 1000  # queries
FAISS, LIFTED, OFFSET = "augmented_index.faiss", "lifted_index.npy", "query_offset.npy"
SERVED: dict[Engine, dict[str, Any]] = {
    "flat": {"vectors": "augmented_index.npy", "metric": "inner product", "append_to_query": []},
    "hnsw": {"vectors": LIFTED, "metric": "euclidean", "append_to_query": [0.0]},
}
NO_OPERATION = "no scaling and shift of a query: give queries to the door, or call augment().queries"


def write_neighbours(path: Path, found: Neighbours) -> Path:
    """``ids`` [m, k] and the reduced ``distances`` [m, k] of every query, nearest first, as .npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, ids=found.ids.cpu().numpy(), distances=found.distances.cpu().numpy())
    return path


def write_vectors(folder: Path, method: HubnessReduction, points: Points, queries: Points | None) -> list[Path]:
    """``vectors.npy`` and, of queries, ``query_vectors.npy``, where the method moves points; nothing for others."""
    if not transforms_points(method):
        return []
    written = [_save(folder / "vectors.npy", transformed(method, points.vectors))]
    if queries is not None:
        written.append(_save(folder / "query_vectors.npy", transformed(method, queries.vectors)))
    return written


def transformed(method: HubnessReduction, points: Tensor) -> Tensor:
    """The points [m, d] after all the method's feature transforms."""
    steps: list[Any] = [*method.transforms, method.last] if isinstance(method, Composition) else [method]
    for step in steps:
        points = step.transform(points)
    return points


def write_augmented(
    folder: Path, method: HubnessReduction, text: str, queries: Points | None, engine: Engine
) -> list[Path]:
    """Vectors whose inner product ranks as the method does: .npy, a FAISS index, and what is done to queries as JSON.

    Raises NotImplementedError for a method that has none, ImportError that names the extra where FAISS is missing.
    """
    vectors, operation = method.augment(), query_operation(method)
    written = [_save(folder / "augmented_index.npy", vectors.index)]
    if queries is not None:
        written.append(_save(folder / "augmented_queries.npy", vectors.queries(queries.vectors)))
    if operation is not None and operation.add is not None:
        written.append(_save(folder / OFFSET, operation.add))
    if engine == "hnsw":
        written.append(_save(folder / LIFTED, lifted(vectors.index)))
    content: dict[str, Any] = {
        "method": text,
        "rank_by": "inner product, largest first",
        "index": {"file": "augmented_index.npy", "shape": list(vectors.index.shape)},
        "query": NO_OPERATION if operation is None else operation.as_json(OFFSET),
        "faiss": {"file": FAISS, **SERVED[engine]},
    }
    written.append(write_json(folder / "augmented.json", content))
    return [*written, write_faiss(folder / FAISS, vectors.index, engine)]


def write_faiss(path: Path, index: Tensor, engine: Engine) -> Path:
    """An index of FAISS over vectors [n, d + e] by inner product: exact (flat), or a graph of lifted ones (hnsw)."""
    faiss = require_faiss()
    if engine == "flat":
        built = faiss.IndexFlatIP(index.shape[1])
    else:
        index = lifted(index)
        built = faiss.IndexHNSWFlat(index.shape[1], LINKS)
        built.hnsw.efConstruction = EF_CONSTRUCTION
        built.hnsw.efSearch = EF_SEARCH
    built.add(index.float().cpu().numpy())
    faiss.write_index(built, str(path))
    return path


def lifted(index: Tensor) -> Tensor:
    """Vectors [n, d] of one length by one dimension more, so that Euclidean distances rank as inner products did.

    Queries get a 0 there. Graphs that are built by the inner product of vectors of unequal lengths find little: the
    longest are neighbours of all. Bachrach et al. 2014.
    """
    squares = index.double().square().sum(1, keepdim=True)
    return torch.cat([index, (squares.max() - squares).clamp(min=0).sqrt().to(index.dtype)], 1)


def served_share(path: Path, method: HubnessReduction, queries: Tensor | None, found: Neighbours) -> float:
    """The share of the re-ranked neighbours [m, k] of queries, or of index points, that the index in a file finds.

    Of up to 1,000 queries from the first on.
    """
    index = require_faiss().read_index(str(path))
    asked = (method.index if queries is None else queries)[:CHECKED]
    expected = found.ids[: len(asked)].cpu()
    vectors = method.augment().queries(asked).float().cpu()
    vectors = pad(vectors, (0, index.d - vectors.shape[1]))
    ids = torch.from_numpy(index.search(vectors.numpy(), expected.shape[1] + (queries is None))[1])
    if queries is None:
        ids = without_own(Neighbours(torch.zeros_like(ids), ids), torch.arange(len(ids)), expected.shape[1]).ids
    return float((ids[:, :, None] == expected[:, None]).any(2).double().mean())


def require_faiss() -> Any:
    """FAISS, or an ImportError that names the extra."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError('a FAISS index needs FAISS: pip install -e ".[ann]"') from error
    return faiss


def _save(path: Path, vectors: Tensor) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors.cpu().numpy())
    return path
