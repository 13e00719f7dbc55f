"""The tables of a comparison, for the terminal and for files."""

import csv
import os
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from scripts.comparison import Comparison


def model_table(comparison: Comparison) -> Table:
    """Accuracy and NLL of each model."""
    table = Table(title=f"{comparison.samples} samples of the {comparison.split} split", title_justify="left")
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    table.add_column("NLL, nats", justify="right")
    for name, accuracy, nll in _models(comparison):
        table.add_row(name, f"{accuracy:.4f}", f"{nll:.4f}")
    return table


def measure_table(comparison: Comparison) -> Table:
    """Mean, minimum and maximum of accuracy and NLL over the models, and of each measure over all pairs."""
    models = len(comparison.names)
    pairs = f"{models * (models - 1) // 2} pairs, both directions where they differ"
    table = Table(title=f"over {models} models; measures over {pairs}", title_justify="left")
    table.add_column("")
    for statistic in ("mean", "minimum", "maximum"):
        table.add_column(statistic, justify="right")
    table.add_column("more alike")
    table.add_row("accuracy", *_summary(comparison.accuracy), "")
    table.add_row("NLL, nats", *_summary(comparison.nll), "")
    others = ~torch.eye(models, dtype=torch.bool)
    for name, values in comparison.values.items():
        direction = "larger" if comparison.metric.measures[name].larger_is_more_alike else "smaller"
        table.add_row(name, *_summary(values[others]), direction)
    return table


def _summary(values: Tensor) -> list[str]:
    return [f"{value:.4g}" for value in (values.mean(), values.min(), values.max())]


def write_models(comparison: Comparison, path: Path) -> Path:
    """One row a model."""
    return _write(path, ["model", "accuracy", "nll"], _models(comparison))


def write_pairs(comparison: Comparison, path: Path) -> Path:
    """One row a pair, one column a measure; ``_ab`` and ``_ba`` are the directions of a measure that has two."""
    columns, values = [], []
    for name, matrix in comparison.values.items():
        symmetric = comparison.metric.measures[name].symmetric
        columns += [name] if symmetric else [f"{name}_ab", f"{name}_ba"]
        values += [matrix] if symmetric else [matrix, matrix.T]
    names = comparison.names
    rows = (
        [names[i], names[j], *(float(matrix[i, j]) for matrix in values)] for i, j in combinations(range(len(names)), 2)
    )
    return _write(path, ["model_a", "model_b", *columns], rows)


def _models(comparison: Comparison) -> Iterable[tuple[str, float, float]]:
    return zip(comparison.names, comparison.accuracy.tolist(), comparison.nll.tolist(), strict=True)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """The whole file or none of it."""
    temporary = path.with_suffix(".csv.tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    os.replace(temporary, path)
    return path
