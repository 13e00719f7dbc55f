"""The ELBO over a data set, with the error of its Monte-Carlo estimate."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from likeness.diffusion.elbo import ElboTerms

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
