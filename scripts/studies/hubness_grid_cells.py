"""One cell of the hubness grid: a method on the points of one encoder, by the protocol of Nielsen & Hansen 2024."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likeness.measures.hubness import HubnessReport
from likeness.measures.knn_classification import Weights, choose_k, knn_score
from scripts.hubness_analysis import Search, report_on
from scripts.hubness_comparison import FOLDS, KS, LISTED, possible_folds
from scripts.hubness_methods import build_method
from scripts.studies.hubness_grid_data import Embedded, write_whole
from scripts.studies.output import StudyRow

INDICES = ("k_skewness", "robin_hood", "antihub_rate", "hub_occurrence", "bad_occurrence")


@dataclass(frozen=True)
class Protocol:
    """How a cell is measured."""

    k: int = 10  # neighbours whose hubness it is
    folds: int = FOLDS  # of the cross-validation over the index that chooses k of the classification
    weights: Weights = "uniform"  # of the neighbours' votes; the paper's are "distance"
    seed: int = 0  # of the folds


def measure_cell(method: str, points: Embedded, protocol: Protocol) -> StudyRow:
    """Hubness in-sample (``train_``) and of the index among the queries' neighbours (``test_``), and the error.

    ``correct`` says of each query by a 1 or 0 whether its vote is right. Raises ValueError where a method does not
    take these points, or a label of the index has one point.
    """
    start = time.perf_counter()
    index, queries = points.index, points.queries
    folds, notes = possible_folds(index, protocol.folds)
    if folds == 0:
        raise ValueError("; ".join(notes))
    fitted = build_method(method, "euclidean").fit(index.vectors)
    own = fitted.rerank(None, min(len(index) - 1, max(LISTED, protocol.k)))
    asked = fitted.rerank(queries.vectors, min(len(index), max(KS[-1], protocol.k)))
    search = Search(k=protocol.k)
    row: StudyRow = {"n": len(index), "m": len(queries), "d": index.vectors.shape[1], "k": protocol.k}
    row |= _indices("train", report_on(index, None, search, own.ids))
    row |= _indices("test", report_on(index, queries, search, asked.ids))
    assert index.labels is not None
    choice = choose_k(own, index.labels, KS, folds=folds, seed=protocol.seed, weights=protocol.weights)
    score = knn_score(asked, index.labels, choice.best.k, query_labels=queries.labels, weights=protocol.weights)
    row |= {"chosen_k": score.k, "cross_validated_accuracy": max(choice.accuracies)}
    row |= {"accuracy": 1 - score.error, "margin": score.margin, "seconds": time.perf_counter() - start}
    return row | {"correct": "".join(map(str, score.correct.int().tolist()))}


def _indices(prefix: str, report: HubnessReport) -> StudyRow:
    """Indices beside their null."""
    sources = {"": report.indices(), "_null": report.null.indices()}
    return {f"{prefix}_{name}{suffix}": values.get(name) for name in INDICES for suffix, values in sources.items()}


def kept_cell(path: Path, settings: Mapping[str, Any], measure: Callable[[], StudyRow]) -> StudyRow:
    """The cell in a JSON file if it was measured with these settings; else it is measured, and kept there."""
    if path.is_file():
        content: dict[str, Any] = json.loads(path.read_text())
        if content["settings"] == settings:
            return dict(content["row"])
    row = measure()
    write_whole(path, json.dumps({"settings": settings, "row": row}))
    return row


def cell_settings(method: str, protocol: Protocol, fingerprint: str) -> dict[str, Any]:
    """All that a cell is a function of."""
    return {"method": method, "points": fingerprint, **asdict(protocol)}
