"""Tables and the figure of methods that reduce hubness, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likeness.neighbours.classification import KnnScore
from scripts.hubness.comparison import HubnessComparison, Outcome
from scripts.reporting import Report, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FALLING = ("k_skewness", "robin_hood")  # what the paper reports relative reductions of
SHORT = {"k_skewness": "k-skew", "robin_hood": "R. Hood"}
MINUS = "\N{MINUS SIGN}"


def title(comparison: HubnessComparison) -> str:
    """What was compared on what."""
    task, report = comparison.task, comparison.outcomes[0].report
    asked = "each among the others" if task.queries is None else f"{report.m:,} queries of {task.queries.source}"
    return f"{report.n:,} points of {task.points.source}, {asked}, k = {report.k}"


def hubness_table(comparison: HubnessComparison) -> Report:
    """Indices of each method, and by how many percent they fell from those of the points as they are by its metric."""
    null = comparison.outcomes[0].report.null.indices()
    rows: list[Row] = [{"method": "by chance", "metric": "", **_indices(null, {})}]
    for outcome in comparison.outcomes:
        fallen = {} if outcome.base is None else comparison.reductions(outcome)
        rows.append({"method": outcome.method, "metric": outcome.metric, **_indices(outcome.report.indices(), fallen)})
    return Report(title(comparison), rows)


def _indices(values: dict[str, float], fallen: dict[str, float]) -> Row:
    row: Row = {}
    for name in FALLING:
        row |= {SHORT[name]: values[name], f"{SHORT[name]}\nfalls, %": _rounded(fallen.get(name), 1)}
    return row | {"anti-\nhubs": values["antihub_rate"], "largest\nhub": round(values["max_occurrence"])}


def error_table(comparison: HubnessComparison) -> Report:
    """Errors with half their 95 % intervals, with k as for hubness and with the chosen one, and tests of both."""
    of = "leave-one-out" if comparison.task.queries is None else "of the queries"
    rows: list[Row] = []
    for outcome in comparison.outcomes:
        row: Row = {"method": outcome.method, "metric": outcome.metric, **_error(comparison, outcome, "error")}
        if outcome.choice is not None:
            row |= {"k": outcome.choice.best.k}
            row |= {f"{name}\nchosen k": cell for name, cell in _error(comparison, outcome, "chosen_error").items()}
        rows.append(row)
    tested = f"p of McNemar's exact test against the base of the same metric, verdict at {comparison.level:.2g}"
    return Report(f"k-NN error {of}, k = {comparison.outcomes[0].report.k}; {tested}", rows)


def _error(comparison: HubnessComparison, outcome: Outcome, name: str) -> Row:
    score = outcome.score if name == "error" else outcome.chosen
    test = None if outcome.base is None else comparison.tests(outcome).get(name)
    error = None if score is None else f"{100 * score.error:.2f} +- {100 * score.margin:.2f}"
    return {"error, %": error, "p": test and _rounded(test.p, 4), "verdict": test and test.verdict}


def file_table(comparison: HubnessComparison) -> Report:
    """One row a method: every index, its reduction in percent, and the errors with their tests."""
    return Report(title(comparison), [_file_row(comparison, outcome) for outcome in comparison.outcomes])


def _file_row(comparison: HubnessComparison, outcome: Outcome) -> Row:
    report = outcome.report
    row: Row = {"method": outcome.method, "metric": outcome.metric, "n": report.n, "m": report.m, "k": report.k}
    fallen, null = comparison.reductions(outcome), report.null.indices()
    for name, value in report.indices().items():
        row |= {name: value, f"{name}_null": null.get(name), f"{name}_reduction": fallen.get(name)}
    if outcome.score is not None:
        row |= _score_row(comparison, outcome, "error", outcome.score)
    if outcome.choice is not None and outcome.chosen is not None:
        row |= {"chosen_k": outcome.choice.best.k, "cross_validated_accuracy": max(outcome.choice.accuracies)}
        row |= _score_row(comparison, outcome, "chosen_error", outcome.chosen)
    return row


def _score_row(comparison: HubnessComparison, outcome: Outcome, name: str, score: KnnScore) -> Row:
    test = None if outcome.base is None else comparison.tests(outcome)[name]
    return {
        name: score.error,
        f"{name}_margin": score.margin,
        f"{name}_base_only_right": test and test.baseline_only,
        f"{name}_only_right": test and test.other_only,
        f"{name}_p": test and test.p,
        f"{name}_verdict": test and test.verdict,
    }


def comparison_figure(comparison: HubnessComparison) -> Figure:
    """k-skewness, the Robin Hood index and, with labels, the errors of each method, in the order of the table."""
    from likeness.figures.hubness import Quantity, method_figure

    outcomes, null = comparison.outcomes, comparison.outcomes[0].report.null
    several = len({outcome.metric for outcome in outcomes}) > 1
    names = [f"{outcome.method} ({outcome.metric})" if several else outcome.method for outcome in outcomes]
    quantities = []
    for name, label in zip(FALLING, ("k-skewness", "Robin Hood index"), strict=True):
        fallen = [None if outcome.base is None else comparison.reductions(outcome).get(name, 0) for outcome in outcomes]
        notes = ["" if percent is None else f"{-percent:+.0f} %".replace("-", MINUS) for percent in fallen]
        values = [getattr(outcome.report, name) for outcome in outcomes]
        quantities.append(Quantity(label, values, getattr(null, name), notes=notes))
    for name, which in (("error", f"with k = {outcomes[0].report.k}"), ("chosen_error", "with the chosen k")):
        scores = [outcome.score if name == "error" else outcome.chosen for outcome in outcomes]
        known = [score for score in scores if score is not None]
        if len(known) < len(outcomes):
            continue
        notes = ["" if outcome.base is None else _p(comparison.tests(outcome)[name].p) for outcome in outcomes]
        errors, margins = [100 * score.error for score in known], [100 * score.margin for score in known]
        quantities.append(Quantity(f"k-NN error (%)\n{which}", errors, margins=margins, notes=notes))
    return method_figure(names, quantities, [position for position, of in enumerate(outcomes) if of.base is None])


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
