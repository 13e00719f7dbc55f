"""Learning curves, what evaluations found afterwards, and what fits into no other section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from likeness.pages.parts import Cell, Part, Section, Table
from scripts.report.files import Rows, read_rows, table
from scripts.report.groups import Study
from scripts.report.metric_figures import Metric
from scripts.report.runs import Run
from scripts.report.sections.families import Shown, metric_parts, metrics_of, picture_parts

UNITS = {"DiffEnc": "bits per dimension", "VariationalDiffusion": "bits per dimension", "SentenceEncoder": "loss"}
LANGUAGE = ("LanguageModel", "SiblingLanguageModels")


def training(study: Study) -> Section | None:
    """Losses and scores over steps."""
    nats = "nats a token" if _models(study) & {*LANGUAGE} else "nats"
    units = {UNITS.get(model, nats) for model in _models(study)} or {"nats"}
    unit = units.pop() if len(units) == 1 else "in each model's own unit"
    first = (
        Metric("train/loss", "Training loss", unit, "Less is better."),
        Metric(
            "val/nll",
            "Validation negative log-likelihood",
            nats,
            "Less is better; it rises again where a model overfits.",
        ),
        Metric("val/accuracy", "Validation accuracy", "share", "How often the likeliest label is the right one."),
        Metric("val/bpd", "Validation bound", "bits per dimension", "The negative ELBO: less is better."),
        Metric(
            "val/spearman",
            "Validation Spearman correlation",
            "",
            "Of cosines with the scores of the pairs: more is better.",
        ),
    )
    return _section("Training", metric_parts(study, Shown("training", first)))


def evaluation(study: Study) -> Section | None:
    """What ``evaluate``, ``test`` and ``validate`` have left in the run directories."""
    found = table(
        "evaluations",
        "Evaluations",
        [(run.name, rows) for run in study.runs for _, rows in _evaluations(run.path)],
        "bpd: the negative bound in bits per dimension; _se: standard errors, over samples and over draws of noise.",
    )
    after = [
        table(
            f"{stage}_metrics",
            f"Metrics of {stage}",
            [(run.name, read_rows(run.path / f"{stage}_metrics.csv")) for run in study.runs],
        )
        for stage in ("validate", "test")
    ]
    return _section("Evaluation", [part for part in (found, *after) if part is not None])


def _evaluations(path: Path) -> Iterator[tuple[str, Rows]]:
    for file in sorted([*path.glob("evaluation.csv"), *path.glob("*/evaluation.csv")]):
        yield file.parent.name, read_rows(file)


def probes(study: Study) -> Section | None:
    """What linear probes read out of layers."""
    about = "How well a linear model on a layer's outputs predicts the labels."
    return _section("Probes", metric_parts(study, Shown("probes", most=16)), about)


def other(study: Study) -> Section | None:
    """Metrics and pictures of no other section."""
    shown = Shown("other")
    return _section("Other", [*metric_parts(study, shown), *picture_parts(study, shown)])


def costs(study: Study) -> Section | None:
    """Seconds that callbacks took in all."""
    keys = metrics_of(study, "costs")
    rows: list[list[Cell]] = [[run.name, *(_total(run, key) for key in keys)] for run in study.runs]
    columns = ["run", *(key.removesuffix("/seconds") for key in keys)]
    return _section("Costs", [Table("costs", "Seconds that callbacks took in all", columns, rows)] if keys else [])


def _total(run: Run, key: str) -> float | None:
    curve = run.metrics.curves.get(key)
    return None if curve is None else float((curve.mean * curve.count).sum())


def _section(title: str, parts: list[Part], about: str = "") -> Section | None:
    return Section(title, parts, about) if parts else None


def _models(study: Study) -> set[str]:
    paths = ((run.config.get("model") or {}).get("class_path", "") for run in study.runs)
    return {path.rpartition(".")[2] for path in paths if path}
