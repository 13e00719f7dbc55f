"""The tables of an inspected head, for the terminal and for files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from callbacks.figures.output import write_csv
from scripts.inspect_head.inspection import Inspection, PairReport

DERIVED = "derived, not in the paper"
SOURCES = {-1.0: "lemma 2.2", 1.0: "lemma 2.3"}
NAMES = {"raw": "raw cosine", "centred": "centred cosine", "invariant": "logit correlation"}
MOVED_BY = {"raw": "translations and linear maps", "centred": "linear maps", "invariant": "nothing"}
MAX_PAIRS = 300  # labels up to which all pairs are written to a file
MAX_NAMED = 20

Row = Sequence[object]


def tables(inspection: Inspection) -> Iterator[Table | Text]:
    """Everything for the terminal, in reading order."""
    yield _table("the head", ["", ""], gauge_rows(inspection))
    if inspection.pair is not None:
        yield _table(*pair_table(inspection, inspection.pair))
        yield _warning(inspection, inspection.pair)
        yield _table(*equivalents_table(inspection.pair))
    for index, query in enumerate(inspection.queries):
        yield _table(*neighbour_table(inspection, index, query))
    if inspection.patterns:
        yield _table("what the head can answer with, over all features", *pattern_columns_and_rows(inspection))
    if inspection.winners:
        yield _table("which labels can win", ["", ""], winner_rows(inspection))


def write_all(inspection: Inspection, folder: Path) -> list[Path]:
    """All tables as CSV in a folder, which is made; answers the files."""
    written = [write_csv(folder / "head.csv", ["quantity", "value"], gauge_rows(inspection))]
    if inspection.sampled is None and inspection.gauge.labels <= MAX_PAIRS:
        written.append(write_csv(folder / "pairs.csv", *all_pairs(inspection)))
    if inspection.pair is not None:
        written.append(write_csv(folder / "equivalent_heads.csv", *equivalents_file(inspection.pair)))
    if inspection.queries:
        written.append(write_csv(folder / "neighbours.csv", *neighbour_file(inspection)))
    if inspection.patterns:
        written.append(write_csv(folder / "patterns.csv", *pattern_columns_and_rows(inspection)))
    if inspection.winners:
        names = inspection.head.labels
        winners = ([w.labels[0], names[w.labels[0]], _decided(w.feasible)] for w in inspection.winners)
        written.append(write_csv(folder / "labels.csv", ["label", "name", "can_win"], winners))
    return written


def gauge_rows(inspection: Inspection) -> list[Row]:
    """What of the head's coordinates is arbitrary, and whether its labels determine the rest."""
    head, gauge = inspection.head, inspection.gauge
    features = inspection.features.source if inspection.features else "not available: give --features or --data"
    of = "" if gauge.judged == gauge.labels else f" (of every {round(gauge.labels / gauge.judged)}th label)"
    rank = f"{gauge.rank} of {gauge.dim}{of}"
    if gauge.rank < gauge.dim and not of:
        rank += ": the other directions of f reach no probability"
    return [
        ("source", head.source),
        ("labels K", gauge.labels),
        ("dimensions M", gauge.dim),
        ("stored as", head.dtype),
        ("bias", "yes" if head.bias is not None else "no"),
        ("tied to the input embeddings", "yes" if head.tied else "no"),
        ("rank of the centred label vectors", rank),
        ("length of their mean / mean length", f"{gauge.mean_ratio:.4g}"),
        ("condition number, centred", f"{gauge.condition:.4g}{of}"),
        ("feature covariance", features),
    ]


def _warning(inspection: Inspection, report: PairReport) -> Text:
    first, second = (inspection.head.labels.printable(label) for label in report.pair)
    return Text(
        f"Careful: the cosines of {first} and {second} are a choice of coordinates, not a finding about the model. "
        "Each head below answers every input with the same probabilities.",
        style="yellow",
    )


def pair_table(inspection: Inspection, report: PairReport) -> tuple[str, list[str], list[Row]]:
    """The similarities of a pair, and which changes of coordinates move them."""
    first, second = (inspection.head.labels.printable(label) for label in report.pair)
    rows: list[Row] = [
        (NAMES[name], f"{report.cosines[name]:.4f}" if name in report.cosines else "not available", MOVED_BY[name])
        for name in NAMES
    ]
    if report.top_two is not None:
        rows.append(("can be the top two", _decided(report.top_two.feasible), "nothing"))
    return f"{first} and {second}", ["", "value", "moved, at equal probabilities, by"], rows


def equivalents_table(report: PairReport) -> tuple[str, list[str], list[Row]]:
    """Heads with the same probabilities and other cosines for a pair, with the proof."""
    rows: list[Row] = [
        (change, str(kind).split()[0], f"{value:+.6f}", f"{logits:.3g}", f"{log_p:.1e}", str(source).split(",")[0])
        for change, _, kind, value, logits, log_p, source in _equivalents(report)
    ]
    columns = ["change", "cosine", "value", "max |Δ logit|", "max |Δ log p|", "source"]
    return f"heads with the same probabilities, on {report.checked_on}", columns, rows


def equivalents_file(report: PairReport) -> tuple[list[str], list[Row]]:
    """The same for a file, with the length of each translation and the condition number of each linear map."""
    columns = ["change", "size", "similarity", "value", "max_logit_change", "max_log_probability_change", "source"]
    return columns, _equivalents(report)


def _equivalents(report: PairReport) -> list[Row]:
    heads = [("centring", report.centring, "definition")]
    heads += [("translation", head, SOURCES.get(round(head.cosine, 12), DERIVED)) for head in report.heads]
    rows: list[Row] = [
        (change, float(head.translation.norm()), "raw cosine", *head[1:], source) for change, head, source in heads
    ]
    for linear in report.linear:
        proof = (linear.logit_change, linear.log_probability_change)
        rows.append(("linear map", linear.condition, "centred cosine", linear.cosine, *proof, DERIVED))
    return rows


def neighbour_table(inspection: Inspection, index: int, query: int) -> tuple[str, list[str], list[Row]]:
    """The nearest labels of one query, a column for each metric."""
    labels = inspection.head.labels
    columns = []
    for neighbours in inspection.neighbours.values():
        pairs = zip(neighbours.labels[index].tolist(), neighbours.cosines[index].tolist(), strict=True)
        columns.append([f"{labels.printable(label)}  {cosine:.3f}" for label, cosine in pairs if label >= 0])
    names = [NAMES[name] for name in inspection.neighbours]
    rows: list[Row] = [(rank, *entries) for rank, entries in enumerate(zip(*columns, strict=False), start=1)]
    return f"nearest to {labels.printable(query)}", ["", *names], rows


def pattern_columns_and_rows(inspection: Inspection) -> tuple[list[str], list[Row]]:
    """How many sign patterns and rankings there are, against label vectors in general position."""
    rows: list[Row] = [
        (count.kind, count.reason if count.found is None else count.found, count.generic)
        for count in inspection.patterns
    ]
    return ["patterns", "of this head", "in general position"], rows


def winner_rows(inspection: Inspection) -> list[Row]:
    """Labels that no features make the prediction, and pairs that are never the top two."""
    rows: list[Row] = [("labels tried", len(inspection.winners))]
    for name, answer in (("can never be the prediction", False), ("undecided", None)):
        labels = [inspection.head.labels.printable(w.labels[0]) for w in inspection.winners if w.feasible is answer]
        if labels or answer is False:
            rows.append((name, _listed(labels)))
    if inspection.together:
        never = [pair for pair in inspection.together if not pair.feasible]
        names = [" + ".join(inspection.head.labels.printable(label) for label in pair.labels) for pair in never]
        rows.append((f"never the top two, of {len(inspection.together)} pairs", _listed(names)))
    return [*rows, ("source", DERIVED)]


def all_pairs(inspection: Inspection) -> tuple[list[str], Iterator[Row]]:
    """A row for each pair of labels with its similarities, and whether it can be the top two where that was tried."""
    names, together = inspection.head.labels, {pair.labels: pair.feasible for pair in inspection.together}
    columns = ["label_a", "label_b", *inspection.matrices] + (["can_be_top_two"] if together else [])

    def rows() -> Iterator[Row]:
        for i in range(inspection.gauge.labels):
            for j in range(i + 1, inspection.gauge.labels):
                values = [float(matrix[i, j]) for matrix in inspection.matrices.values()]
                yield [names[i], names[j], *values, *([_decided(together[i, j])] if together else [])]

    return columns, rows()


def neighbour_file(inspection: Inspection) -> tuple[list[str], Iterator[Row]]:
    """A row for each query, metric and neighbour."""
    names = inspection.head.labels

    def rows() -> Iterator[Row]:
        for metric, neighbours in inspection.neighbours.items():
            for index, query in enumerate(inspection.queries):
                pairs = zip(neighbours.labels[index].tolist(), neighbours.cosines[index].tolist(), strict=True)
                for rank, (label, cosine) in enumerate(pairs, start=1):
                    if label >= 0:
                        yield [names[query], metric, rank, names[label], label, cosine]

    return ["query", "metric", "rank", "label", "number", "cosine"], rows()


def _decided(feasible: bool | None) -> str:
    return {True: "yes", False: "no", None: "undecided"}[feasible]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return (", ".join(names[:MAX_NAMED]) or "none") + more


def _table(title: str, columns: Sequence[str], rows: Iterable[Row]) -> Table:
    """Cells are texts: a label's name may hold what rich would take for markup."""
    table = Table(title=Text(title), title_justify="left", show_header=any(columns))
    for name in columns:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
