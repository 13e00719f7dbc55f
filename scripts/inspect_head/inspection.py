"""What can be said of a head's labels: their similarities, what of these is arbitrary, and what they can predict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from likeness.label_geometry.equivalent_heads import (
    EquivalentHead,
    linear_map_to_cosine,
    log_probability_change,
    transformed,
    translated_heads,
    translation_to_cosine,
)
from likeness.label_geometry.nearest_labels import NearestLabels, nearest_labels
from likeness.label_geometry.patterns import (
    TooManyPatternsError,
    generic_ranking_count,
    generic_sign_count,
    rankings,
    sign_patterns,
)
from likeness.label_geometry.similarity import HeadSummary, LabelMetric, Progress, summarise_head
from likeness.label_geometry.top_sets import TopSet, doubtful_winners, top_sets
from likeness.numerics import as_float64
from scripts.inspect_head.features import MAX_SAMPLE, Features, random_features
from scripts.inspect_head.heads import Head

MAX_MATRIX = 1000  # labels all pairs of which are measured; of more, a sample of 2,000 stands for them
MAX_TOGETHER = 20  # labels all pairs of which are tried for being the top two
MAX_PATTERNS = (12, 4)  # labels and dimensions up to which patterns are enumerated
MAX_LINEAR = 2**22  # entries of a head up to which linear maps are shown
SAMPLED = 2000
LINEAR_COSINES = (-0.9, 0.9)
LOGIT_SPREAD = 3.0  # standard deviation of the logits at random features

Watch = Callable[[str], Progress]


class LinearChange(NamedTuple):
    """A linear map of features and label vectors that moves the centred cosine of a pair."""

    cosine: float  # centred, after
    condition: float  # of the map
    logit_change: float  # largest: rounding, for A f and A^-T g have the logits of f and g
    log_probability_change: float


@dataclass(frozen=True)
class PairReport:
    """Two labels: their similarities and heads with the same probabilities that give them others."""

    pair: tuple[int, int]
    cosines: dict[str, float]
    centring: EquivalentHead  # what subtracting the mean label vector does
    heads: dict[float, EquivalentHead]  # by the cosine that was asked for
    linear: list[LinearChange]
    top_two: TopSet | None  # None where there are no other labels
    checked_on: str


class PatternCount(NamedTuple):
    """How many patterns of a kind a head allows; None where they were not enumerated, with the reason."""

    kind: str
    found: int | None
    generic: int
    reason: str = ""


@dataclass(frozen=True)
class Inspection:
    """Everything that was found out about a head."""

    head: Head
    summary: HeadSummary
    features: Features | None
    metrics: dict[str, LabelMetric]
    matrices: dict[str, Tensor]  # [K, K] each, or of a sample of labels
    sampled: list[int] | None  # the labels of that sample
    pair: PairReport | None = None
    neighbours: dict[str, NearestLabels] = field(default_factory=dict)
    queries: Sequence[int] = ()
    patterns: Sequence[PatternCount] = ()
    winners: Sequence[TopSet] = ()
    together: Sequence[TopSet] = ()


def inspect_head(
    head: Head,
    features: Features | None,
    pair: tuple[int, int] | None,
    cosines: Sequence[float],
    queries: Sequence[int],
    top: int,
    winners: int,
    device: torch.device,
    watch: Watch,
) -> Inspection:
    """Measure a head; work that grows with K^2 is done for small K, and for the labels asked about.

    ``winners`` labels are tried for being the prediction, those asked about and the most doubtful others. Raises
    ValueError as the functions of ``likeness.label_geometry.similarity`` and its neighbours do.
    """
    summary = summarise_head(head.rows, device, watch("reading the label vectors"))
    mean = summary.mean
    metrics = {"raw": LabelMetric.raw(), "centred": LabelMetric.centred(mean)}
    if features is not None:
        metrics["invariant"] = LabelMetric.invariant(mean, features.covariance.to(device))
    sampled = _sampled_labels(summary.labels)
    sample = head.rows[:] if sampled is None else torch.cat([head.rows[label : label + 1] for label in sampled])
    matrices = {name: metric.cosines(sample.to(device)).cpu() for name, metric in metrics.items()}
    asked: list[tuple[int, ...]] = [(label,) for label in {*queries, *(pair or ())}]
    sets = [*asked, pair] if pair is not None and summary.labels > 2 else asked
    tops = doubtful_winners(head.rows, winners, sets, head.bias, device, watch("finding out who can win"))
    report = None
    if pair is not None:
        top_two = next((top for top in tops if len(top.labels) == 2), None)
        report = _inspect_pair(head, summary, features, metrics, pair, top_two, cosines, device, watch)
    nearest = {}
    if queries:
        nearest = nearest_labels(head.rows, queries, metrics, top, device, watch("finding the nearest labels"))
    return Inspection(
        head,
        summary,
        features,
        metrics,
        matrices,
        sampled,
        report,
        nearest,
        queries,
        _count_patterns(head),
        [top for top in tops if len(top.labels) == 1],
        _find_top_twos(head),
    )


def _inspect_pair(
    head: Head,
    summary: HeadSummary,
    features: Features | None,
    metrics: dict[str, LabelMetric],
    pair: tuple[int, int],
    top_two: TopSet | None,
    cosines: Sequence[float],
    device: torch.device,
    watch: Watch,
) -> PairReport:
    f, checked_on = _inputs(summary, features)
    rows = torch.cat([head.rows[label : label + 1] for label in pair]).to(device)
    similarities = {name: float(metric.cosines(rows)[0, 1]) for name, metric in metrics.items()}
    a, b = as_float64(rows)
    translations = [-summary.mean, *(translation_to_cosine(a, b, cosine) for cosine in cosines)]
    progress = watch("checking the equivalent heads")
    centring, *others = translated_heads(f.to(device), head.rows, pair, translations, head.bias, progress)
    heads = dict(zip(cosines, others, strict=True))
    return PairReport(pair, similarities, centring, heads, _move_linearly(head, pair, f), top_two, checked_on)


def _inputs(summary: HeadSummary, features: Features | None) -> tuple[Tensor, str]:
    """Features to show equal probabilities on: fewer of them for more labels, to bound the logits' memory."""
    count = max(8, min(MAX_SAMPLE, 2**21 // summary.labels))
    if features is not None:
        f = features.sample[:count]
        return f, f"the first {len(f)} of {features.source}"
    size = summary.spread or float(summary.mean.norm()) or 1.0
    return random_features(summary.dim, LOGIT_SPREAD / size, count), f"{count} random features"


def _move_linearly(head: Head, pair: tuple[int, int], f: Tensor) -> list[LinearChange]:
    if math.prod(head.rows.shape) > MAX_LINEAR:
        return []
    g = as_float64(head.rows[:])
    changes = []
    for cosine in LINEAR_COSINES:
        try:
            matrix = linear_map_to_cosine(g, *pair, cosine)
        except ValueError:  # parallel: no linear map moves them
            return []
        new_f, new_g = transformed(f, g, matrix)
        achieved = LabelMetric.centred(new_g.mean(0)).cosines(new_g[list(pair)])[0, 1]
        logits = (f @ g.T - new_f @ new_g.T).abs().max()
        log_p = log_probability_change(f, g, new_f, new_g, head.bias)
        changes.append(LinearChange(float(achieved), float(torch.linalg.cond(matrix)), float(logits), float(log_p)))
    return changes


def _sampled_labels(count: int) -> list[int] | None:
    if count <= MAX_MATRIX:
        return None
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(0))[: min(count, SAMPLED)]
    return sorted(drawn.tolist())


def _count_patterns(head: Head) -> list[PatternCount]:
    labels, dim = head.rows.shape
    if labels > MAX_PATTERNS[0] or dim > MAX_PATTERNS[1]:
        return []
    g, counts = as_float64(head.rows[:]), []
    for kind, enumerate_patterns, generic_count in (
        ("sign patterns of the logits", sign_patterns, generic_sign_count),
        ("rankings of the labels", rankings, generic_ranking_count),
    ):
        generic = generic_count(labels, dim, head.bias is not None)
        try:
            counts.append(PatternCount(kind, len(enumerate_patterns(g, head.bias)), generic))
        except (TooManyPatternsError, ArithmeticError) as error:
            counts.append(PatternCount(kind, None, generic, str(error)))
    return counts


def _find_top_twos(head: Head) -> list[TopSet]:
    labels = head.rows.shape[0]
    if not 2 < labels <= MAX_TOGETHER:
        return []
    pairs = [(i, j) for i in range(labels) for j in range(i + 1, labels)]
    return top_sets(as_float64(head.rows[:]), pairs, head.bias)


def off_diagonal(matrix: Tensor) -> np.ndarray:
    """The entries above the diagonal of a symmetric matrix [K, K], [K(K-1)/2]."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), 1)
    values: np.ndarray = matrix[rows, columns].numpy()
    return values
