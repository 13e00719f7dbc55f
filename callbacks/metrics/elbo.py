"""Streaming metrics of diffusion models, whose states are sums: batches and ranks merge to the same numbers."""

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.diffusion.bound_profiles import SUMS, LossByGamma, bin_sums, from_sums
from likeness.diffusion.elbo import ElboTerms, bits_per_dim

QUANTITIES = (*ElboTerms._fields, "bpd")


def quantities(terms: ElboTerms, dims: int) -> Tensor:
    """Terms in nats, [...] each, as bits per dimension, [..., 4], in the order of ``QUANTITIES``."""
    nats = torch.stack([*terms, terms.total], dim=-1)
    return bits_per_dim(nats.to(torch.promote_types(nats.dtype, torch.float32)), dims)


class ElboMoments(Metric):
    """Means of the ELBO's terms over observations, with their standard errors.

    Args:
        draws: K, how many times the noise of each observation is drawn.
    """

    full_state_update = False
    higher_is_better = False
    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, draws: int = 1) -> None:
        super().__init__()
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(draws, len(QUANTITIES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(len(QUANTITIES), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add observations [K, n, 4] in bits per dimension."""
        values = values.to(self.total)
        # not in place: states may have been made in inference mode, where Lightning validates
        self.count = self.count + values.shape[1]
        self.total = self.total + values.sum(1)
        self.squares = self.squares + values.mean(0).square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Each quantity; as ``<quantity>_se`` its standard error over observations where there are two or more, and
        as ``<quantity>_draw_se`` that over draws where there are two or more."""
        means = self.total / self.count
        mean = means.mean(0)
        answers = dict(zip(QUANTITIES, mean, strict=True))
        if self.count > 1:
            variance = (self.squares / self.count - mean.square()).clamp(min=0) / (self.count - 1)
            answers |= {f"{name}_se": value for name, value in zip(QUANTITIES, variance.sqrt(), strict=True)}
        if len(means) > 1:
            spread = means.std(0) / math.sqrt(len(means))
            answers |= {f"{name}_draw_se": value for name, value in zip(QUANTITIES, spread, strict=True)}
        return answers


class GammaBins(Metric):
    """The diffusion loss in bins of gamma; set ``edges`` [G + 1] before the first update."""

    full_state_update = False
    sums: Tensor
    edges: Tensor

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(SUMS, num_bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, gamma: Tensor, dgamma_dt: Tensor, loss: Tensor) -> None:
        """Add samples [n] with their losses in bits per dimension."""
        self.sums = self.sums + bin_sums(self.edges, gamma, dgamma_dt, loss).to(self.sums)

    def compute(self) -> LossByGamma:
        """On the CPU."""
        return from_sums(self.edges.to("cpu", torch.float64), self.sums.cpu())


def on_device(metric: Any, device: torch.device) -> Any:
    """The metric on the device, where that has float64."""
    return metric if device.type == "mps" else metric.to(device)
