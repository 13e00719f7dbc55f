"""kappa(gamma): how much of the noise is new at each depth, which the marginals q(z_t | x) leave open.

The path of the noise from depth t to s < t is eps_s = sqrt(1 - r) eps_t + sqrt(r) eta with r = 1 - exp(-kappa dgamma):
VDM and DiffEnc have kappa = 1, and kappa -> 0 is deterministic. Every kappa > 0 that does not depend on the sample
gives a valid bound, in infinite depth too (Bartosh et al. 2024, NFDM, arXiv 2404.12940, learn it as g of the reverse
process). Where the mean does not move (VDM) kappa = 1 is best; the encoder of DiffEnc moves it, and its bound is not
tight at kappa = 1 even with the best network: for x_t = m(gamma) x the best is 1 - 2 m'/m, for the encoder without
parameters 1 + 2 sigma^2, at which the bound is as tight as VDM's. All start at kappa = 1.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.from_zero import FromZero
from likeness.diffusion.process import mean_over_dimensions
from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN

LOWEST, HIGHEST = 1e-3, 1e3  # of a fitted kappa


class Volatility(nn.Module):
    """gamma [B], or that of each dimension [B, ...], to kappa > 0, [B] or one for each dimension, [B or 1, ...]."""

    of_training = True  # whether the networks were trained with it: what they answer depends on it

    def forward(self, gamma: Tensor) -> Tensor:
        """kappa at each gamma; of a step it is taken at the middle."""
        raise NotImplementedError


class LearnedVolatility(FromZero, Volatility):
    """kappa = exp(theta(gamma)) with a network theta that starts at zero; trained with the bound.

    Args:
        dims: shape of one sample, for a volatility of each dimension; none is one for all.
        width: of theta's hidden layer.
        gamma_min: theta sees gamma on the scale on which these limits are -1 and 1.
        gamma_max: see ``gamma_min``.
    """

    @override
    def forward(self, gamma: Tensor) -> Tensor:
        return torch.exp(self.network(gamma))


class FittedVolatility(Volatility):
    """The best kappa in bins of gamma, of its mean over dimensions, in closed form from training data.

    Nothing is learned.

    :func:`likeness.diffusion.fitting.fit_volatility` makes one of any trained model.

    Args:
        num_bins: of gamma.
        dims: shape of one sample, for a volatility of each dimension; none is one for all.
        gamma_min: where the bins start, which are equal before they are fitted.
        gamma_max: where they end.
    """

    of_training = False
    edges: Tensor  # [num_bins + 1]
    kappa: Tensor  # [num_bins], or [num_bins, ...] for each dimension

    def __init__(
        self,
        num_bins: int,
        dims: tuple[int, ...] | None = None,
        gamma_min: float = GAMMA_MIN,
        gamma_max: float = GAMMA_MAX,
    ) -> None:
        super().__init__()
        require_positive(num_bins=num_bins)
        self.register_buffer("edges", torch.linspace(gamma_min, gamma_max, num_bins + 1, dtype=torch.float64))
        self.register_buffer("kappa", torch.ones(num_bins, *(dims or ()), dtype=torch.float64))

    @override
    def forward(self, gamma: Tensor) -> Tensor:
        places = mean_over_dimensions(gamma).to(self.edges)
        return self.kappa[torch.bucketize(places, self.edges[1:-1])].to(gamma.dtype)
