"""A mean for each sibling."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MemberMean(Metric):
    """Means over samples, [P]; the states are sums, so any split into batches and ranks gives the same."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_members: int) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(num_members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add ``values`` [P, B]."""
        self.total += values.sum(1, dtype=torch.float64)
        self.count += values.shape[1]

    def compute(self) -> Tensor:
        """The members' means [P], float64."""
        return self.total / self.count
