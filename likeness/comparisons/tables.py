"""The tables of a comparison: on the terminal, in notebooks and in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor

from likeness.comparisons.bounds import PairwiseBound
from likeness.figures.output import write_csv
from likeness.similarity.catalogue import needs_inputs

if TYPE_CHECKING:
    from likeness.comparisons.compare import Comparison

WIDTH = 120  # characters of a table that is not printed on a terminal


def model_table(comparison: Comparison) -> Table:
    """Accuracy and NLL of each model, where the data have labels."""
    table = Table(title=f"{comparison.samples} samples of {comparison.data}", title_justify="left")
    table.add_column("model")
    if comparison.accuracy is not None:
        table.add_column("accuracy", justify="right")
        table.add_column("NLL, nats", justify="right")
    for row in model_rows(comparison):
        name, *numbers = row.values()
        table.add_row(name, *(f"{number:.4f}" for number in numbers))
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
    for name, of_models in (("accuracy", comparison.accuracy), ("NLL, nats", comparison.nll)):
        if of_models is not None:
            table.add_row(name, *_summary(of_models), "")
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
    metric = comparison.metric
    for name, rank, width in zip(comparison.names, metric.ranks, metric.widths, strict=False):
        if rank < width:
            notes.append(f"f of {name} spans {rank} of {width} dimensions, in which it is compared")
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


def pair_table(comparison: Comparison) -> Table:
    """The measures of two models, in both directions where these differ, with their bounds and nulls."""
    first, second = comparison.names
    table = Table(title=f"{first} and {second}", title_justify="left", caption=_notes(comparison))
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("reversed", justify="right")
    table.add_column("alike if")
    for name, values in comparison.values.items():
        turned = "" if comparison.metric.measures[name].symmetric else f"{float(values[1, 0]):.4g}"
        reason = comparison.undefined[name].get((0, 1))
        remark = f"undefined: {reason}" if reason else _remarks(comparison, name)
        table.add_row(name, f"{float(values[0, 1]):.4g}", turned, remark)
        for bound in comparison.bounds.get(name, ()):
            label = f"  at most {bound.label}{' *' if bound.derived else ''}"
            remark = "informative" if bool(bound.bound.informative[0, 1]) else "says nothing"
            table.add_row(label, f"{float(bound.bound.value[0, 1]):.4g}", "", remark)
        if name in comparison.nulls:
            mean, p_value = (float(matrix[0, 1]) for matrix in comparison.nulls[name])
            table.add_row("  if unrelated", f"{mean:.4g}", "", f"p = {p_value:.2g}")
    return table


def tables(comparison: Comparison) -> list[Table]:
    """Of the models and of the measures."""
    return [model_table(comparison), (pair_table if len(comparison.names) == 2 else measure_table)(comparison)]


def as_text(comparison: Comparison) -> str:
    """The tables, and what is left out, as text."""
    return str(_recorded(comparison).export_text()).rstrip()


def as_html(comparison: Comparison) -> str:
    """The same as HTML that stands on its own."""
    return str(_recorded(comparison).export_html(inline_styles=True, code_format="<pre>{code}</pre>"))


def recorded(*shown: Table) -> Any:
    """A console that has printed tables, for them as text or HTML."""
    from io import StringIO

    from rich.console import Console

    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(*shown, sep="\n")
    return console


def _recorded(comparison: Comparison) -> Any:
    console = recorded(*tables(comparison))
    for why in dict.fromkeys(comparison.left_out.values()):
        names = ", ".join(name for name, reason in comparison.left_out.items() if reason == why)
        console.print(f"left out: {names}: {why}", markup=False, highlight=False)
    return console


def write_models(comparison: Comparison, path: Path) -> Path:
    """One row a model."""
    rows = model_rows(comparison)
    return write_csv(path, list(rows[0]), (row.values() for row in rows))


def model_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each model: its name and, where the data have labels, accuracy and NLL in nats."""
    if comparison.accuracy is None or comparison.nll is None:
        return [{"model": name} for name in comparison.names]
    columns = (comparison.names, comparison.accuracy.tolist(), comparison.nll.tolist())
    return [dict(zip(("model", "accuracy", "nll"), row, strict=True)) for row in zip(*columns, strict=True)]


def write_pairs(comparison: Comparison, path: Path) -> Path:
    """One row a pair, with the columns that docs/subjects/measures.md explains."""
    rows = [{name: "nan" if value is None else value for name, value in row.items()} for row in pair_rows(comparison)]
    return write_csv(path, list(rows[0]), (row.values() for row in rows))


def pair_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A row for each pair of models: every measure, None where it is undefined, with its search, bounds and null."""
    columns, names = list(_columns(comparison)), comparison.names
    kept = {} if comparison.kept is None else {"kept_inputs": comparison.kept}
    return [
        {"model_a": names[i], "model_b": names[j]}
        | {name: _cell(of_pair(i, j)) for name, of_pair in columns}
        | kept
        | {"undefined": comparison.why_undefined(i, j)}
        for i, j in combinations(range(len(names)), 2)
    ]


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


def _cell(value: Tensor | str) -> float | str | None:
    if isinstance(value, str):
        return value
    if value.dtype == torch.bool:
        return "yes" if value else "no"
    return None if bool(value.isnan()) else float(value)
