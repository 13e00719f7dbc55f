"""The diffusion loss in bins of gamma, streamed: states are sums, so batches and ranks merge to the same numbers."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.diffusion.diagnostics.bound_profiles import SUMS, GammaProfile, bin_sums, from_sums


class GammaBins(Metric):
    """The diffusion loss in bins of gamma; set ``edges`` [G + 1] before the first update."""

    full_state_update = False
    sums: Tensor
    edges: Tensor

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(SUMS, num_bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, gamma: Tensor, dgamma_dt: Tensor, loss: Tensor) -> None:
        """Add n samples with their losses in bits per dimension, see :func:`bin_sums`."""
        self.sums = self.sums + bin_sums(self.edges, gamma, dgamma_dt, loss).to(self.sums)

    def compute(self) -> GammaProfile:
        """On the CPU."""
        return from_sums(self.edges.to("cpu", torch.float64), self.sums.cpu())


def on_device(metric: Any, device: torch.device) -> Any:
    """The metric on the device, where that has float64."""
    return metric if device.type == "mps" else metric.to(device)
