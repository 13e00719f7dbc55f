"""The callback in real trainings of a tiny model, and its metric over batches and ranks."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers import Logger

from callbacks.label_geometry import COLUMNS, LabelGeometry
from callbacks.loggers import RunCSVLogger
from likeness.label_geometry.metric import LabelSimilarity
from likeness.label_geometry.similarity import centred_similarity, logit_correlation, rank_correlation, raw_similarity
from tests.callbacks.toy_siblings import ToyData, ToySiblings, fit
from tests.callbacks.two_ranks import on_two_ranks


@torch.no_grad()
def expected(model: Any, data: ToyData, bias: bool = False) -> dict[str, torch.Tensor]:
    """What is measured of one model without siblings, by the pure functions and by hand."""
    f, g = model.eval().embed(data.val.x).double(), model.unembeddings().double()
    vectors = g[:, :-1] if bias else g
    p = (f @ g.T).softmax(1)
    products = p.T @ p
    scale = products.diagonal().sqrt()
    return {
        "raw": raw_similarity(vectors),
        "centred": centred_similarity(vectors),
        "invariant": logit_correlation(vectors, f[:, : vectors.shape[1]].T.cov()),
        "together": products / scale.outer(scale),
    }


@pytest.mark.parametrize("bias", [False, True])
def test_measures_the_final_weights(tmp_path: Path, bias: bool) -> None:
    callback, model, data = LabelGeometry(), ToySiblings(0, bias=bias), ToyData()
    run = fit(tmp_path, callback, model=model, data=data)
    values = expected(model, data, bias)
    for name, matrix in values.items():
        torch.testing.assert_close(callback.values[name], matrix.unsqueeze(0), rtol=0, atol=1e-6, msg=name)
    for name in ("raw", "centred", "invariant"):
        correlation = rank_correlation(callback.values[name][0], callback.values["together"][0])
        assert float(run.callback_metrics[f"labels/{name}"]) == pytest.approx(correlation, rel=1e-6)
    assert run.callback_metrics["labels/seconds"] > 0


def test_siblings_are_measured_side_by_side(tmp_path: Path) -> None:
    callback, model, data = LabelGeometry(num_disagreements=2), ToySiblings(3), ToyData()
    run = fit(tmp_path, callback, model=model, data=data)
    with torch.no_grad():
        torch.testing.assert_close(callback.values["raw"], raw_similarity(model.unembeddings()), rtol=0, atol=1e-12)
    pairs = zip(callback.values["raw"], callback.values["together"], strict=True)
    mean = sum(rank_correlation(*pair) for pair in pairs) / 3
    assert float(run.callback_metrics["labels/raw"]) == pytest.approx(mean, rel=1e-6)
    assert [row[1] for row in callback.rows(step=0)] == [0, 0, 1, 1, 2, 2]


def test_writes_metrics_table_and_figure_into_the_run_directory(tmp_path: Path) -> None:
    callback = LabelGeometry(num_disagreements=3, labels=["cat", "dog", "cow", "owl"])
    fit(tmp_path, callback, model=ToySiblings(0), max_epochs=3, logger=RunCSVLogger(str(tmp_path)))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [-1 <= float(row["labels/raw"]) <= 1 for row in rows] == [True] * 3
    with (tmp_path / "label_disagreements.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 3
    assert tuple(table[0]) == COLUMNS
    assert {row["label_a"] for row in table} <= {"cat", "dog", "cow", "owl"}
    assert {row["step"] for row in table} == {"12"}
    gaps = [abs(float(row["gap"])) for row in table]
    assert gaps == sorted(gaps, reverse=True)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"label_similarity.{kind}" for kind in ("png", "pdf", "csv")}
    with (tmp_path / "figures" / "label_similarity.csv").open() as file:
        drawn = list(csv.DictReader(file))
    assert [float(row["invariant"]) for row in drawn] == callback.values["invariant"][0].flatten().tolist()


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_what_is_measured(tmp_path: Path, first: bool) -> None:
    callback, averages = LabelGeometry(), EMAWeightAveraging(decay=0.9, use_buffers=False)
    fit(tmp_path, *([callback, averages] if first else [averages, callback]))
    with torch.no_grad():
        averaged = raw_similarity(averages._average_model.module.unembeddings())
    torch.testing.assert_close(callback.values["raw"], averaged, rtol=0, atol=1e-12)


class TableLogger(Logger):
    """Keeps what a W&B logger would be sent."""

    name, version = "tables", 0

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[str], list[list[Any]], int | None]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int | None = None) -> None:
        self.tables.append((key, columns, data, step))


def test_loggers_that_take_tables_get_one(tmp_path: Path) -> None:
    logger = TableLogger()
    fit(tmp_path, LabelGeometry(num_disagreements=2), model=ToySiblings(0), logger=logger)
    key, columns, data, step = logger.tables[-1]
    assert (len(logger.tables), key, tuple(columns), step) == (2, "labels/disagreements", COLUMNS, 8)
    assert [len(row) for row in data] == [len(COLUMNS)] * 2


def test_a_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    fit(tmp_path, LabelGeometry(), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_measured_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 to 4096 labels, the model has 2"):
        fit(tmp_path, LabelGeometry(), model=ToySiblings(num_classes=2), data=ToyData(num_classes=2))
    with pytest.raises(ValueError, match="given 3 names, the model has 4 labels"):
        fit(tmp_path, LabelGeometry(labels=["a", "b", "c"]))
    with pytest.raises(ValueError, match="num_disagreements must be at least 1, got 0"):
        LabelGeometry(num_disagreements=0)
    with pytest.raises(ValueError, match="similarity must be one of raw, centred, invariant, got 'cosine'"):
        LabelGeometry(similarity="cosine")  # type: ignore[arg-type]


SAMPLES, MEMBERS, LABELS, DIM = 60, 2, 5, 3


def measure(index: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    f = 50 + torch.randn(MEMBERS, SAMPLES, DIM, generator=generator, dtype=torch.float64)
    g = torch.randn(MEMBERS, LABELS, DIM, generator=generator, dtype=torch.float64)
    metric = LabelSimilarity(MEMBERS, LABELS, DIM)
    for batch in index:
        metric.update(f[:, batch], g, batch)
    return metric.compute()


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [7, 13, 40]])
def test_any_split_into_batches_gives_one_answer(sizes: list[int]) -> None:
    whole, split = measure([torch.arange(SAMPLES)]), measure(list(torch.arange(SAMPLES).split(sizes)))
    for name, matrix in whole.items():
        torch.testing.assert_close(split[name], matrix, rtol=1e-12, atol=1e-12)


def test_two_ranks_measure_what_one_does(tmp_path: Path) -> None:
    """The ranks hold unequal shares."""

    def on_rank(rank: int) -> dict[str, torch.Tensor]:
        return measure([torch.arange(37), torch.arange(37, 45)] if rank == 0 else [torch.arange(45, SAMPLES)])

    whole = measure([torch.arange(SAMPLES)])
    for values in on_two_ranks(on_rank, tmp_path):
        for name, matrix in whole.items():
            torch.testing.assert_close(values[name], matrix, rtol=1e-12, atol=1e-12)


def test_one_dimension_that_never_moves_is_no_bias() -> None:
    metric = LabelSimilarity(1, 3, 1)
    metric.update(torch.ones(1, 4, 1), torch.tensor([[[1.0], [2.0], [-1.0]]]))
    assert metric.compute()["raw"][0, 0].tolist() == [1, 1, -1]
    assert metric.compute()["invariant"].isnan().all()


def test_values_that_are_not_finite_are_named() -> None:
    metric, f, g = LabelSimilarity(2, 3, 2), torch.zeros(2, 4, 2), torch.zeros(2, 3, 2)
    f[1, 2] = torch.nan
    with pytest.raises(ValueError, match="the embedding of model '1' is not finite at sample 12: nan"):
        metric.update(f, g, torch.arange(10, 14))
    g[0, 1] = torch.inf
    with pytest.raises(ValueError, match="the label vector of model '0' is not finite at label 1: inf"):
        metric.update(torch.zeros(2, 4, 2), g)
