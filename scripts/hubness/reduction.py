"""One reduction of hubness, fitted and measured, with what it makes of the points written down.

What is done to queries before they meet augmented vectors: found out, and checked, on examples.

Points with less hubness, on disk: moved vectors, re-ranked neighbours, and vectors for inner-product engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn.functional import pad

from callbacks.figures.hubness import k_occurrence_figure
from callbacks.figures.output import save_figure, write_csv
from likeness.hubness.analysis import HubnessReport
from likeness.hubness.reduction_base import HubnessReduction
from likeness.hubness.reductions import Composition
from likeness.hubness.similarity_corrections import DynamicInvertedSoftmax
from likeness.neighbours.exact import Neighbours, without_own
from likeness.seeding import generator
from scripts.hubness.analysis import Search, analyse, report_on, require_comparable
from scripts.hubness.methods import transforms_points
from scripts.hubness.points import Points
from scripts.hubness.tables import NAMES, NONE, number, shown_indices, spaced, title, write_json

EXAMPLES = 256
TOLERANCE = 1e-5  # of the augmented queries' root mean square


class QueryOperation(NamedTuple):
    """a(q) = [multiply_by * u + add, append...] with u = q, or q scaled to length 1."""

    scale_to_length_1: bool
    multiply_by: float
    add: Tensor | None  # [d]
    append: tuple[float | str, ...]  # numbers, or "squared length" of what stands before

    def as_json(self, offset: str) -> dict[str, Any]:
        """Plain values; ``offset`` is the file of the vector that is added."""
        return {**self._asdict(), "add": None if self.add is None else offset, "append": list(self.append)}


def query_operation(method: HubnessReduction) -> QueryOperation | None:
    """The operation of a fitted method with augmented vectors; None where it is no scaling and shift of each query."""
    last = method.last if isinstance(method, Composition) else method
    if isinstance(last, DynamicInvertedSoftmax):  # its operation depends on what a query finds
        return None
    augment = method.augment().queries
    x = method.index[method.index.any(1)][:EXAMPLES].double()
    unit = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    stretched = x * (0.5 + torch.rand(len(x), 1, generator=generator(0), dtype=x.dtype)).to(x.device)
    try:
        return next(_fitting(stretched, augment(stretched).double(), (False, True)), None)
    except ValueError:  # the method takes queries of length 1 alone
        return next(_fitting(unit, augment(unit).double(), (True,)), None)


def _fitting(queries: Tensor, answers: Tensor, scaled: Sequence[bool]) -> Iterator[QueryOperation]:
    """The operations that answer these queries [m, d] with these [m, d + e], of queries scaled to length 1 or not."""
    lengths = torch.linalg.vector_norm(queries, dim=1, keepdim=True)
    dim = queries.shape[1]
    appended = _appended(answers[:, dim:], answers[:, :dim].square().sum(1))
    if answers.shape[1] < dim or appended is None:
        return
    for to_length_1 in scaled:
        u = queries / lengths if to_length_1 else queries
        spread = u - u.mean(0)
        factor = float((spread * answers[:, :dim]).sum() / spread.square().sum())
        rest = answers[:, :dim] - factor * u
        shift = rest.mean(0)
        scale = TOLERANCE * answers.square().mean().sqrt()
        if bool((rest - shift).abs().max() <= scale):
            shifted = bool(shift.abs().max() > scale)
            yield QueryOperation(to_length_1, round(factor, 6), shift if shifted else None, appended)


def _appended(columns: Tensor, squares: Tensor) -> tuple[float | str, ...] | None:
    """What stands in the further columns [m, e]: a number, or the squared length [m] of those before."""
    found: list[float | str] = []
    for column in columns.T:
        if bool((column - column.mean()).abs().max() <= TOLERANCE):
            found.append(round(float(column.mean()), 6))
        elif torch.allclose(column, squares, rtol=TOLERANCE):
            found.append("squared length")
        else:
            return None
    return tuple(found)


Engine = Literal["flat", "hnsw"]
LINKS, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128  # of an HNSW index
CHECKED = 1000  # queries
FAISS, LIFTED, OFFSET = "augmented_index.faiss", "lifted_index.npy", "query_offset.npy"
SERVED: dict[Engine, dict[str, Any]] = {
    "flat": {"vectors": "augmented_index.npy", "metric": "inner product", "append_to_query": []},
    "hnsw": {"vectors": LIFTED, "metric": "euclidean", "append_to_query": [0.0]},
}
NO_OPERATION = "no scaling and shift of a query: give queries to the command, or call augment().queries"


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


ENOUGH = 0.95  # of the neighbours; an index that finds fewer is printed in yellow


class Reduced(NamedTuple):
    """What is to be printed, and the files that were written."""

    printed: list[Table | Text]
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

    Raises NotImplementedError, before anything is written, where a method has no vectors for engines.
    """
    require_comparable(points, queries, search)
    method.fit(points.vectors, None if bank is None else bank.vectors)
    if engine is not None:
        method.augment()
        require_faiss()
    before = analyse(points, queries, search)
    found = method.rerank(None if queries is None else queries.vectors, search.k)
    after = replace(report_on(points, queries, search, found.ids), metric=text)
    written = [
        write_neighbours(folder / "neighbours.npz", found),
        *write_vectors(folder, method, points, queries),
        write_csv(folder / "reduction.csv", *_rows(before.report, after)),
        save_figure(k_occurrence_figure({"before": before.report, text: after}), folder / "k_occurrence.png"),
    ]
    printed: list[Table | Text] = [Text(title(before))]
    printed += [Text(f"warning: {warning}", style="yellow") for warning in before.warnings]
    printed.append(reduction_table(text, before.report, after))
    if engine is not None:
        files = write_augmented(folder, method, text, queries, engine)
        written += files
        index = next(path for path in files if path.suffix == ".faiss")
        share = served_share(index, method, None if queries is None else queries.vectors, found)
        found_again = f"the FAISS index finds {100 * share:.2f} % of these neighbours"
        printed.append(Text(found_again, style="yellow" if share < ENOUGH else ""))
    return Reduced(printed, written)


def reduction_table(text: str, before: HubnessReport, after: HubnessReport) -> Table:
    """Each index before and after, and by how many percent of the former it has fallen."""
    table = Table()
    table.add_column("")
    for name in ("by chance", "before", text, "fallen by, %"):
        table.add_column(spaced(name), justify="right")
    chance, first, second = (shown_indices(indices) for indices in (before.null, before, after))
    for name, value in first.items():
        if name in second:
            fallen = f"{100 * (value - second[name]) / value:.1f}" if value else NONE
            table.add_row(NAMES[name], number(chance.get(name)), number(value), number(second[name]), fallen)
    return table


def _rows(before: HubnessReport, after: HubnessReport) -> tuple[list[str], list[list[object]]]:
    chance, values = before.null.indices(), after.indices()
    rows: list[list[object]] = []
    for name, value in before.indices().items():
        if name in values:
            fallen = 100 * (value - values[name]) / value if value else None
            rows.append([name, chance.get(name), value, values[name], fallen])
    return ["index", "null", "before", "after", "reduction_percent"], rows
