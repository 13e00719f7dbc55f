"""How far the variances of the generative steps are from the best ones, by gamma."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.loss_by_gamma import gamma_edges
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.noisy_batch import NoisyBatch
from likeness.diffusion.process import broadcast


class RatioProfile(NamedTuple):
    """rho = log(sigma_P^2 / sigma_Q^2) in G bins of gamma, [G] each, NaN where no sample fell."""

    gamma: Tensor  # of the middles of the steps
    rho: Tensor  # the model's; 0 without a ratio
    optimal: Tensor  # log(1 + 2 E[q] / d), with q the step's KL at equal variances; DiffEnc, eq. 70


@torch.no_grad()
def ratio_profile(model: DiffusionModel, samples: Iterable[NoisyBatch], max_bins: int = 32) -> RatioProfile:
    """Over the steps that the samples' times fall into; a bin is a step where there are no more than ``max_bins``.

    The model's rho is averaged over dimensions where it has one for each. Raises ValueError in infinite depth.
    """
    sums = torch.zeros(4, 1)
    for batch in samples:
        step = batch.step_error(model)
        kl = 0.5 * torch.expm1(broadcast(step.dgamma, step.error)) * step.error.square()
        middle = (step.gamma_s + step.gamma_t) / 2
        rho = torch.zeros_like(middle) if model.ratio is None else model.ratio(step.gamma_s, step.gamma_t)
        rho = rho.flatten(1).mean(1).expand_as(middle) if rho.dim() > 1 else rho
        values = torch.stack([torch.ones_like(middle), middle, rho, kl.flatten(1).mean(1)])
        edges = gamma_edges(*model.schedule.ends(middle), min(max_bins, model.num_steps or 1))
        bins = torch.bucketize(middle.to(edges), edges[1:-1])
        sums = sums.to(edges) + edges.new_zeros(4, len(edges) - 1).index_add(1, bins, values.to(edges))
    gamma, rho, kl = sums[1:] / sums[0]
    return RatioProfile(gamma, rho, torch.log1p(2 * kl))
