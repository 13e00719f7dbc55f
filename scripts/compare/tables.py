"""The tables of a comparison, for the terminal and for files."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from likeness.figures.output import write_csv
from likeness.similarity.catalogue import needs_inputs
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
        table.add_row(name, *_summary(_of_pairs(values)), _remarks(comparison, name))
        for bound in comparison.bounds.get(name, ()):
            label = f"  at most {bound.label}{' *' if bound.derived else ''}"
            table.add_row(label, *_summary(_of_pairs(bound.bound.value)), _informative(bound))
        if name in comparison.nulls:
            mean, p_value = (_of_pairs(matrix) for matrix in comparison.nulls[name])
            largest = p_value[~p_value.isnan()].amax() if bool((~p_value.isnan()).any()) else torch.nan
            table.add_row("  if unrelated", *_summary(mean), f"p up to {largest:.2g}")
    return table


def _remarks(comparison: Comparison, name: str) -> str:
    """Which way a measure is alike, and for how many pairs it is undefined or of a choice that was sampled."""
    remarks = ["larger" if comparison.metric.measures[name].larger_is_more_alike else "smaller"]
    count = len(comparison.names)
    pairs = list(combinations(range(count), 2))
    undefined = comparison.metric.undefined[name]
    missing = sum((i, j) in undefined or (j, i) in undefined for i, j in pairs)
    searches = comparison.searches(name) or {}
    sampled = sum(searches.get(pair) in ("sampled", "bounded") for pair in pairs)
    remarks += [f"undefined: {missing} of {len(pairs)}"] * bool(missing)
    remarks += [f"sampled: {sampled} of {len(pairs)}"] * bool(sampled)
    return ", ".join(remarks)


def _notes(comparison: Comparison) -> str | None:
    """What stands under the table."""
    notes = []
    if any(bound.derived for bounds in comparison.bounds.values() for bound in bounds):
        notes.append("* derived, not in the paper")
    if comparison.nulls:
        notes.append(f"if unrelated: mean of {comparison.permutations} permutations of the samples")
    if comparison.kept is not None and comparison.kept < comparison.samples:
        names = [name for name in comparison.values if needs_inputs(comparison.metric.measures[name])]
        notes.append(f"{', '.join(names)}: of {comparison.kept} kept inputs (--max_stored)")
    if any("sampled" in _remarks(comparison, name) for name in comparison.values):
        notes.append("sampled: the best of random input sets, or the largest of random label subsets")
    return "; ".join(notes) or None


def _informative(bound: PairwiseBound) -> str:
    informative = _of_pairs(bound.bound.informative)
    return f"informative: {int(informative.sum()) // 2} of {len(informative) // 2}"


def _of_pairs(matrix: Tensor) -> Tensor:
    """What is not on the diagonal, [P (P - 1)]."""
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


def _summary(values: Tensor) -> list[str]:
    """Of the values that are defined."""
    defined = values[~values.isnan()]
    if not len(defined):
        return ["nan"] * 3
    return [f"{value:.4g}" for value in (defined.mean(), defined.min(), defined.max())]


def write_models(comparison: Comparison, path: Path) -> Path:
    """One row a model."""
    return write_csv(path, ["model", "accuracy", "nll"], _models(comparison))


def write_pairs(comparison: Comparison, path: Path) -> Path:
    """One row a pair, with the columns that docs/measures.md explains."""
    columns, names = list(_columns(comparison)), comparison.names
    kept = [] if comparison.kept is None else [comparison.kept]
    rows = (
        [names[i], names[j], *(_cell(of_pair(i, j)) for _, of_pair in columns), *kept, comparison.why_undefined(i, j)]
        for i, j in combinations(range(len(names)), 2)
    )
    header = ["model_a", "model_b", *(name for name, _ in columns), *["kept_inputs"] * len(kept), "undefined"]
    return write_csv(path, header, rows)


Column = tuple[str, Callable[[int, int], Tensor | str]]
"""A name, and the value for a pair."""


def _columns(comparison: Comparison) -> Iterator[Column]:
    """Of each measure, then of its search, its bounds and its null; ``_ab`` and ``_ba`` are its two directions."""
    for name, matrix in comparison.values.items():
        found = {name: matrix}
        if name in comparison.nulls:
            found |= {f"{name}_null": comparison.nulls[name].mean, f"{name}_p": comparison.nulls[name].p_value}
        for column, values in found.items():
            if comparison.metric.measures[name].symmetric:
                yield column, partial(_entry, values)
            else:
                yield from ((f"{column}_ab", partial(_entry, values)), (f"{column}_ba", partial(_entry, values.T)))
        searches = comparison.searches(name)
        if searches is not None:
            yield f"{name}_search", partial(_search, searches)
        for bound in comparison.bounds.get(name, ()):
            yield bound.column, partial(_entry, bound.bound.value)
            yield f"{bound.column}_informative", partial(_entry, bound.bound.informative)


def _entry(matrix: Tensor, i: int, j: int) -> Tensor:
    return matrix[i, j]


def _search(searches: Mapping[tuple[int, int], str], i: int, j: int) -> str:
    return searches.get((i, j), "none")


def _cell(value: Tensor | str) -> float | str:
    if isinstance(value, str):
        return value
    if value.dtype == torch.bool:
        return "yes" if value else "no"
    return float(value)


def _models(comparison: Comparison) -> Iterable[tuple[str, float, float]]:
    return zip(comparison.names, comparison.accuracy.tolist(), comparison.nll.tolist(), strict=True)
