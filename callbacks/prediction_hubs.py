"""Prediction hubs of language models while they train: tokens among the likeliest of many contexts."""

from typing import ClassVar

import pytorch_lightning as pl
from torch import Tensor

from callbacks.measure_at_validation import MeasureAtValidation, members
from callbacks.validation_pass import EMBEDDING, Seen
from likeness.checks import require_positive
from likeness.language.hub_metric import PredictionHubMetric
from likeness.language.prediction_hubs import HubThreshold
from likeness.protocols import TokenModel


class PredictionHubs(MeasureAtValidation[PredictionHubMetric]):
    """How unequally tokens are among the k likeliest of held-out contexts, and whether these are the frequent ones.

    Logs ``hubness/prediction/<index>`` over the positions that the model measures, from the validation pass itself:
    ``k_skewness`` beside what chance gives it, ``k_skewness_null``; the number of ``hubs`` and of those that never
    occur, ``zero_frequency_hubs``; Spearman's correlation of N_k with frequency over hubs and over all tokens,
    ``spearman_hubs`` and ``spearman_all``, where there is one. A token's frequency is how often it is next in the
    held-out text. Of siblings the mean, ``/min`` and ``/max``. The callback's own cost is
    ``hubness/prediction/seconds``. Nielsen, Macocco & Baroni 2025 (arXiv 2502.10201).

    Args:
        k: likeliest tokens of each context.
        hub_multiple: a hub is among them this many times as often as tokens are on average.
        every_n_validations: how often to measure.
    """

    prefix: ClassVar[str] = "hubness/prediction"

    def __init__(self, k: int = 10, hub_multiple: float = 10.0, every_n_validations: int = 1) -> None:
        super().__init__(every_n_validations)
        require_positive(k=k)
        self.k, self.threshold = k, HubThreshold(hub_multiple)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not isinstance(pl_module, TokenModel):
            raise ValueError(f"PredictionHubs measures language models; {type(pl_module).__name__} is none")

    def _new_metric(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> PredictionHubMetric:
        vectors = members(self.looking.unembeddings(pl_module))
        return PredictionHubMetric(vectors.shape[0], vectors.shape[1], self.k, self.threshold)

    def _update(self, metric: PredictionHubMetric, pl_module: pl.LightningModule, seen: Seen) -> None:
        assert seen.next_tokens is not None
        vectors = members(self.looking.unembeddings(pl_module))
        metric.update(members(seen.layers[EMBEDDING]), vectors, seen.next_tokens)

    def _summarise(self, trainer: pl.Trainer) -> dict[str, float]:
        logged: dict[str, Tensor] = {}
        for name, values in self.values.items():
            known = values[~values.isnan()]
            if len(known):
                logged[name] = known.mean()
            if values.numel() > 1 and len(known):
                logged |= {f"{name}/min": known.min(), f"{name}/max": known.max()}
        return {name: float(value) for name, value in logged.items()}
