"""Mean and scatter of samples, streamed in float64, and what every measure does to tensors first."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Count, mean and centred scatter of D-dimensional samples, in float64; leading dimensions are shards."""

    n: Tensor  # [...] count
    mean: Tensor  # [..., D]
    scatter: Tensor  # [..., D, D] sum of (a - mean)(a - mean)^T

    @classmethod
    def of(cls, samples: Tensor) -> Self:
        """Moments of the samples [N, D]; centring first keeps the scatter exact far from the origin."""
        samples = as_float64(samples)
        mean = samples.mean(0) if len(samples) else samples.new_zeros(samples.shape[1])
        centred = samples - mean
        return cls(samples.new_tensor(float(len(samples))), mean, centred.T @ centred)

    @classmethod
    def merge(cls, shards: Self) -> Self:
        """One state from S stacked ones (n [S], mean [S, D], scatter [S, D, D]); empty shards weigh nothing.

        Chan, Golub & LeVeque 1983, for any number of shards.
        """
        count, mean, deviations = merge_means(shards.n, shards.mean)
        return cls(count, mean, shards.scatter.sum(0) + deviations.T @ deviations)

    def pack(self) -> Tensor:
        """One matrix [..., D+1, D+1]: the scatter, bordered by the mean, with the count in the corner."""
        body = torch.cat([self.scatter, self.mean.unsqueeze(-2)], dim=-2)
        border = torch.cat([self.mean, self.n.unsqueeze(-1)], dim=-1)
        return torch.cat([body, border.unsqueeze(-1)], dim=-1)

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of :meth:`pack`."""
        return cls(packed[..., -1, -1], packed[..., -1, :-1], packed[..., :-1, :-1])


def merge_means(n: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean [D] and weighted deviations [S, D] of S shards with counts n [S] and means [S, D].

    The deviations' scatter is what the scatters within the shards lack of that of all samples.
    """
    count, weight = n.sum(0), n[:, None]
    merged = (weight * mean).sum(0) / count.clamp(min=1)
    # Summing the deviations again recovers what rounding took from a mean far from the origin.
    merged = merged + (weight * (mean - merged)).sum(0) / count.clamp(min=1)
    return count, merged, weight.sqrt() * (mean - merged)


def require_finite(
    tensors: Sequence[Tensor],
    names: Sequence[str],
    what: str = "embedding",
    row_is: str = "sample",
    ids: Tensor | None = None,
) -> None:
    """Raise ValueError naming the first model, row and value if any of P tensors [N, ...] is not finite.

    ``ids`` [N] are the rows' names, such as samples' positions in their split; by default their numbers.
    """
    if bool(torch.stack([tensor.sum() for tensor in tensors]).isfinite().all()):
        return
    for tensor, name in zip(tensors, names, strict=True):
        bad = (~tensor.isfinite()).flatten(1)
        if bool(bad.any()):
            row = int(bad.any(1).nonzero()[0])
            value = float(tensor[row].flatten()[bad[row]][0])
            place = row if ids is None else int(ids[row])
            raise ValueError(f"the {what} of model {name!r} is not finite at {row_is} {place}: {value}")


def as_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64, where it is; on the CPU if its device has no float64 (Apple's MPS)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def triangle(rows: Tensor) -> Tensor:
    """R [min(N, D), D] of the QR of rows x [N, D]: R^T R = x^T x."""
    factor: Tensor = torch.linalg.qr(rows, mode="r")[1]
    return factor
