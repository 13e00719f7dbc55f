"""How alike siblings, references and compared models are, whole and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from likeness.figures.embeddings import MAX_PANELS, MAX_POINTS
from likeness.pages.comparison import called, comparison_parts, layer_parts
from likeness.pages.parts import Part, Scatter, Section
from scripts.report.files import figure_rows, read_rows
from scripts.report.groups import Study
from scripts.report.metric_figures import Metric
from scripts.report.planes import read_planes
from scripts.report.sections.families import Shown, metric_parts, metrics_of, picture_parts

COMPARED = 4  # comparisons that are shown
OF_LAYERS = ("measure", "layer_a", "layer_b")
LAYERS = 20_000  # pairs of layers that are read
PICTURES = ("embeddings", "similarity")
POINTS = 4000  # of a figure of embeddings
BOUND = f"At most {MAX_PANELS} models and {POINTS:,} points, the first, are shown."


def similarity(study: Study) -> Section | None:
    """Measures between the models of a run while they learn, and comparisons made afterwards."""
    first = [_metric(key) for key in metrics_of(study, "similarity")]
    shown = Shown("similarity", first, pictures=PICTURES)
    scatters = _scatters(study)
    pictured = picture_parts(study, shown, {part.name for part in scatters})
    parts = [*metric_parts(study, shown), *scatters, *pictured, *_comparisons(study)]
    about = "Whether models that predict alike see the data alike; docs/subjects/measures.md says what measures answer."
    return Section("Similarity", parts, about) if parts else None


def layers(study: Study) -> Section | None:
    """Layers against those of the same model earlier, of siblings or of a reference."""
    shown = Shown("layers")
    parts = [*picture_parts(study, shown), *metric_parts(study, shown)]
    for file, name, where in _found(study, "layers.csv"):
        parts += layer_parts([row for row in read_rows(file, LAYERS) if {*OF_LAYERS} <= {*row}], name, where)
    return Section("Layers", parts, "How alike layers are to those that they are held against.") if parts else None


def _scatters(study: Study) -> list[Scatter]:
    """Embeddings of the models of a run, of one run of each group."""
    scatters = []
    for run, rows, where in figure_rows(study, "embeddings", 2 * MAX_PANELS * MAX_POINTS):
        if planes := read_planes(rows, POINTS):
            scatters.append(
                Scatter(f"{run.name}/embeddings", f"Embeddings{where}", planes, f"{planes.caption} {BOUND}")
            )
    return scatters


def _comparisons(study: Study) -> Iterator[Part]:
    for file, name, where in _found(study, "comparison.csv"):
        models = read_rows(file.with_name("models.csv")) if file.with_name("models.csv").is_file() else []
        yield from comparison_parts(read_rows(file), models, name, where)


def _found(study: Study, name: str) -> Iterator[tuple[Path, str, str]]:
    """What ``likeness compare`` left in folders of run directories, a name for each, and one for its titles."""
    files = [file for run in study.runs for file in sorted(run.path.glob(f"*/{name}"))]
    for file in files[:COMPARED]:
        own = f"{file.parent.parent.name}/{file.parent.name}"
        yield file, own, f" ({own})" if len(files) > 1 else ""


def _metric(key: str) -> Metric:
    name = key.removesuffix("/mean").partition("/")[2]
    label, alike = called(name)
    return Metric(key, f"{label}, over pairs", name, alike)
