"""Spearman's rank correlation over a data set, the same to the last bit in any order and on any number of ranks."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from likeness.measures.rsa import average_ranks


class Spearman(Metric):
    """Correlation of the ranks of two quantities, equal values sharing the mean of theirs; NaN where one is constant.

    Unlike torchmetrics' SpearmanCorrCoef without a constant in the denominator, in float64, and without a warning for
    each metric that is made.
    """

    full_state_update = False
    higher_is_better = True
    x: list[Tensor]
    y: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("x", "y"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, x: Tensor, y: Tensor) -> None:
        """Add both quantities of B samples, [B] each."""
        self.x.append(x.detach().double())
        self.y.append(y.detach().double())

    def compute(self) -> Tensor:
        """The correlation, a float64 scalar."""
        ranks = torch.stack([average_ranks(dim_zero_cat(values)) for values in (self.x, self.y)])
        # Halves of integers, so that the sums are exact and no order of the samples changes them.
        deviations = ranks - (ranks.shape[1] + 1) / 2
        products = deviations @ deviations.T
        return products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()
