"""Prediction hubs as a metric: the same numbers of batches of any size, in any order, and on any number of ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.checks import require_positive
from likeness.hubness.analysis import hubness_of_counts
from likeness.hubness.indices import k_occurrence
from likeness.language.loss import IGNORED
from likeness.language.prediction_hubs import HubThreshold, TokenHubs, frequency_link
from likeness.neighbours.exact import nearest_neighbours


class PredictionHubMetric(Metric):
    """Tokens among the k likeliest of contexts, of P language models over one vocabulary of V tokens.

    States are counts, [P, V] and [V], however many contexts there are. Nielsen, Macocco & Baroni 2025
    (arXiv 2502.10201), ranked by logits; see :func:`likeness.language.prediction_hubs.prediction_hubs`.

    Args:
        num_models: P.
        num_tokens: V.
        k: tokens of each context.
        threshold: which tokens are hubs; by default those of ten times the mean count.

    Example:
        >>> import torch
        >>> g, metric = torch.eye(4), PredictionHubMetric(1, 4, k=1)
        >>> metric.update(g[None, [0, 0, 1]], g[None], torch.tensor([0, 1, 1, 3, -1]))
        >>> metric.hubs()[0].report.k_occurrence.tolist(), metric.frequencies.tolist()
        ([2, 1, 0, 0], [1, 2, 0, 1])
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    counts: Tensor  # [P, V] int64, N_k
    frequencies: Tensor  # [V] int64, of next tokens
    contexts: Tensor  # their number

    def __init__(self, num_models: int, num_tokens: int, k: int = 10, threshold: HubThreshold | None = None) -> None:
        super().__init__()
        require_positive(num_models=num_models, num_tokens=num_tokens, k=k)
        self.k, self.threshold = k, threshold or HubThreshold()
        for name, shape in (("counts", (num_models, num_tokens)), ("frequencies", (num_tokens,)), ("contexts", ())):
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, f: Tensor, g: Tensor, next_tokens: Tensor) -> None:
        """Add n contexts f [P, n, M] of models with label vectors g [P, V, M], and tokens of the text, -1 for none.

        There may be more tokens than contexts: they are only counted.
        """
        size = len(self.frequencies)
        if f.shape[1]:
            ids = [nearest_neighbours(own, self.k, metric="dot", queries=x).ids for x, own in zip(f, g, strict=True)]
            self.counts = self.counts + torch.stack([k_occurrence(of_model, size) for of_model in ids])
        self.frequencies = self.frequencies + next_tokens[next_tokens != IGNORED].bincount(minlength=size)
        self.contexts = self.contexts + f.shape[1]

    def hubs(self) -> list[TokenHubs]:
        """Of each model, on this rank's contexts, or within ``compute`` on all; frequencies without a p-value."""
        contexts, (_, tokens) = int(self.contexts), self.counts.shape
        rule = self.threshold.rule(self.k * contexts / tokens)
        return [
            TokenHubs(
                report=hubness_of_counts(counts, contexts, self.k, hubs=rule),
                threshold=rule.factor,
                frequency=frequency_link(counts, self.frequencies, rule.factor, permutations=0),
            )
            for counts in self.counts.cpu()
        ]

    def compute(self) -> dict[str, Tensor]:
        """[P] each, float64: ``k_skewness`` and what chance gives it, the number of ``hubs`` and how many never occur.

        ``spearman_hubs`` and ``spearman_all`` are of counts with frequencies, NaN where there is no correlation. Raises
        ValueError of no contexts.
        """
        found = self.hubs()
        links = [hubs.frequency for hubs in found if hubs.frequency is not None]
        values = {
            "k_skewness": [hubs.report.k_skewness for hubs in found],
            "k_skewness_null": [hubs.report.null.k_skewness for hubs in found],
            "hubs": [len(hubs.hubs) for hubs in found],
            "zero_frequency_hubs": [len(link.zero_frequency_hubs) for link in links],
            "spearman_hubs": [math.nan if link.spearman_hubs is None else link.spearman_hubs for link in links],
            "spearman_all": [math.nan if link.spearman_all is None else link.spearman_all for link in links],
        }
        return {name: torch.tensor(of_models, dtype=torch.float64) for name, of_models in values.items()}
