"""The tables of an inspected head: rows by column, for the terminal and for files."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from likeness.label_geometry.nearest_labels import NearestLabels
from likeness.label_geometry.top_sets import TopSet
from scripts.inspect_head.inspection import Inspection, PairReport
from scripts.reporting import Row

DERIVED = "derived, not in the paper"
SOURCES = {-1.0: "lemma 2.2", 1.0: "lemma 2.3"}
NAMES = {"raw": "raw cosine", "centred": "centred cosine", "invariant": "logit correlation"}
MOVED_BY = {"raw": "translations and linear maps", "centred": "linear maps", "invariant": "nothing"}
UNDEFINED = {
    "raw": "undefined: a label stands at zero",
    "centred": "undefined: a label stands at the mean",
    "invariant": "undefined: a label's centred logit never moves",
}
MAX_PAIRS = 300  # labels up to which all pairs are written to a file
MAX_NAMED = 20

Rows = list[Row]


def printed(inspection: Inspection) -> Iterator[tuple[str, Rows]]:
    """Titles and rows of everything for the terminal, in reading order."""
    yield "the head", head_rows(inspection)
    if inspection.pair is not None:
        first, second = (inspection.head.labels.printable(label) for label in inspection.pair.pair)
        yield f"{first} and {second}", pair_rows(inspection.pair)
        yield _warning(inspection, inspection.pair), _short(equivalent_rows(inspection.pair))
    for index, query in enumerate(inspection.queries):
        title = f"nearest to {inspection.head.labels.printable(query)}"
        yield title, neighbour_table(inspection, index) or [{"": "no label has a direction to compare"}]
    if inspection.patterns:
        yield "what the head can answer with, over all features", pattern_rows(inspection)
    if inspection.winners:
        yield "which labels can win", winner_rows(inspection)


def written(inspection: Inspection) -> dict[str, Rows]:
    """The rows of each file by its name."""
    tables = {"head": head_rows(inspection)}
    if inspection.sampled is None and inspection.summary.labels <= MAX_PAIRS:
        tables["pairs"] = all_pairs(inspection)
    if inspection.pair is not None:
        tables["equivalent_heads"] = equivalent_rows(inspection.pair)
    if inspection.queries:
        tables["neighbours"] = neighbour_rows(inspection)
    if inspection.patterns:
        tables["patterns"] = pattern_rows(inspection)
    if inspection.winners:
        names = inspection.head.labels
        tables["labels"] = [
            {"label": w.labels[0], "name": names[w.labels[0]], "can_win": _decided(w)} for w in inspection.winners
        ]
    return tables


def head_rows(inspection: Inspection) -> Rows:
    """What of the head's coordinates is arbitrary, and whether its labels determine the rest."""
    head, summary = inspection.head, inspection.summary
    features = inspection.features.source if inspection.features else "not available: give --features or --data"
    of = "" if summary.judged == summary.labels else f" (of every {round(summary.labels / summary.judged)}th label)"
    rank = f"{summary.rank} of {summary.dim}{of}"
    if summary.rank < summary.dim and not of:
        rank += ": the other directions of f reach no probability"
    values: list[tuple[str, object]] = [
        ("source", head.source),
        ("labels K", summary.labels),
        ("dimensions M", summary.dim),
        ("stored as", head.dtype),
        ("bias", "yes" if head.bias is not None else "no"),
        ("tied to the input embeddings", "yes" if head.tied else "no"),
        ("rank of the centred label vectors", rank),
        ("length of their mean / mean length", f"{summary.mean_ratio:.4g}"),
        ("condition number, centred", f"{summary.condition:.4g}{of}"),
        ("feature covariance", features),
    ]
    if head.cap is not None:
        values.append(("soft cap", f"logits are c tanh(f . g / c) with c = {head.cap:g}: rankings are those of f . g"))
    values += [("note", note) for note in head.notes]
    return [{"quantity": quantity, "value": value} for quantity, value in values]


def _warning(inspection: Inspection, report: PairReport) -> str:
    first, second = (inspection.head.labels.printable(label) for label in report.pair)
    same = "Each head below answers every input with the same probabilities"
    if inspection.head.cap is not None:
        same = "Without the soft cap, which no probability survives unchanged, each head below would give the same ones"
    return (
        f"Careful: the cosines of {first} and {second} are a choice of coordinates, not a finding about the model. "
        f"{same}; shown on {report.checked_on}"
    )


def pair_rows(report: PairReport) -> Rows:
    """The similarities of a pair, and which changes of coordinates move them."""
    rows: list[tuple[str, str, str]] = []
    for name, title in NAMES.items():
        value = report.cosines.get(name)
        known = "not available" if value is None else UNDEFINED[name] if value != value else f"{value:.4f}"
        rows.append((title, known, MOVED_BY[name]))
    if report.top_two is not None:
        rows.append(("can be the top two", _decided(report.top_two), "nothing"))
    return [{"": title, "value": value, "moved, at equal probabilities, by": by} for title, value, by in rows]


def equivalent_rows(report: PairReport) -> Rows:
    """Heads with the same probabilities and other cosines for a pair, with the proof.

    ``size`` is the length of a translation, or the condition number of a linear map.
    """
    heads = [("centring", report.centring, "definition")]
    heads += [("translation", head, SOURCES.get(cosine, DERIVED)) for cosine, head in report.heads.items()]
    rows = [(change, float(head.translation.norm()), "raw cosine", *head[1:], source) for change, head, source in heads]
    for linear in report.linear:
        proof = (linear.logit_change, linear.log_probability_change)
        rows.append(("linear map", linear.condition, "centred cosine", linear.cosine, *proof, DERIVED))
    columns = ["change", "size", "similarity", "value", "max_logit_change", "max_log_probability_change", "source"]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _short(equivalents: Rows) -> Rows:
    """The same for the terminal."""
    return [
        {
            "change": row["change"],
            "cosine": str(row["similarity"]).split()[0],
            "value": f"{row['value']:+.6f}",
            "max |Δ logit|": f"{row['max_logit_change']:.3g}",
            "max |Δ log p|": f"{row['max_log_probability_change']:.1e}",
            "source": str(row["source"]).split(",")[0],
        }
        for row in equivalents
    ]


def neighbour_table(inspection: Inspection, index: int) -> Rows:
    """The nearest labels of one query, a column for each metric."""
    labels = inspection.head.labels
    columns = [
        [f"{labels.printable(label)}  {cosine:.3f}" for label, cosine in _nearest(found, index)]
        for found in inspection.neighbours.values()
    ]
    names = ["", *(NAMES[name] for name in inspection.neighbours)]
    ranked = enumerate(zip_longest(*columns, fillvalue=None), start=1)
    return [dict(zip(names, (str(rank), *entries), strict=True)) for rank, entries in ranked]


def neighbour_rows(inspection: Inspection) -> Rows:
    """A row for each query, metric and neighbour."""
    names = inspection.head.labels
    return [
        {
            "query": names[query],
            "metric": metric,
            "rank": rank,
            "label": names[label],
            "number": label,
            "cosine": cosine,
        }
        for metric, found in inspection.neighbours.items()
        for index, query in enumerate(inspection.queries)
        for rank, (label, cosine) in enumerate(_nearest(found, index), start=1)
    ]


def _nearest(found: NearestLabels, index: int) -> list[tuple[int, float]]:
    pairs = zip(found.labels[index].tolist(), found.cosines[index].tolist(), strict=True)
    return [(label, cosine) for label, cosine in pairs if label >= 0]


def pattern_rows(inspection: Inspection) -> Rows:
    """How many sign patterns and rankings there are, against label vectors in general position."""
    return [
        {
            "patterns": count.kind,
            "of this head": count.reason if count.found is None else str(count.found),
            "in general position": count.generic,
        }
        for count in inspection.patterns
    ]


def winner_rows(inspection: Inspection) -> Rows:
    """Labels that no features make the prediction, and pairs that are never the top two."""
    count, every = len(inspection.winners), inspection.summary.labels
    which = "" if count == every else f" of {every:,}: those asked about, repeated ones, then those least far out"
    rows = [("labels tried", f"{count:,}{which}")]
    rows += _outcomes(inspection, inspection.winners, "can never be the prediction", "undecided")
    if inspection.together:
        tried = f"of {len(inspection.together)} pairs"
        rows += _outcomes(inspection, inspection.together, f"never the top two, {tried}", f"undecided, {tried}")
    return [{"": name, "labels": value} for name, value in [*rows, ("source", DERIVED)]]


def _outcomes(inspection: Inspection, sets: Sequence[TopSet], never: str, undecided: str) -> list[tuple[str, str]]:
    rows = []
    for title, answer in ((never, False), (undecided, None)):
        names = [
            " + ".join(inspection.head.labels.printable(label) for label in top.labels)
            for top in sets
            if top.feasible is answer
        ]
        if names or answer is False:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            rows.append((title, (", ".join(names[:MAX_NAMED]) or "none") + more))
    return rows


def all_pairs(inspection: Inspection) -> Rows:
    """A row for each pair of labels with its similarities, and whether it can be the top two where that was tried."""
    names, together = inspection.head.labels, {top.labels: _decided(top) for top in inspection.together}
    rows = []
    for i in range(inspection.summary.labels):
        for j in range(i + 1, inspection.summary.labels):
            values = {name: float(matrix[i, j]) for name, matrix in inspection.matrices.items()}
            can_be: Row = {"can_be_top_two": together[i, j]} if together else {}
            rows.append({"label_a": names[i], "label_b": names[j], **values, **can_be})
    return rows


def _decided(top: TopSet) -> str:
    return {True: "yes", False: "no", None: "undecided"}[top.feasible]
