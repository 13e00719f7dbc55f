"""Tables, files and figures of methods that reduce hubness, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from callbacks.csv_files import write_csv
from likeness.measures.knn_classification import KnnScore
from likeness.measures.mcnemar import McNemar
from scripts.hubness_comparison import HubnessComparison, Outcome
from scripts.hubness_tables import number, spaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FALLING = ("k_skewness", "robin_hood")  # what the paper reports relative reductions of
OTHERS = ("antihub_rate", "max_occurrence")
WITH = {"error": "with k = {k}", "chosen_error": "with the chosen k"}
LEVEL = 0.05
MINUS = "\N{MINUS SIGN}"


def printed_comparison(comparison: HubnessComparison) -> Iterator[Table | Text]:
    """Everything for the terminal, in reading order."""
    yield Text(comparison_title(comparison))
    for warning in comparison.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    yield hubness_table(comparison)
    if comparison.base.score is not None:
        yield error_table(comparison)
    for sentence in sentences(comparison):
        yield Text(sentence)


def comparison_title(comparison: HubnessComparison) -> str:
    """What was compared on what."""
    task, report = comparison.task, comparison.base.report
    asked = "each among the others" if task.queries is None else f"{report.m:,} queries of {task.queries.source}"
    return f"{report.n:,} points of {task.points.source}, {asked}, k = {report.k}, metric {task.search.metric}"


def hubness_table(comparison: HubnessComparison) -> Table:
    """Indices of each method, and by how many percent of the baseline's the two of the paper have fallen."""
    table = Table()
    table.add_column("method")
    for name in ("k-skew-\nness", "fallen\nby, %", "Robin\nHood", "fallen\nby, %", "anti-\nhubs", "largest\nhub"):
        table.add_column(name, justify="right", no_wrap=True)
    null = comparison.base.report.null.indices()
    chance = {name: number(null[name]) for name in (*FALLING, *OTHERS)}
    table.add_row("by chance", *_cells(chance, {}), style="dim")
    for outcome in comparison.outcomes:
        values = {name: number(value) for name, value in outcome.report.indices().items()}
        fallen = {} if outcome is comparison.base else comparison.reductions(outcome)
        table.add_row(spaced(outcome.method), *_cells(values, fallen))
    return table


def _cells(values: Mapping[str, str], fallen: Mapping[str, float]) -> Iterator[str]:
    for name in FALLING:
        yield values[name]
        yield f"{fallen[name]:.1f}" if name in fallen else ""
    yield from (values[name] for name in OTHERS)


def error_table(comparison: HubnessComparison) -> Table:
    """Errors with 95 % intervals, with k as for hubness and with the chosen one, and p against the baseline."""
    of = "leave-one-out" if comparison.task.queries is None else "of the queries"
    table = Table(title=f"k-NN error {of}, %; p of McNemar's exact test", title_justify="left")
    table.add_column("method")
    columns = [f"k = {comparison.base.report.k}", "p"] + (["chosen k", "error", "p"] if comparison.base.choice else [])
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for outcome in comparison.outcomes:
        tests = {} if outcome is comparison.base else comparison.tests(outcome)
        p = {name: p_value(test) for name, test in tests.items()}
        chosen = "" if outcome.choice is None else str(outcome.choice.best.k)
        cells = (_error(outcome.score), p.get("error", ""), chosen, _error(outcome.chosen), p.get("chosen_error", ""))
        table.add_row(spaced(outcome.method), *cells[: len(columns)])
    return table


def sentences(comparison: HubnessComparison) -> Iterator[str]:
    """What may be said of the errors, and what not."""
    yield from comparison.notes
    others = [outcome for outcome in comparison.outcomes if outcome is not comparison.base]
    if comparison.base.score is None:
        yield "No labels, so nothing is classified: name them with --labels."
        return
    for outcome in others:
        yield _sentence(comparison, outcome, len(others))
    tests = [comparison.tests(outcome) for outcome in others]
    gained = {name: any(test[name].verdict == "better" for test in tests if name in test) for name in WITH}
    if gained["error"] and not gained["chosen_error"] and comparison.base.chosen is not None:
        yield "No gain is left where each method, the baseline too, has the k that suits it."
    if len(others) > 1:
        level = f"{LEVEL / len(others):.2g}"
        yield f"Each p is of one comparison. Among {len(others)}, one below {LEVEL} is no surprise: ask for {level}."


def _sentence(comparison: HubnessComparison, outcome: Outcome, comparisons: int) -> str:
    base, tests = comparison.base, comparison.tests(outcome)
    pairs = {"error": (base.score, outcome.score), "chosen_error": (base.chosen, outcome.chosen)}
    findings = [
        f"{WITH[name].format(k=base.report.k)} {finding(first, second, tests[name], comparisons)}"
        for name, (first, second) in pairs.items()
        if first is not None and second is not None
    ]
    return f"{outcome.method}: {'; '.join(findings)}."


def finding(base: KnnScore, other: KnnScore, test: McNemar, comparisons: int = 1) -> str:
    """What a test says of two errors, in words; among several ``comparisons`` each has its share of the level."""
    change = 100 * (other.error - base.error)
    if test.baseline_only + test.other_only == 0:
        return "the same points are right"
    size = "as many errors"
    if change:
        size = f"the error {'falls' if change < 0 else 'rises'} by {abs(change):.2f} points"
    return f"{size}, {_verdict(test, comparisons)} (p {_relation(test)})"


def _verdict(test: McNemar, comparisons: int) -> str:
    if not test.possible:
        return "NOT significant, since too few points differ"
    if not test.significant:
        return "NOT significant"
    alone = test.p > LEVEL / comparisons
    return f"significant alone, NOT among {comparisons} comparisons" if alone else "significant"


def p_value(test: McNemar) -> str:
    """p as it is printed."""
    return "<0.001" if test.p < 0.001 else f"{test.p:.3f}"


def _relation(test: McNemar) -> str:
    return "< 0.001" if test.p < 0.001 else f"= {test.p:.3f}"


def write_comparison(comparison: HubnessComparison, path: Path) -> Path:
    """One row a method: every index, its reduction in percent, and the errors with their tests."""
    rows = [_row(comparison, outcome) for outcome in comparison.outcomes]
    columns = list(rows[0])
    return write_csv(path, columns, ([row.get(name) for name in columns] for row in rows))


def _row(comparison: HubnessComparison, outcome: Outcome) -> dict[str, object]:
    report = outcome.report
    row: dict[str, object] = {"method": outcome.method, "n": report.n, "m": report.m, "k": report.k}
    fallen, null = comparison.reductions(outcome), report.null.indices()
    for name, value in report.indices().items():
        row |= {name: value, f"{name}_null": null.get(name), f"{name}_reduction": fallen.get(name)}
    if outcome.score is not None:
        row |= _score_row(comparison, outcome, "error", outcome.score)
    if outcome.choice is not None and outcome.chosen is not None:
        row |= {"chosen_k": outcome.choice.best.k, "cross_validated_accuracy": max(outcome.choice.accuracies)}
        row |= _score_row(comparison, outcome, "chosen_error", outcome.chosen)
    return row


def _score_row(comparison: HubnessComparison, outcome: Outcome, name: str, score: KnnScore) -> dict[str, object]:
    test = comparison.tests(outcome)[name]
    own = outcome is comparison.base
    return {
        name: score.error,
        f"{name}_margin": score.margin,
        f"{name}_base_only_right": None if own else test.baseline_only,
        f"{name}_only_right": None if own else test.other_only,
        f"{name}_p": None if own else test.p,
        f"{name}_verdict": None if own else test.verdict,
    }


def comparison_figure(comparison: HubnessComparison) -> Figure:
    """k-skewness, the Robin Hood index and, with labels, the errors of each method."""
    from callbacks.hubness_figures import Quantity, method_figure

    outcomes, null = comparison.outcomes, comparison.base.report.null
    quantities = []
    for name, label in zip(FALLING, ("k-skewness", "Robin Hood index"), strict=True):
        fallen = [comparison.reductions(outcome).get(name, 0) for outcome in outcomes[1:]]
        values = [getattr(outcome.report, name) for outcome in outcomes]
        notes = ["", *(f"{-percent:+.0f} %".replace("-", MINUS) for percent in fallen)]
        quantities.append(Quantity(label, values, getattr(null, name), notes=notes))
    scores = {
        "error": [outcome.score for outcome in outcomes],
        "chosen_error": [outcome.chosen for outcome in outcomes],
    }
    for name, of_methods in scores.items():
        known = [score for score in of_methods if score is not None]
        if len(known) == len(outcomes):
            notes = ["", *(f"p {_relation(comparison.tests(outcome)[name])}" for outcome in outcomes[1:])]
            errors, margins = [100 * score.error for score in known], [100 * score.margin for score in known]
            label = f"k-NN error, %, {WITH[name].format(k=comparison.base.report.k)}"
            quantities.append(Quantity(label, errors, margins=margins, notes=notes))
    return method_figure([outcome.method for outcome in outcomes], quantities)


def _error(score: KnnScore | None) -> str:
    return "" if score is None else f"{100 * score.error:.2f} ± {100 * score.margin:.2f}"
