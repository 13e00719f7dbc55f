"""Which metrics and pictures belong to which section, told from their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from likeness.pages.parts import Part
from scripts.report.files import pictures
from scripts.report.groups import Study
from scripts.report.metric_figures import Metric, last_values, metric_figure, own_keys

# The first that fits has the metric.
FAMILIES = {
    "costs": r".*/seconds$",
    "bound": r"elbo/|val/(reconstruction|latent|diffusion|context)|depth_curve/|loss_by_gamma/|schedule/|gradient",
    "encoder": r"encoder/",
    "similarity": r"similarity",
    "layers": r"layers",
    "labels": r"labels/",
    "prediction_hubs": r"hubness/prediction/",
    "hubness": r"hubness/",
    "probes": r"probe",
    "training": r"train/|val/|lr|epoch$",
    "other": r"",
}
PICTURES = {
    "samples": r"sample",
    "encoder": r"encoder",
    "bound": r"depth_curve|loss_by_gamma|schedule|gradient_norms|ratio|volatility|variance",
    "similarity": r"similarity|embeddings",
    "layers": r"layers",
    "labels": r"label",
    "hubness": r"hub",
    "other": r"",
}


@dataclass(frozen=True)
class Shown:
    """What a section shows of a family: the figures of some metrics first, then of others up to a number in all."""

    family: str
    first: Sequence[Metric] = ()
    most: int = 12
    units: dict[str, str] = field(default_factory=dict)  # of the others, by the last part of their keys
    pictures: Sequence[str] = ()  # the first, by what their names begin with


def metrics_of(study: Study, family: str) -> list[str]:
    """The metrics of a family, without those that only accompany others."""
    return [key for key in own_keys(study.keys) if family_of(key) == family and key != "epoch"]


def metric_parts(study: Study, shown: Shown) -> list[Part]:
    """Figures of a family's metrics, and the last values of all."""
    keys = metrics_of(study, shown.family)
    named = [metric for metric in shown.first if metric.key in keys]
    rest = [
        Metric(key, _title(key), shown.units.get(key.rpartition("/")[2], ""))
        for key in keys
        if key not in {metric.key for metric in named}
    ]
    wanted = [*named, *rest[: max(shown.most - len(named), 0)]]
    figures: list[Part] = [figure for metric in wanted if (figure := metric_figure(study, metric)) is not None]
    table = last_values(study, keys, f"{shown.family}_last")
    return figures if table is None else [*figures, table]


def picture_parts(study: Study, shown: Shown, drawn: Collection[str] = ()) -> list[Part]:
    """What callbacks drew of a family, without those pictures, by name, whose values the page draws itself."""
    names = (name for name in PICTURES if name != shown.family)
    before = [PICTURES[name] for name in names if shown.family == "other" and PICTURES[name]]
    pattern = f"(?!{'|'.join(before)})" if before else PICTURES[shown.family]
    return [part for part in pictures(study, re.compile(pattern), shown.pictures) if part.name not in drawn]


def family_of(key: str) -> str:
    """The family of a metric."""
    return next(family for family, pattern in FAMILIES.items() if re.match(pattern, key))


def _title(key: str) -> str:
    return key.removesuffix("/mean").replace("_", " ").replace("/", ", ")
