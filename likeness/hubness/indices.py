"""Indices of hubness, as functions of the histogram of k-occurrences alone.

A histogram h [C] holds at c the number of points with N = c (``count_histogram``), or the number that is expected
(``hubness_null``). n is its sum, and lambda the mean of N.

How often each point is among the k nearest neighbours of others, and the histogram that says so of many shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.checks import require_one_of

HubRuleName = Literal["multiple", "std", "absolute"]


class HubRule(NamedTuple):
    """Which points are hubs: N >= factor k, N > lambda + factor sd(N), or N >= factor."""

    name: HubRuleName = "multiple"
    factor: float = 2.0

    def hubs(self, histogram: Tensor, k: int) -> Tensor:
        """Whether a count c makes a hub, bool [C]."""
        require_one_of(self.name, get_args(HubRuleName), "hub_rule")
        if not self.factor > 0:
            raise ValueError(f"hub_factor must be positive, got {self.factor}")
        c, h = _float64(histogram)
        if self.name == "std":
            mean = _mean(c, h)
            return c > mean + self.factor * _mean((c - mean).square(), h).sqrt()
        return c >= self.factor * (k if self.name == "multiple" else 1)


@dataclass(frozen=True, kw_only=True)
class HubnessIndices:
    """What is said of a graph of neighbours by one number each; None where the graph does not have it."""

    k_skewness: float
    robin_hood: float
    gini: float
    atkinson: float  # epsilon = 1/2
    shannon_evenness: float
    antihub_rate: float  # share of the points
    hub_rate: float  # share of the points
    hub_occurrence: float  # share of the k m slots that hubs take
    groupie_ratio: float  # share of the slots that the largest hub takes
    max_occurrence: float
    asymmetry: float | None = None  # share of the edges that are not mutual; of in-sample graphs
    bad_occurrence: float | None = None  # share of the slots whose point has another label than the query

    def indices(self) -> dict[str, float]:
        """All of them by name, those that are None left out."""
        values = {field.name: getattr(self, field.name) for field in fields(HubnessIndices)}
        return {name: float(value) for name, value in values.items() if value is not None}


def indices_of(histogram: Tensor, k: int, hubs: HubRule, include_self: bool = False) -> HubnessIndices:
    """Every index that the histogram [C] determines."""
    c, h = _float64(histogram)
    is_hub, total = hubs.hubs(histogram, k), (c * h).sum()
    largest = float(c[h > 0].max())
    return HubnessIndices(
        k_skewness=k_skewness(histogram),
        robin_hood=robin_hood(histogram),
        gini=gini(histogram),
        atkinson=atkinson(histogram),
        shannon_evenness=shannon_evenness(histogram),
        antihub_rate=antihub_rate(histogram, include_self),
        hub_rate=float(h[is_hub].sum() / h.sum()),
        hub_occurrence=float((c * h)[is_hub].sum() / total),
        groupie_ratio=largest / float(total),
        max_occurrence=largest,
    )


def k_skewness(histogram: Tensor) -> float:
    """E (N - lambda)^3 / (E (N - lambda)^2)^1.5, with population moments; 0 where all counts are equal."""
    c, h = _float64(histogram)
    deviation = c - _mean(c, h)
    variance = _mean(deviation.square(), h)
    return float(_mean(deviation**3, h) / variance**1.5) if variance > 0 else 0.0


def robin_hood(histogram: Tensor) -> float:
    """sum |N - lambda| / (2 sum N): the share of neighbour slots that equality would redistribute (Hoover, Schutz).

    At most 1 - k / n.
    """
    c, h = _float64(histogram)
    mean = _mean(c, h)
    return float(_mean((c - mean).abs(), h) / (2 * mean))


def gini(histogram: Tensor) -> float:
    """sum_ij |N_i - N_j| / (2 n sum N), from the sorted counts: sum_i (2 i - n - 1) N_(i) / (n sum N)."""
    c, h = _float64(histogram)
    up_to, n = h.cumsum(0), h.sum()
    return float((h * c * (2 * up_to - h - n)).sum() / (n * (h * c).sum()))


def atkinson(histogram: Tensor, epsilon: float = 0.5) -> float:
    """1 - (E N^(1 - epsilon))^(1 / (1 - epsilon)) / lambda; for epsilon = 1 the geometric mean stands above lambda.

    1 if any point is an antihub and epsilon is at least 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    c, h = _float64(histogram)
    if epsilon >= 1 and h[0] > 0:
        return 1.0
    c, h = c[h > 0], h[h > 0]
    power = 1 - epsilon
    equivalent = _mean(c**power, h) ** (1 / power) if power else _mean(c.log(), h).exp()
    return float((1 - equivalent / _mean(c, h)).clamp(0, 1))


def shannon_evenness(histogram: Tensor) -> float:
    """J = -sum p log p / log n with p = N / sum N: the entropy of a random slot's point; 1 where all are equal."""
    c, h = _float64(histogram)
    total = (c * h).sum()
    entropy = total.log() - torch.xlogy(c, c).mul(h).sum() / total
    return float((entropy / h.sum().log()).clamp(0, 1))


def antihub_rate(histogram: Tensor, include_self: bool = False) -> float:
    """Share of the points that are nobody's neighbour: N = 0, or N <= 1 where every point is in its own list."""
    h = _float64(histogram)[1]
    return float(h[: 1 + include_self].sum() / h.sum())


def _float64(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """The counts 0, 1, ... and how many points have each, on the CPU: it is a small sum in float64."""
    weights = histogram.detach().cpu().double()
    return torch.arange(len(weights), dtype=torch.float64), weights


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum()


def k_occurrence(ids: Tensor, n: int) -> Tensor:
    """N [n] int64: in how many of the lists of neighbours ids [m, k] each of n points stands; the sum is k m.

    Counts of disjoint sets of queries add. Raises as :func:`require_neighbour_ids` does.
    """
    require_neighbour_ids(ids, n)
    return torch.bincount(ids.flatten().long(), minlength=n)


def bad_k_occurrence(ids: Tensor, labels: Tensor, query_labels: Tensor | None = None) -> Tensor:
    """BN [n] int64: how many queries with another label than its own have the point among their neighbours.

    ids: [m, k]; labels: [n] of the points; query_labels: [m], by default those of the points, which then ask
    themselves (m = n). Radovanovic et al. 2010, JMLR 11, who call the sum over k m bad hubness.
    """
    asked_by = labels if query_labels is None else query_labels
    if len(asked_by) != len(ids):
        raise ValueError(f"{len(ids)} lists of neighbours need as many queries' labels, got {len(asked_by)}")
    require_neighbour_ids(ids, len(labels))
    return torch.bincount(ids[labels[ids.long()] != asked_by[:, None]].long(), minlength=len(labels))


def asymmetry(ids: Tensor) -> float:
    """Share of the edges i -> j, from n points to their neighbours ids [n, k], without the edge j -> i.

    0 if all neighbours are mutual; 1 - k / (n - 1) if they are drawn at random. A point in its own list is a mutual
    edge.
    """
    n = len(ids)
    require_neighbour_ids(ids, n)
    targets = ids.long()
    sources = torch.arange(n, device=ids.device)[:, None].expand_as(targets)
    mutual = torch.isin(targets * n + sources, sources * n + targets, assume_unique=True)
    return 1 - int(mutual.sum()) / ids.numel()


def count_histogram(counts: Tensor) -> Tensor:
    """h [max N + 1] int64: h[c] points have N = c, from the counts N [n].

    All indices but asymmetry and bad occurrence are functions of h, which adds over disjoint shards of the index.
    """
    if bool((counts < 0).any()):
        raise ValueError(f"counts must not be negative, got {int(counts.min())}")
    return torch.bincount(counts.long())


def merge_histograms(histograms: Sequence[Tensor]) -> Tensor:
    """The histogram of counts over all of S shards of the index, from each one's (:func:`count_histogram`)."""
    size = max(len(histogram) for histogram in histograms)
    return torch.stack([pad(histogram, (0, size - len(histogram))) for histogram in histograms]).sum(0)


def require_neighbour_ids(ids: Tensor, n: int) -> None:
    """Raise ValueError unless ids [m, k] are lists of k different ones of n points; TypeError if no integers."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"neighbours are named by integers, got ids of {ids.dtype}")
    if ids.ndim != 2 or not ids.numel():
        raise ValueError(f"ids of neighbours must be [m, k] with m and k at least 1, got {list(ids.shape)}")
    outside = (ids < 0) | (ids >= n)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(f"ids[{row}, {column}] is {int(ids[row, column])}, which is none of the points 0 to {n - 1}")
    ordered = ids.sort(dim=1).values
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if bool(repeated.any()):
        row = int(repeated.nonzero()[0])
        raise ValueError(f"ids[{row}] names one point twice: {ids[row].tolist()}")
