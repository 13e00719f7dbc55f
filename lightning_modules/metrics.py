"""A mean for each sibling, or for a model that has none.

The ELBO over a data set, with the error of its Monte-Carlo estimate.

Spearman's rank correlation over a data set, the same to the last bit in any order and on any number of ranks.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from likeness.diffusion.elbo import ElboTerms
from likeness.numerics import rank_correlation


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


TERMS = ElboTerms._fields


class BoundMetric(Metric):
    """Means over samples of the negative ELBO's terms in bits per dimension, over K draws of the noise.

    States are sums, so batches and ranks merge to the same numbers.

    Args:
        draws: K.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor  # [K, 3] nats
    count: Tensor  # [K] dimensions of all samples

    def __init__(self, draws: int) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        self.add_state("total", torch.zeros(draws, len(TERMS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(draws, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, draw: int, terms: ElboTerms, dims: int) -> None:
        """Add terms in nats, [B] each, of samples with d = ``dims``, in this draw."""
        self.total[draw] += torch.stack(terms).sum(1, dtype=torch.float64)
        self.count[draw] += dims * len(terms.diffusion)

    def compute(self) -> dict[str, Tensor]:
        """``bpd`` and each term; with two draws or more also ``bpd_se``, the standard error over draws."""
        means = self.total / self.count[:, None] / math.log(2)
        answers = {"bpd": means.sum(1).mean()} | dict(zip(TERMS, means.mean(0), strict=True))
        if len(means) > 1:
            answers["bpd_se"] = means.sum(1).std() / math.sqrt(len(means))
        return answers


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
        return rank_correlation(dim_zero_cat(self.x), dim_zero_cat(self.y))
