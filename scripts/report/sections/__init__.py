"""The sections of a report, in the order of the page: each is a function of all runs, and None where it has nothing."""

from __future__ import annotations

from collections.abc import Callable

from likeness.pages.parts import Section
from scripts.report.groups import Study
from scripts.report.sections.configuration import configuration, environment, segments
from scripts.report.sections.diffusion import bound, encoder, samples
from scripts.report.sections.geometry import hubness, label_geometry, prediction_hubs
from scripts.report.sections.overview import faults, overview
from scripts.report.sections.similarity import layers, similarity
from scripts.report.sections.training import costs, evaluation, other, probes, training

SECTIONS: tuple[Callable[[Study], Section | None], ...] = (
    overview,
    faults,
    training,
    evaluation,
    bound,
    samples,
    encoder,
    similarity,
    layers,
    label_geometry,
    hubness,
    prediction_hubs,
    probes,
    other,
    costs,
    configuration,
    segments,
    environment,
)
