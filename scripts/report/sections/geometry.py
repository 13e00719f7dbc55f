"""Label geometry, hubness and prediction hubs."""

from __future__ import annotations

import numpy as np

from likeness.figures.labels import TITLES
from likeness.pages.parts import Matrix, Section
from scripts.report.files import Rows, column, figure_rows, read_rows, table
from scripts.report.groups import Study
from scripts.report.metric_figures import Metric
from scripts.report.sections.families import Shown, metric_parts, metrics_of, picture_parts

FIRST = {
    "k_skewness": ("Skewness of k-occurrence", "0 where all points are neighbours of equally many others."),
    "robin_hood": ("Robin Hood index", "Share of neighbourhoods that would have to change hands to make all equal."),
    "antihub_rate": ("Share of antihubs", "Points that are nobody's neighbour."),
    "hub_occurrence": ("Share of neighbours that are hubs", ""),
    "knn_accuracy": ("Accuracy of nearest neighbours", "Of a vote of the neighbours on the label."),
}
LABELS = 60  # of which all pairs are drawn
SHOWN = 300  # rows of a table of a run


def label_geometry(study: Study) -> Section | None:
    """What angles between label vectors say about being probable together."""
    names = {"raw": "cosine", "centred": "cosine of centred vectors", "invariant": "invariant similarity"}
    says = "Rank correlation of label similarity with being probable together: 1 where angles tell the truth."
    first = [Metric(f"labels/{name}", f"Labels: {title}", "Spearman's rho", says) for name, title in names.items()]
    shown = Shown("labels", first)
    rows = [(run.name, read_rows(run.path / "label_disagreements.csv", SHOWN)) for run in study.runs]
    found = table("label_disagreements", "Labels that similarity misjudges most", rows)
    maps = _label_maps(study)
    drawn = {f"{part.name.rpartition('/')[0]}/label_similarity" for part in maps}
    pictured = picture_parts(study, shown, drawn)
    parts = [*metric_parts(study, shown), *maps, *pictured, *([found] if found else [])]
    return Section("Label geometry", parts) if parts else None


def _label_maps(study: Study) -> list[Matrix]:
    """Each similarity of all pairs of labels, of one run of each group."""
    found = figure_rows(study, "label_similarity", LABELS**2)
    return [_label_map(rows, name, f"{run.name}/label_{name}", where) for run, rows, where in found for name in TITLES]


def _label_map(rows: Rows, similarity: str, name: str, where: str) -> Matrix:
    sides = [[str(row.get(side)) for row in rows] for side in ("label_a", "label_b")]
    labels = list(dict.fromkeys(sides[0]))
    values = np.full((len(labels), len(labels)), np.nan)
    for a, b, value in zip(*sides, column(rows, similarity), strict=True):
        if b in labels:
            values[labels.index(a), labels.index(b)] = value
    title, _, moved = TITLES[similarity].partition("\n")
    caption = f"{title.capitalize()}, {moved}: red is alike, blue is opposed."
    return Matrix(name, f"{title.capitalize()}{where}", labels, labels, values, "similarity", caption, signed=True)


def hubness(study: Study) -> Section | None:
    """Indices of hubness beside chance, and the largest hubs."""
    keys = metrics_of(study, "hubness")
    first = [
        Metric(key, f"{title}: {key.split('/')[1]}", "", says)
        for name, (title, says) in FIRST.items()
        for key in keys
        if key.rpartition("/")[2] == name
    ]
    shown = Shown("hubness", first, most=max(len(first), 4))
    rows = [(run.name, read_rows(run.path / "figures" / "hubs.csv", SHOWN)) for run in study.runs]
    found = table("hubs", "Largest hubs", rows, "occurrences: how often a point is among the k nearest of another.")
    parts = [*metric_parts(study, shown), *picture_parts(study, shown), *([found] if found else [])]
    about = "Which points are everybody's nearest neighbours, beside what chance gives at this size and dimension."
    return Section("Hubness", parts, about) if parts else None


def prediction_hubs(study: Study) -> Section | None:
    """Tokens that a language model predicts everywhere."""
    parts = metric_parts(study, Shown("prediction_hubs"))
    about = "Tokens that are among the likeliest of many contexts: whether they are hubs or merely frequent."
    return Section("Prediction hubs", parts, about) if parts else None
