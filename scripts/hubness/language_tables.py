"""Tables, files and figures of the prediction hubs of a language model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likeness.language.prediction_hubs import TokenHubs
from scripts.hubness.language import LanguageHubs
from scripts.hubness.tables import NAMES, shown_indices
from scripts.reporting import Report, Row, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 3  # hubs that a table names in one cell


def title(found: LanguageHubs) -> str:
    """What was measured on what, with the prefix that every number depends on."""
    search, report, name = found.search, found.predictions.report, found.model.name
    prefix = found.model.prefix(search.prefix)
    before = "nothing" if prefix is None else f"{found.model.shown(prefix)} ({search.prefix})"
    contexts = f"{report.m:,} contexts of {search.texts}, each text after {before}"
    return f"{name}: the {report.k} likeliest of {report.n:,} tokens in {contexts}"


def index_table(found: LanguageHubs) -> Report:
    """Each index of the predictions beside what the nulls give."""
    hubs = found.predictions
    nulls = {"by chance": shown_indices(hubs.report.null)}
    nulls |= {f"by {name}": shown_indices(report) for name, report in hubs.nulls.items()}
    rows: list[Row] = [
        {"index": NAMES[index], "value": value} | {name: null.get(index) for name, null in nulls.items()}
        for index, value in shown_indices(hubs.report).items()
    ]
    shared = [f"{share:.0%} of the hubs are hubs by {name} as well" for name, share in hubs.overlap.items()]
    return Report(title(found), rows, notes=shared)


def summary_table(found: LanguageHubs) -> Report:
    """One number a line."""
    return Report("predictions", [{"what": name, "value": value} for name, value in summary(found).items()])


def summary(found: LanguageHubs) -> dict[str, Any]:
    """What is said by one number each, or by a text where there is none."""
    hubs, model, positions = found.predictions, found.model, found.positions
    assert hubs.visit.next_log_probability is not None
    nll = -float(hubs.visit.next_log_probability.mean())
    return {
        "cross-entropy, nats a token": nll,
        "perplexity": math.exp(nll),
        "log mass of the rows with a token": float(model.log_mass(positions.f).double().mean()),
        "N of a hub, at least": hubs.threshold,
        **_frequency(hubs, "hubs", found.corpus),
        "L2 distance to uniform, mean": float(hubs.l2_to_uniform.mean()),
        "Var / mean^2 of 1 - p": hubs.visit.concentration[1],
    }


def _frequency(hubs: TokenHubs, what: str, corpus: str) -> dict[str, Any]:
    link = hubs.frequency
    assert link is not None
    reasons = link.reasons
    return {
        what: len(hubs.hubs),
        f"{what} that never occur in {corpus}": len(link.zero_frequency_hubs),
        f"Spearman of N and frequency, {what}": reasons.get("spearman_hubs", link.spearman_hubs),
        "Spearman of N and frequency, all tokens": reasons.get("spearman_all", link.spearman_all),
        "p of that, permuted": reasons.get("p_all", link.p_all),
    }


def accuracy_table(found: LanguageHubs) -> Report:
    """How often the likeliest token is the next one, where it is a hub and where not."""
    rows: list[Row] = []
    for group, accuracy in found.predictions.accuracy.items():
        low, high = accuracy.interval or (None, None)
        row: Row = {"likeliest token": {"hub": "a hub", "other": "no hub"}.get(group, "any")}
        row |= {"contexts": accuracy.contexts, "accuracy": accuracy.accuracy, "95 % from": low, "to": high}
        rows.append(row)
    return Report("next tokens by what is predicted", rows)


def hub_table(found: LanguageHubs, top: int) -> Report:
    """The largest hubs of predictions, with what nearness counts them."""
    ids, counts = (values.tolist() for values in found.predictions.report.top_hubs(top))
    rows: list[Row] = []
    for token, count in zip(ids, counts, strict=True):
        row: Row = {"id": token, "token": found.model.shown(token), "N": count}
        row["frequency"] = int(found.frequencies[token])
        for (kind, distance), hubs in found.points.items():
            if kind == "tokens":
                row[f"N, {distance}"] = int(hubs.report.k_occurrence[token])
        rows.append(row)
    return Report("largest hubs of predictions", rows)


def point_table(found: LanguageHubs) -> Report:
    """Tokens among tokens, and contexts among contexts, by each distance."""
    rows: list[Row] = []
    for (kind, distance), hubs in found.points.items():
        report, link = hubs.report, hubs.frequency
        row: Row = {"among": kind, "distance": distance, "k-skewness": report.k_skewness, "hubs": len(hubs.hubs)}
        row |= {"Robin Hood": report.robin_hood, "by chance": report.null.robin_hood, "antihubs": report.antihub_rate}
        if link is not None:
            row |= {"Spearman, hubs": link.spearman_hubs, "Spearman, all": link.spearman_all}
            row |= {"hubs that never occur": len(link.zero_frequency_hubs)}
            row["largest"] = " ".join(found.model.shown(token) for token in report.top_hubs(LARGEST)[0].tolist())
        rows.append(row)
    return Report(
        f"nearest neighbours, N of a hub at least {found.search.threshold.rule(found.search.k).factor:g}", rows
    )


def reduction_table(found: LanguageHubs) -> Report:
    """Next-token predictions under each reduction, against those without."""
    rows: list[Row] = []
    for answer in found.reduced:
        test = answer.against_none
        rows.append(
            {
                "scores": answer.name,
                "accuracy": answer.accuracy,
                f"among {found.search.k}": answer.recall,
                "1 / rank": answer.reciprocal_rank,
                "cross-entropy": answer.nll,
                "k-skewness": answer.hubness.k_skewness,
                "McNemar p": None if test is None else test.p,
                "than none": None if test is None else test.verdict,
            }
        )
    contexts = found.reduced[0].hubness.m if found.reduced else 0
    return Report(f"next tokens of {contexts:,} contexts, reductions fitted on other texts", rows)


def figures(found: LanguageHubs) -> dict[str, Figure]:
    """k-occurrences beside those of the nulls, and what reductions do to accuracy and hubness."""
    from likeness.figures.hubness import Quantity, k_occurrence_figure, method_figure

    reports = {"predictions": found.predictions.report}
    reports |= {f"by {name}": report for name, report in found.predictions.nulls.items() if name != "constant"}
    drawn = {"k_occurrence": k_occurrence_figure(reports)}
    if found.reduced:
        quantities = [
            Quantity("next-token accuracy", [answer.accuracy for answer in found.reduced]),
            Quantity("k-skewness", [answer.hubness.k_skewness for answer in found.reduced]),
        ]
        drawn["reductions"] = method_figure([answer.name for answer in found.reduced], quantities)
    return drawn


def write_all(found: LanguageHubs, folder: Path, top: int) -> list[Path]:
    """Every table as CSV, every number in report.json, and the figures; answers the files."""
    from likeness.figures.output import save_formats

    tables = {"indices": index_table(found), "hubs": hub_table(found, top), "points": point_table(found)}
    tables |= {"accuracy": accuracy_table(found), "reductions": reduction_table(found)}
    written = [table.write(folder / f"{name}.csv") for name, table in tables.items() if table.rows]
    written.append(write_json(folder / "report.json", as_json(found)))
    return written + [path for name, figure in figures(found).items() for path in save_formats(figure, folder, name)]


def as_json(found: LanguageHubs) -> dict[str, Any]:
    """The model's head, what was measured, and every number that is one."""
    facts, search = found.model.facts, found.search
    head = facts._asdict() | {"duplicates": [list(group) for group in facts.duplicates]}
    measured = vars(search) | {"prefix_id": found.model.prefix(search.prefix), "contexts": len(found.positions.t)}
    return {
        "model": found.model.name,
        "head": head,
        "measured": {name: list(value) if isinstance(value, tuple) else value for name, value in measured.items()},
        "summary": summary(found),
        "indices": found.predictions.report.indices(),
        "nulls": {name: report.indices() for name, report in found.predictions.nulls.items()},
        "overlap": found.predictions.overlap,
        "warnings": list(found.warnings),
    }
