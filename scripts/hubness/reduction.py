"""One reduction of hubness, fitted and measured, with what it makes of the points written down.

Moved vectors, re-ranked neighbours, and vectors for inner-product engines with what is done to queries before they
meet them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.figures.hubness import k_occurrence_figure
from likeness.figures.output import save_formats
from likeness.files.writing import replacing
from likeness.hubness.analysis import HubnessReport
from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import Composition
from likeness.neighbours.approximate import require_faiss
from likeness.neighbours.exact import DistinctPoints, Neighbours, without_own
from scripts.hubness.analysis import Search, analyse, report_on, require_comparable
from scripts.hubness.methods import transforms_points
from scripts.hubness.points import Points
from scripts.hubness.tables import NAMES, shown_indices, title
from scripts.reporting import Report, Row, write_array, write_arrays, write_json

Engine = Literal["flat", "hnsw"]
LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128  # of an HNSW index
CHECKED = 1000  # queries
FAISS, LIFTED = "augmented_index.faiss", "lifted_index.npy"
OFFSET = "query_offset_{}.npy"  # what a step adds to queries, by the step's number
SERVED: dict[Engine, dict[str, Any]] = {
    "flat": {"vectors": "augmented_index.npy", "metric": "inner product", "append_to_query": []},
    "hnsw": {"vectors": LIFTED, "metric": "euclidean", "append_to_query": [0.0]},
}
NO_OPERATION = "no scaling and shift of a query: give queries to the command, or call augment().queries"


def write_neighbours(path: Path, found: Neighbours) -> Path:
    """``ids`` [m, k] and the reduced ``distances`` [m, k] of every query, nearest first, as .npz."""
    return write_arrays(path, {"ids": found.ids.cpu().numpy(), "distances": found.distances.cpu().numpy()})


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

    ``query`` are the steps, one after the other, each [multiply_by * u + add, append...].

    Raises NotImplementedError for a method that has none, ImportError that names the extra where FAISS is missing.
    """
    vectors = method.augment()
    operations = None if vectors.operations is None else [op for op in vectors.operations if not op.is_identity]
    written = [_save(folder / "augmented_index.npy", vectors.index)]
    if queries is not None:
        written.append(_save(folder / "augmented_queries.npy", vectors.queries(queries.vectors)))
    steps: list[dict[str, Any]] = []
    for number, operation in enumerate(operations or ()):
        offset = OFFSET.format(number)
        if operation.add is not None:
            written.append(_save(folder / offset, operation.add))
        steps.append(operation.as_json(offset))
    if engine == "hnsw":
        written.append(_save(folder / LIFTED, lifted(vectors.index)))
    content: dict[str, Any] = {
        "method": text,
        "rank_by": "inner product, largest first",
        "index": {"file": "augmented_index.npy", "shape": list(vectors.index.shape)},
        "query": NO_OPERATION if operations is None else steps,
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
    with replacing(path) as temporary:
        faiss.write_index(built, str(temporary))
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
    place = DistinctPoints(method.index).first_copies.cpu()  # a copy of a point is as good as the point
    return float((place[ids][:, :, None] == place[expected][:, None]).any(2).double().mean())


def _save(path: Path, vectors: Tensor) -> Path:
    return write_array(path, vectors.cpu().numpy())


ENOUGH = 0.95  # of the neighbours; an index that finds fewer is warned of


class Reduced(NamedTuple):
    """The table, what is to be warned of and said, and the files that were written."""

    table: Report
    warnings: tuple[str, ...]
    written: list[Path]


def reduce_points(
    text: str,
    method: HubnessReduction,
    points: Points,
    queries: Points | None,
    bank: Points | None,
    search: Search,
    engine: Engine | None,
    folder: Path,
) -> Reduced:
    """Fit the method that ``text`` names, re-rank, and write what comes of it; for an ``engine`` also vectors.

    Before is by the metric of the method, after is by what it makes of it.
    Raises NotImplementedError, before anything is written, where a method has no vectors for engines.
    """
    search = replace(search, metric=method.metric)
    require_comparable(points, queries, search)
    method.fit(points.vectors, None if bank is None else bank.vectors)
    if engine is not None:
        method.augment()
        require_faiss()
    before = analyse(points, queries, search)
    asked = None if queries is None else queries.vectors
    found = method.rerank(asked, search.k)
    after = replace(report_on(points, queries, search, found.ids), metric=method.metric)
    figure = k_occurrence_figure({f"before ({method.metric})": before.report, text: after})
    written = [
        write_neighbours(folder / "neighbours.npz", found),
        *write_vectors(folder, method, points, queries),
        reduction_file(text, before.report, after).write(folder / "reduction.csv"),
        *save_formats(figure, folder, "k_occurrence"),
    ]
    warnings, notes = [*before.warnings, *method.notes], list[str]()
    if engine is not None:
        files = write_augmented(folder, method, text, queries, engine)
        written += files
        index = next(path for path in files if path.suffix == ".faiss")
        share = served_share(index, method, asked, found)
        (notes if share >= ENOUGH else warnings).append(
            f"the FAISS index finds {100 * share:.2f} % of these neighbours"
        )
    table = Report(f"{title(before)}; after: {text}", reduction_rows(before.report, after), notes=notes)
    return Reduced(table, tuple(warnings), written)


def reduction_rows(before: HubnessReport, after: HubnessReport) -> list[Row]:
    """Each index before and after, and by how many percent of the former it has fallen."""
    chance, first, second = (shown_indices(indices) for indices in (before.null, before, after))
    rows: list[Row] = []
    for name, value in first.items():
        if name in second:
            row: Row = {"index": NAMES[name], "by chance": chance.get(name), "before": value}
            fallen = None if not value else round(100 * (value - second[name]) / value, 1)
            rows.append(row | {"after": second[name], "fallen by, %": fallen})
    return rows


def reduction_file(text: str, before: HubnessReport, after: HubnessReport) -> Report:
    """The same with the indices' names in Python."""
    chance, values = before.null.indices(), after.indices()
    rows: list[Row] = []
    for name, value in before.indices().items():
        if name in values:
            fallen = 100 * (value - values[name]) / value if value else None
            row: Row = {"index": name, "null": chance.get(name), "before": value, "after": values[name]}
            rows.append(row | {"reduction_percent": fallen})
    return Report("", rows, about={"method": text, "metric": before.metric})
