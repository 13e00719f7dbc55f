"""The diffusion loss in bins of gamma: at which noise the bits are, and where their estimate is uncertain."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SUMS = 5  # of 1, loss, loss^2, rate, rate^2


class LossByGamma(NamedTuple):
    """In G bins of gamma; losses are in bits per dimension, and NaN in bins without samples.

    The integrand is the loss per unit of gamma: no schedule changes it, and its area is the diffusion term.
    """

    edges: Tensor  # [G + 1]
    samples: Tensor  # [G] how many
    loss: Tensor  # [G] mean loss of a sample at its time, of which the diffusion term is the mean over times
    variance: Tensor  # [G] of that loss between samples, times and noise
    integrand: Tensor  # [G]
    integrand_se: Tensor  # [G] standard error over samples

    @property
    def width(self) -> Tensor:
        """Of the bins, [G]."""
        return self.edges.diff()

    @property
    def centre(self) -> Tensor:
        """Of the bins, [G]."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def area(self) -> float:
        """The diffusion term in bits per dimension, as far as there are samples."""
        return float((self.integrand * self.width).nansum())

    @property
    def share(self) -> Tensor:
        """Of the diffusion term, [G]; it sums to 1."""
        return self.integrand.nan_to_num() * self.width / self.area


def gamma_edges(first: Tensor, last: Tensor, num_bins: int) -> Tensor:
    """Edges [num_bins + 1] of equal bins between two scalars, in float64 where the device has it."""
    kind = torch.float32 if first.device.type == "mps" else torch.float64
    places = torch.linspace(0, 1, num_bins + 1, device=first.device, dtype=kind)
    return first.to(kind) + (last.to(kind) - first.to(kind)) * places


def bin_sums(edges: Tensor, gamma: Tensor, dgamma_dt: Tensor, loss: Tensor) -> Tensor:
    """Sums [5, G], to be added over batches and ranks, of samples at gamma with their losses, all [B].

    ``loss`` is of the sample's time, in bits per dimension: dgamma/dt times the loss per gamma. Gammas outside the
    edges count in the outermost bins.
    """
    loss = loss.to(edges)
    rate = loss / dgamma_dt.to(edges)
    values = torch.stack([torch.ones_like(loss), loss, loss.square(), rate, rate.square()])
    bins = torch.bucketize(gamma.to(edges), edges[1:-1], right=True)
    return edges.new_zeros(SUMS, len(edges) - 1).index_add(1, bins, values)


def from_sums(edges: Tensor, sums: Tensor) -> LossByGamma:
    """What the sums [5, G] of :func:`bin_sums` say."""
    count, loss, squared_loss, rate, squared_rate = sums.unbind()
    variance = _variance(count, loss, squared_loss)
    error = (_variance(count, rate, squared_rate) / count).sqrt()
    return LossByGamma(edges, count, loss / count, variance, rate / count, error)


def _variance(count: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    """The unbiased one; NaN of fewer than two samples."""
    spread = (squares - total.square() / count).clamp(min=0) / (count - 1)
    return spread.masked_fill(count < 2, math.nan)
