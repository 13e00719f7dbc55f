"""The grid of Nielsen & Hansen 2024 (arXiv 2311.18364): encoders x data sets x reductions of hubness.

Each cell, a method on the points of one encoder, has the hubness of the training part, in-sample and among the nearest
neighbours of the test part, and the error of the k nearest neighbours on the test part, with k chosen by
cross-validation on the training part. What is not at hand is skipped by name; what is measured is kept, and a later
call goes on from there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import torch

from lightning_modules.checkpoints import short_names
from likeness.hubness.analysis import HubnessReport
from likeness.neighbours.classification import Weights, choose_k, knn_score
from scripts.cli.entry_point import one_line
from scripts.hubness.analysis import Search, report_on
from scripts.hubness.comparison import FOLDS, KS, LISTED, possible_folds
from scripts.hubness.encoders import TFIDF
from scripts.hubness.methods import BASE, METHODS, build_method
from scripts.inputs import choose_device
from scripts.reporting import Report, Row, grouped, publish
from scripts.study import hubness_grid_report as tables
from scripts.study.hubness_grid_data import (
    FAMILIES,
    UNAVAILABLE,
    Corpus,
    Embedded,
    Encoder,
    Skipped,
    Training,
    embed_corpus,
    file_name,
    open_embeddings,
    train_encoders,
    write_whole,
)
from scripts.study.training_run import given

INDICES = ("k_skewness", "robin_hood", "antihub_rate", "hub_occurrence", "bad_occurrence")
OF_GRAPH = "mutual_proximity:moments=graph,stored=121"  # moments of as many stored neighbours as the paper's
BASES = "k-skewness S and Robin Hood index RH before any reduction"
CHANGES = "fall in %, mean (range) over runs; in how many of them p <= 0.05"
WINS = {"error": "error", "test_k_skewness": "k-skewness on the test part"}


@dataclass(frozen=True)
class Protocol:
    """How a cell is measured."""

    k: int = 10  # neighbours whose hubness it is
    folds: int = FOLDS  # of the cross-validation over the index that chooses k of the classification
    weights: Weights = "uniform"  # of the neighbours' votes; the paper's are "distance"
    seed: int = 0  # of the folds


@dataclass(frozen=True)
class Setting:
    """What the grid is made of."""

    data: Sequence[str] = ("docstrings",)
    embeddings: Sequence[str] = ()  # files of embeddings with labels
    models: Sequence[str] = ("tfidf",)
    training: Training = field(default_factory=Training)
    methods: Sequence[str] = tuple(METHODS)
    protocol: Protocol = field(default_factory=Protocol)

    def __post_init__(self) -> None:
        for method in self.methods:
            build_method(method, "euclidean")
        for name in ("data", "embeddings", "models", "methods"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must name each once, got {' '.join(values)}")

    @property
    def all_methods(self) -> list[str]:
        """The base first."""
        return [BASE, *(method for method in self.methods if method != BASE)]

    @property
    def with_bases(self) -> list[str]:
        """The same, with the points as they are under each other metric that a method goes by."""
        methods = self.all_methods
        metrics = dict.fromkeys(build_method(method, "euclidean").metric for method in methods)
        return [methods[0], *(f"{BASE}:metric={metric}" for metric in metrics if metric != "euclidean"), *methods[1:]]


DEFAULT = Setting()
PAPER = Setting(
    data=("docstrings", "newsgroups20", "ag_news", "yahoo_answers"),
    models=(
        "tfidf",
        "sentence-transformers/all-mpnet-base-v2",
        "sentence-transformers/multi-qa-distilbert-cos-v1",
        "sentence-transformers/all-distilroberta-v1",
        "sentence-transformers/all-MiniLM-L12-v2",
    ),
    training=Training(tuple(FAMILIES), ("none", "z", "n", "c", "c_n"), ("cosine", "euclidean"), seeds=3),
    methods=(*METHODS, OF_GRAPH, f"f_norm+{OF_GRAPH}"),
)


def run(
    out: Path = Path("runs/hubness_grid"),
    paper: bool = False,
    data: Sequence[str] | None = None,
    embeddings: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    train: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    methods: Sequence[str] | None = None,
    k: int | None = None,
    weights: Weights | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Train what is not trained yet, measure what is not measured, print and write the tables and figures.

    Args:
        out: Where everything is written.
        paper: Everything that the paper has, as far as it is at hand: hours, or days.
        data: docstrings (default), newsgroups20, ag_news, yahoo_answers, or configs.
        embeddings: Files of embeddings with labels, as the hubness command reads them.
        models: tfidf (default), sentence-transformers models, runs or checkpoints.
        train: Encoders: small (default), mpnet, distilroberta, minilm; none is none.
        heads: Heads of trained encoders: none n by default, none z n c c_n in the paper.
        losses: Losses of a training: cosine by default, and euclidean in the paper.
        seeds: Trainings with each head and loss; 2 by default.
        steps: Steps of a training; by default those of its configuration.
        methods: Reductions, as the hubness command takes them; the base is always there.
        k: Neighbours whose hubness is measured; 10 by default.
        weights: Weights of neighbours' votes: uniform (default), distance.
        device: Where models and methods run.
    """
    setting = PAPER if paper else DEFAULT
    training = given(families=train, heads=heads, losses=losses, seeds=seeds, steps=steps)
    parts: dict[str, Any] = {
        "training": replace(setting.training, **training),
        "protocol": replace(setting.protocol, **given(k=k, weights=weights)),
    }
    own = given(data=data, embeddings=embeddings, models=models, methods=methods)
    study(out, replace(setting, **parts, **own), device)


def study(out: Path, setting: Setting, device: str) -> None:
    """Train, measure, print and write one setting.

    Raises ValueError where nothing could be measured.
    """
    trained, skipped = train_encoders(setting.training, out, device)
    grid = Grid(setting, out, choose_device(device), skipped)
    cells = [cell for points in grid.points([*setting.models, *trained]) for cell in grid.cells(*points)]
    rows = tables.compared(cells)
    if not rows:
        reasons = "; ".join(f"{skipped.what}: {one_line(skipped.why)}" for skipped in grid.skipped)
        raise ValueError(f"nothing of the grid could be measured: {reasons}")
    report(rows, grid.skipped, out)


class Grid:
    """The cells of a setting, and what of it had to be left out so far."""

    def __init__(self, setting: Setting, out: Path, device: torch.device, skipped: Sequence[Skipped]) -> None:
        self.setting, self.out, self.device = setting, out, device
        self.skipped = list(skipped)

    def points(self, models: Sequence[str]) -> Iterator[tuple[str, Encoder, Embedded]]:
        """Every encoder on every data set, and the embeddings out of files, each with the name of the data."""
        files = self.setting.embeddings
        names = short_names([*self.setting.data, *files])
        called = dict(zip(models, short_names(models), strict=True))
        for name, data in zip(names, self.setting.data, strict=False):
            try:
                corpus = Corpus.of(data)
            except UNAVAILABLE as error:
                self._skip(f"data {data}", error)
                continue
            for model in tuple(called):
                try:
                    encoder = Encoder.of(model, called[model])
                    folder = self.out / "embeddings" / file_name(name) / file_name(encoder.model)
                    embedded = embed_corpus(corpus, encoder, folder, self.device)
                except UNAVAILABLE as error:
                    self._skip(f"model {model}", error)
                    if model != TFIDF:  # which is another one for each data set; others are not asked for again
                        del called[model]
                    continue
                yield name, encoder, embedded
        for name, file in zip(names[len(names) - len(files) :], files, strict=True):
            try:
                yield name, Encoder(file, "as given", "as given"), open_embeddings(file)
            except UNAVAILABLE as error:
                self._skip(f"embeddings {file}", error)

    def cells(self, data: str, encoder: Encoder, points: Embedded) -> Iterator[Row]:
        """A row for every method on these points."""
        methods = self.setting.with_bases
        print(f"likeness: {data}, {encoder.model}: {len(methods)} methods", file=sys.stderr, flush=True)
        fingerprint, protocol, on_device = points.fingerprint(), self.setting.protocol, points.to(self.device)
        for method in methods:
            path = self.out / "cells" / file_name(data) / file_name(encoder.model) / f"{file_name(method)}.json"
            settings = cell_settings(method, protocol, fingerprint)
            try:
                row = kept_cell(path, settings, partial(measure_cell, method, on_device, protocol))
            except ValueError as error:
                self._skip(f"{data}, {encoder.model}, {method}", error)
                continue
            about = {"data": data, "model": encoder.model, "base": encoder.base}
            name = BASE if method.startswith(f"{BASE}:") else method
            yield about | {"head": encoder.head, "loss": encoder.loss, "seed": encoder.seed, "method": name} | row

    def _skip(self, what: str, why: Exception) -> None:
        self.skipped.append(Skipped(what, why))
        print(f"likeness: skipped {what}: {why}", file=sys.stderr, flush=True)


def kept_cell(path: Path, settings: Mapping[str, Any], measure: Callable[[], Row]) -> Row:
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


def measure_cell(method: str, points: Embedded, protocol: Protocol) -> Row:
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
    row: Row = {"n": len(index), "m": len(queries), "d": index.vectors.shape[1], "k": protocol.k}
    row |= {"metric": fitted.metric}
    row |= _indices("train", report_on(index, None, search, own.ids))
    row |= _indices("test", report_on(index, queries, search, asked.ids))
    assert index.labels is not None
    choice = choose_k(own, index.labels, KS, folds=folds, seed=protocol.seed, weights=protocol.weights)
    score = knn_score(asked, index.labels, choice.best.k, query_labels=queries.labels, weights=protocol.weights)
    row |= {"chosen_k": score.k, "cross_validated_accuracy": max(choice.accuracies)}
    row |= {"accuracy": 1 - score.error, "margin": score.margin, "seconds": time.perf_counter() - start}
    return row | {"correct": "".join(map(str, score.correct.int().tolist()))}


def _indices(prefix: str, report: HubnessReport) -> Row:
    """Indices beside their null."""
    sources = {"": report.indices(), "_null": report.null.indices()}
    return {f"{prefix}_{name}{suffix}": values.get(name) for name in INDICES for suffix, values in sources.items()}


def report(rows: Sequence[Row], skipped: Sequence[Skipped], out: Path) -> None:
    """Print what runs and methods come to, and write it with every cell and the figures."""
    by_base, counts = ("data", "base"), tables.wins(rows)
    summaries = {
        "by_encoder": tables.summary(rows, by_base),
        "by_variant": tables.summary(rows, (*by_base, "head", "loss")),
        "by_hubness": tables.summary(sorted(rows, key=itemgetter("base_k_skewness")), ("bin",)),
    }
    # The bases of each data set, then what methods change: by encoder, and by the hubness of the base.
    for data, own in grouped(rows, "data").items():
        sizes = f"{data}, {own[0]['n']:,} index points, {own[0]['m']:,} queries"
        Report(f"{sizes}: {BASES}", tables.printed_bases(own)).show()
    for data, of_data in grouped(summaries["by_encoder"], "data").items():
        for base, own in grouped(of_data, "base").items():
            Report(f"{data}, {base}: {CHANGES}", [tables.printed_summary(row) for row in own]).show()
    for name, own in grouped(summaries["by_hubness"], "bin").items():
        Report(f"k-skewness of the base {name}: {CHANGES}", [tables.printed_summary(row) for row in own]).show()
    # Methods against each other, and all tests at once.
    for quantity, name in WINS.items():
        if counts:
            Report(f"in how many runs B has a lower {name} than A", tables.win_matrix(counts, quantity)).show()
    if verdicts := tables.verdicts(rows):
        Report("comparisons with the base by its k-skewness, at p <= 0.05 and at 0.05 / their number", verdicts).show()
    # Files have every cell, and what is not among them.
    left_out = [{"skipped": what, "reason": one_line(why)} for what, why in skipped]
    reduced = any(row["method"] != BASE for row in rows)
    figures = {"reductions": tables.draw_reductions(rows), "gains": tables.draw_gains(rows)} if reduced else {}
    publish(out, tables={"cells": rows, **summaries, "wins": counts, "skipped": left_out}, figures=figures)
    for row in left_out:
        print(f"likeness: skipped {row['skipped']}: {row['reason']}")
