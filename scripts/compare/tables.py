"""The tables of a comparison, for the terminal and for files."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from callbacks.figures.output import write_csv
from scripts.compare.comparison import Comparison, PairwiseBound


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
    """Mean, minimum and maximum of accuracy and NLL over the models, and of each measure over all pairs.

    What bounds a measure, and what unrelated representations would score, stand under it.
    """
    models = len(comparison.names)
    pairs = f"{models * (models - 1) // 2} pairs, both directions where they differ"
    table = Table(
        title=f"over {models} models; measures over {pairs}", title_justify="left", caption=_notes(comparison)
    )
    table.add_column("", no_wrap=True)
    for statistic in ("mean", "minimum", "maximum"):
        table.add_column(statistic, justify="right")
    table.add_column("alike if")
    table.add_row("accuracy", *_summary(comparison.accuracy), "")
    table.add_row("NLL, nats", *_summary(comparison.nll), "")
    for name, values in comparison.values.items():
        direction = "larger" if comparison.metric.measures[name].larger_is_more_alike else "smaller"
        table.add_row(name, *_summary(_of_pairs(values)), direction)
        for bound in comparison.bounds.get(name, ()):
            label = f"  at most {bound.label}{' *' if bound.derived else ''}"
            table.add_row(label, *_summary(_of_pairs(bound.bound.value)), _informative(bound))
        if name in comparison.nulls:
            mean, p_value = (_of_pairs(matrix) for matrix in comparison.nulls[name])
            table.add_row("  if unrelated", *_summary(mean), f"p up to {p_value.max():.2g}")
    return table


def _notes(comparison: Comparison) -> str | None:
    """What stands under the table."""
    notes = []
    if any(bound.derived for bounds in comparison.bounds.values() for bound in bounds):
        notes.append("* derived, not in the paper")
    if comparison.nulls:
        notes.append(f"if unrelated: mean of {comparison.permutations} permutations of the samples")
    return "; ".join(notes) or None


def _informative(bound: PairwiseBound) -> str:
    informative = _of_pairs(bound.bound.informative)
    return f"informative: {int(informative.sum()) // 2} of {len(informative) // 2}"


def _of_pairs(matrix: Tensor) -> Tensor:
    """What is not on the diagonal, [P (P - 1)]."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def _summary(values: Tensor) -> list[str]:
    return [f"{value:.4g}" for value in (values.mean(), values.min(), values.max())]


def write_models(comparison: Comparison, path: Path) -> Path:
    """One row a model."""
    return write_csv(path, ["model", "accuracy", "nll"], _models(comparison))


def write_pairs(comparison: Comparison, path: Path) -> Path:
    """One row a pair, with the columns that docs/measures.md explains."""
    columns = list(_columns(comparison))
    names = comparison.names
    rows = (
        [names[i], names[j], *(_cell(matrix[i, j]) for _, matrix in columns)]
        for i, j in combinations(range(len(names)), 2)
    )
    return write_csv(path, ["model_a", "model_b", *(name for name, _ in columns)], rows)


def _columns(comparison: Comparison) -> Iterator[tuple[str, Tensor]]:
    """Of each measure, then of its bounds and its null; ``_ab`` and ``_ba`` are the directions where there are two."""
    for name, matrix in comparison.values.items():
        found = {name: matrix}
        if name in comparison.nulls:
            found |= {f"{name}_null": comparison.nulls[name].mean, f"{name}_p": comparison.nulls[name].p_value}
        for column, values in found.items():
            if comparison.metric.measures[name].symmetric:
                yield column, values
            else:
                yield from ((f"{column}_ab", values), (f"{column}_ba", values.T))
        for bound in comparison.bounds.get(name, ()):
            yield bound.column, bound.bound.value
            yield f"{bound.column}_informative", bound.bound.informative


def _cell(value: Tensor) -> float | str:
    if value.dtype == torch.bool:
        return "yes" if value else "no"
    return float(value)


def _models(comparison: Comparison) -> Iterable[tuple[str, float, float]]:
    return zip(comparison.names, comparison.accuracy.tolist(), comparison.nll.tolist(), strict=True)
