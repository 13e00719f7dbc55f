"""Tables and files of an analysis of hubness.

Tables, files and figures of methods that reduce hubness, side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from callbacks.figures.output import write_csv
from likeness.files import replacing
from likeness.hubness.analysis import HubnessReport
from likeness.hubness.indices import HubnessIndices
from likeness.neighbours.classification import KnnScore, McNemar
from scripts.hubness.analysis import Analysis
from scripts.hubness.comparison import HubnessComparison, Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "k_skewness": "k-skewness",
    "robin_hood": "Robin Hood",
    "gini": "Gini",
    "atkinson": "Atkinson, ε = 1/2",
    "shannon_evenness": "1 - Shannon evenness",
    "antihub_rate": "antihubs, of points",
    "hub_rate": "hubs, of points",
    "hub_occurrence": "hubs, of places",
    "groupie_ratio": "largest hub, of places",
    "max_occurrence": "largest hub, N",
    "asymmetry": "one-way edges",
    "bad_occurrence": "other label, of places",
}
COLUMNS = ["index", "value", "null", "excess", "ratio", "recall"]
SHOWN = 100  # characters of a text
NONE = "-"


def printed(analysis: Analysis, top: int) -> Iterator[Table | Text]:
    """Everything for the terminal, in reading order."""
    yield Text(title(analysis))
    yield index_table(analysis)
    for warning in analysis.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    yield Text(reading(analysis.report))
    yield hub_table(analysis, top)


def index_table(analysis: Analysis) -> Table:
    """Each index beside what it is where neighbours are drawn at random."""
    report = analysis.report
    table = Table(caption=_thinned(report), caption_justify="left")
    table.add_column("")
    for name in ("value", "by chance", "against chance"):
        table.add_column(name, justify="right")
    null = shown_indices(report.null)
    for index, value in shown_indices(report).items():
        table.add_row(NAMES[index], number(value), number(null.get(index)), against(index, value, null.get(index)))
    return table


def shown_indices(of: HubnessIndices) -> dict[str, float]:
    """Every index by name, of the evenness what it lacks to 1: that grows with hubness, as the others do."""
    return of.indices() | {"shannon_evenness": 1 - of.shannon_evenness}


def with_recall(name: str, report: HubnessReport) -> str:
    """A name for figures, with the recall where that is not 1."""
    return f"{name} (recall {report.recall:.3f})" if report.recall < 1 else name


def title(analysis: Analysis) -> str:
    """What was measured on what, and the recall where it is not all."""
    report, queries = analysis.report, analysis.queries
    asked = "each among the others" if queries is None else f"for {report.m:,} queries of {queries.source}"
    if report.thinned is not None:
        asked = f"for {report.m:,} of {report.thinned.queries:,} queries"
    own = ", each point its own neighbour" if report.include_self else ""
    recall = f", recall {report.recall:.4f}" if report.recall < 1 else ""
    where = f"{report.n:,} points of {analysis.points.source} in {analysis.points.vectors.shape[1]} dimensions"
    return f"{where}, {asked}: the {report.k} nearest by {report.metric}{own}{recall}"


def reading(report: HubnessReport) -> str:
    """The table in a sentence."""
    share, chance = 100 * report.robin_hood, 100 * report.null.robin_hood
    return (
        f"{share:.1f} % of the places among the {report.k} nearest would have to move for every point to have as many "
        f"as any other; {chance:.1f} % if neighbours were random. "
        f"{100 * report.antihub_rate:.1f} % of the points are nobody's neighbour."
    )


def hub_table(analysis: Analysis, top: int) -> Table:
    """The points that are the most often neighbours."""
    columns, rows = hubs(analysis, top)
    table = Table(title="largest hubs", title_justify="left")
    for name in columns:
        wide = name == "text"
        table.add_column(
            name, justify="left" if name in ("label", "text") else "right", no_wrap=wide, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    return table


def hubs(analysis: Analysis, top: int) -> tuple[list[str], list[list[object]]]:
    """The ``top`` hubs: row in the file, N, how many of these queries have another label, label and text."""
    points = analysis.points
    ids, occurrences = (values.tolist() for values in analysis.report.top_hubs(top))
    columns: dict[str, Sequence[object]] = {"row": ids, "N": occurrences}
    if analysis.bad is not None:
        columns["other label"] = analysis.bad[ids].tolist()
    for name, known in (("label", points.labels), ("text", points.texts)):
        if known is not None:
            columns[name] = [known[row] for row in ids]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def write_all(analysis: Analysis, folder: Path, top: int) -> list[Path]:
    """indices.csv, hubs.csv, report.json and k_occurrence.npy in a folder, which is made; answers the files."""
    import numpy as np

    written = [
        write_csv(folder / "indices.csv", COLUMNS, index_rows(analysis.report)),
        write_csv(folder / "hubs.csv", *hubs(analysis, top)),
        write_json(folder / "report.json", as_json(analysis)),
        folder / "k_occurrence.npy",
    ]
    np.save(written[-1], analysis.report.k_occurrence.cpu().numpy())
    return written


def index_rows(report: HubnessReport) -> list[list[object]]:
    """Each index with its null, the difference and the ratio of the two, and the recall on which it depends."""
    null = report.null.indices()
    rows: list[list[object]] = []
    for index, value in report.indices().items():
        chance = null.get(index)
        excess = None if chance is None else value - chance
        rows.append([index, value, chance, excess, value / chance if chance else None, report.recall])
    return rows


def as_json(analysis: Analysis) -> dict[str, Any]:
    """The report as plain values."""
    report, queries = analysis.report, analysis.queries
    return {
        "source": analysis.points.source,
        "queries": None if queries is None else queries.source,
        "n": report.n,
        "m": report.m,
        "d": analysis.points.vectors.shape[1],
        "k": report.k,
        "metric": report.metric,
        "in_sample": report.in_sample,
        "include_self": report.include_self,
        "recall": report.recall,
        "indices": report.indices(),
        "null": report.null.indices(),
        "thinned": None if report.thinned is None else report.thinned._asdict(),
        "warnings": list(analysis.warnings),
    }


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """The whole file or none of it; its folder is made."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def number(value: float | None) -> str:
    """About four digits, or a dash where there is none."""
    if value is None:
        return NONE
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def against(index: str, value: float, chance: float | None) -> str:
    """How far an index is from chance: the difference for the skewness, whose zero means nothing, else the ratio."""
    if index == "k_skewness" and chance is not None:
        return f"{value - chance:+.3f}"
    return f"{value / chance:,.2f} x" if chance else NONE


def spaced(method: str) -> Text:
    """A method as the command line writes it, with places where a narrow column may break it."""
    return Text(method.replace("+", " + ").replace(":", ": ").replace(",", ", "))


def _thinned(report: HubnessReport) -> str | None:
    if report.thinned is None:
        return None
    return f"k-skewness over all {report.thinned.queries:,} queries, estimated: {report.thinned.k_skewness:.3f}"


def _one_line(cell: object) -> str:
    text = " ".join(str(cell).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


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
    from callbacks.figures.hubness import Quantity, method_figure

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
