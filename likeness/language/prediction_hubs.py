"""Prediction hubs of language models: tokens among the k likeliest of many contexts, and near to many others.

Nielsen, Macocco & Baroni 2025 (arXiv 2502.10201). The k likeliest tokens of a context are those of the largest logits;
1 - p in float32 ties at 1 for most of them. Points are not their own neighbours; ``include_self`` is for comparison
with the paper's code, which counts them. The Gaussian null is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of
from likeness.hubness.analysis import HubnessReport, hubness_of_counts, hubness_of_neighbours
from likeness.hubness.indices import HubRule, k_occurrence
from likeness.language.context_visit import ContextVisit, visit_contexts, with_bias
from likeness.language.hub_nulls import constant_counts, frequency_counts, gaussian_counts, permutation_p
from likeness.neighbours.exact import DistanceName, nearest_neighbours
from likeness.numerics import rank_correlation

PointDistance = Literal["euclidean", "norm_euclidean", "softmax_dot"]
RANKED_BY: Mapping[str, DistanceName] = {"euclidean": "euclidean", "norm_euclidean": "cosine", "softmax_dot": "dot"}
"""Distances that order neighbours as those of the paper do; a softmax grows with its logit."""
NULLS = ("frequency", "constant", "gaussian")


class HubThreshold(NamedTuple):
    """Which tokens are hubs: N at or above a multiple of the mean count, or at or above a number."""

    multiple_of_mean: float = 10.0
    absolute: float | None = None

    def rule(self, mean: float) -> HubRule:
        """The rule for counts of this mean."""
        return HubRule("absolute", self.multiple_of_mean * mean if self.absolute is None else self.absolute)


class FrequencyLink(NamedTuple):
    """How counts go with the frequency of tokens, by Spearman's correlation with ranks averaged over ties."""

    spearman_hubs: float | None  # None where there is none, for the reason given; choosing by N restricts the range
    spearman_all: float | None
    p_all: float | None  # by permutations of the frequencies, where there are any
    reasons: dict[str, str]  # by the name of what is None
    zero_frequency_hubs: Tensor  # ids, by decreasing N


class HubAccuracy(NamedTuple):
    """How often the likeliest token is the next one; the groups differ in difficulty."""

    correct: int
    contexts: int

    @property
    def accuracy(self) -> float | None:
        """None without contexts."""
        return self.correct / self.contexts if self.contexts else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % by Wilson, as if contexts were independent."""
        from scipy.stats import binomtest

        if not self.contexts:
            return None
        found = binomtest(self.correct, self.contexts).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenHubs:
    """Hubs among points, which are tokens or contexts, in a graph of neighbours."""

    report: HubnessReport  # counts, indices and their binomial null
    threshold: float
    frequency: FrequencyLink | None = None  # None without frequencies

    @property
    def hubs(self) -> Tensor:
        """Ids of the hubs, by decreasing N."""
        counts, ids = self.report.k_occurrence.sort(descending=True, stable=True)
        return ids[counts >= self.threshold]


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionHubs(TokenHubs):
    """Tokens among the k likeliest of contexts."""

    likeliest: Tensor  # [N] the token of the largest logit
    visit: ContextVisit
    accuracy: dict[str, HubAccuracy]  # "all", "hub" and "other", by what the likeliest token is; {} without next tokens
    nulls: dict[str, HubnessReport]
    overlap: dict[str, float]  # share of the hubs that are hubs of each null too

    @property
    def l2_to_uniform(self) -> Tensor:
        """|p(. | x) - 1 / V| [N]."""
        return self.visit.l2_to_uniform(self.report.n)


@torch.no_grad()
def prediction_hubs(
    f: Tensor,
    g: Tensor,
    *,
    bias: Tensor | None = None,
    k: int = 10,
    next_tokens: Tensor | None = None,
    frequencies: Tensor | None = None,
    threshold: HubThreshold | None = None,
    soft_cap: float | None = None,
    powers: Sequence[float] = (1,),
    nulls: Sequence[str] = (),
    seed: int = 0,
) -> PredictionHubs:
    """Contexts against tokens: the k likeliest tokens of each context, by its logits.

    Args:
        f: [N, M] of contexts.
        g: [V, M] of tokens.
        bias: [V] of the head.
        k: tokens a context.
        next_tokens: [N], for accuracies.
        frequencies: [V] how often tokens occur, in a corpus that the caller names.
        threshold: which tokens are hubs; by default those of ten times the mean count k N / V.
        soft_cap: of the logits; it changes probabilities and no order.
        powers: q of the concentrations Var(d^q) / E(d^q)^2 of d = 1 - p.
        nulls: "frequency", "constant" (both need frequencies) and "gaussian", beside the binomial one.
        seed: of the nulls.

    Raises ValueError for sizes that do not fit, logits that are not finite and an unknown null.

    Example:
        >>> g = torch.eye(4)
        >>> found = prediction_hubs(g[[0, 0, 1]], g, k=1, next_tokens=torch.tensor([0, 1, 1]))
        >>> found.report.k_occurrence.tolist(), found.accuracy["all"].accuracy
        ([2, 1, 0, 0], 0.6666666666666666)
    """
    for null in nulls:
        require_one_of(null, NULLS, "null")
    _require_sizes(f, g, next_tokens, frequencies)
    f, g = with_bias(f, g, bias)
    ids = nearest_neighbours(g, k, metric="dot", queries=f).ids.cpu()
    rule = (threshold or HubThreshold()).rule(k * len(f) / len(g))
    counts = k_occurrence(ids, len(g))
    others = {null: _null_counts(null, f, g, k, frequencies, seed) for null in nulls}
    is_hub = counts >= rule.factor
    return PredictionHubs(
        report=hubness_of_counts(counts, len(f), k, hubs=rule),
        threshold=rule.factor,
        frequency=None if frequencies is None else frequency_link(counts, frequencies, rule.factor, seed),
        likeliest=ids[:, 0],
        visit=visit_contexts(f, g, next_tokens, soft_cap=soft_cap, powers=powers),
        accuracy={} if next_tokens is None else hub_accuracies(ids[:, 0], next_tokens, is_hub),
        nulls={null: hubness_of_counts(drawn, len(f), k, hubs=rule) for null, drawn in others.items()},
        overlap={null: _share(is_hub & (drawn >= rule.factor), is_hub) for null, drawn in others.items()},
    )


@torch.no_grad()
def point_hubs(
    points: Tensor,
    distance: PointDistance = "euclidean",
    *,
    k: int = 10,
    frequencies: Tensor | None = None,
    threshold: HubThreshold | None = None,
    include_self: bool = False,
    seed: int = 0,
) -> TokenHubs:
    """Tokens against tokens, or contexts against contexts: the k nearest others of each of the points [n, M].

    By Euclidean distance, that of rows at length 1, or the softmax of inner products, in which a point need not be in
    its own list even with ``include_self``. Raises ValueError as :func:`likeness.nearest_neighbours` does.

    Example:
        >>> point_hubs(torch.tensor([[0.0], [1.0], [1.5]]), k=1).report.k_occurrence.tolist()
        [0, 2, 1]
    """
    require_one_of(distance, get_args(PointDistance), "distance")
    if frequencies is not None and frequencies.shape != (len(points),):
        raise ValueError(f"frequencies of {len(points)} points are {list(frequencies.shape)}")
    ids = nearest_neighbours(points, k, metric=RANKED_BY[distance], include_self=include_self).ids.cpu()
    rule = (threshold or HubThreshold()).rule(k)
    report = hubness_of_neighbours(
        ids, len(points), query_ids=torch.arange(len(points)), include_self=include_self, hubs=rule
    )
    counts = report.k_occurrence
    link = None if frequencies is None else frequency_link(counts, frequencies, rule.factor, seed)
    return TokenHubs(report=report, threshold=rule.factor, frequency=link)


def frequency_link(
    counts: Tensor, frequencies: Tensor, threshold: float, seed: int = 0, permutations: int = 999
) -> FrequencyLink:
    """Of counts N [V] and frequencies [V], with hubs of N at or above the threshold."""
    frequencies, is_hub = frequencies.cpu(), counts >= threshold
    reasons: dict[str, str] = {}
    every = _spearman(counts, frequencies, "spearman_all", reasons)
    hubs = _spearman(counts[is_hub], frequencies[is_hub], "spearman_hubs", reasons)
    tested = every is not None and permutations > 0
    if not tested:
        reasons["p_all"] = reasons.get("spearman_all", "no permutations were asked for")
    order = counts.sort(descending=True, stable=True).indices
    return FrequencyLink(
        spearman_hubs=hubs,
        spearman_all=every,
        p_all=permutation_p(counts, frequencies, permutations, seed) if tested else None,
        reasons=reasons,
        zero_frequency_hubs=order[(is_hub & (frequencies == 0))[order]],
    )


def _spearman(counts: Tensor, frequencies: Tensor, name: str, reasons: dict[str, str]) -> float | None:
    if len(counts) < 2:
        reasons[name] = f"{len(counts)} tokens have no rank correlation"
        return None
    for what, values in (("counts", counts), ("frequencies", frequencies)):
        if bool((values == values[0]).all()):
            reasons[name] = f"all {len(values)} {what} are {values[0].item():g}"
            return None
    return float(rank_correlation(counts, frequencies))


def hub_accuracies(likeliest: Tensor, next_tokens: Tensor, is_hub: Tensor) -> dict[str, HubAccuracy]:
    """Of all contexts, of those whose likeliest token [N] is a hub (bool [V]), and of the others."""
    correct, hub = likeliest == next_tokens.cpu(), is_hub[likeliest]
    groups = {"all": torch.ones_like(hub), "hub": hub, "other": ~hub}
    return {name: HubAccuracy(int((correct & group).sum()), int(group.sum())) for name, group in groups.items()}


def _null_counts(null: str, f: Tensor, g: Tensor, k: int, frequencies: Tensor | None, seed: int) -> Tensor:
    if null == "gaussian":
        return gaussian_counts(f, g, k, seed)
    if frequencies is None:
        raise ValueError(f"the {null} null needs frequencies")
    draw: Callable[..., Tensor] = frequency_counts if null == "frequency" else constant_counts
    options = {"seed": seed} if null == "frequency" else {}
    return draw(frequencies.cpu(), len(f), k, **options)


def _share(part: Tensor, whole: Tensor) -> float:
    return int(part.sum()) / int(whole.sum()) if bool(whole.any()) else 0.0


def _require_sizes(f: Tensor, g: Tensor, next_tokens: Tensor | None, frequencies: Tensor | None) -> None:
    if f.ndim != 2 or g.ndim != 2 or f.shape[1] != g.shape[1]:
        raise ValueError(f"contexts {list(f.shape)} and tokens {list(g.shape)} must be matrices of one width")
    if next_tokens is not None:
        if next_tokens.shape != (len(f),):
            raise ValueError(f"next tokens of {len(f)} contexts are {list(next_tokens.shape)}")
        outside = (next_tokens < 0) | (next_tokens >= len(g))
        if bool(outside.any()):
            raise ValueError(f"the next token {int(next_tokens[outside][0])} is none of the {len(g)} tokens")
    if frequencies is not None and frequencies.shape != (len(g),):
        raise ValueError(f"frequencies of {len(g)} tokens are {list(frequencies.shape)}")
