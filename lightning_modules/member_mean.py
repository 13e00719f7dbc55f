"""A mean for each sibling, or for a model that has none."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MemberMean(Metric):
    """Means over samples, [P], or one of a single model; any split into batches and ranks gives the same.

    The states are sums in float64. torchmetrics' MeanMetric rounds what it is given to float32, whatever its states.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_members: int | None = None) -> None:
        super().__init__()
        shape = () if num_members is None else (num_members,)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add ``values`` [P, B], or [B]."""
        self.total += values.sum(-1, dtype=torch.float64)
        self.count += values.shape[-1]

    def compute(self) -> Tensor:
        """The members' means [P], or the mean, float64."""
        return self.total / self.count
