"""The joint second moments of several models' representations, streamed in float64.

Everything on the label side of two softmax models, and every correlation between their representations, is
a function of one small matrix: the mean and scatter over inputs of a(x) = [f_1; Z_1; ...; f_P; Z_P], where
Z is the log-partition. Its size depends neither on the number of inputs nor on the number of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
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
        count = shards.n.sum(0)
        weight = shards.n[:, None]
        mean = (weight * shards.mean).sum(0) / count.clamp(min=1)
        # Summing the deviations again recovers what rounding took from a mean far from the origin.
        mean = mean + (weight * (shards.mean - mean)).sum(0) / count.clamp(min=1)
        deviation = weight.sqrt() * (shards.mean - mean)
        return cls(count, mean, shards.scatter.sum(0) + deviation.T @ deviation)

    def pack(self) -> Tensor:
        """One matrix [..., D+1, D+1]: the scatter, bordered by the mean, with the count in the corner."""
        body = torch.cat([self.scatter, self.mean.unsqueeze(-2)], dim=-2)
        border = torch.cat([self.mean, self.n.unsqueeze(-1)], dim=-1)
        return torch.cat([body, border.unsqueeze(-1)], dim=-1)

    @classmethod
    def unpack(cls, packed: Tensor) -> Self:
        """The inverse of :meth:`pack`."""
        return cls(packed[..., -1, -1], packed[..., -1, :-1], packed[..., :-1, :-1])


@dataclass(frozen=True)
class JointMoments:
    """Moments of a(x) = [f_1; Z_1; ...; f_P; Z_P] over inputs, with the layout of its P models.

    ``dims`` are the models' representation dimensions M_i; D = sum of (M_i + 1). ``names`` are for messages.
    """

    moments: Moments
    dims: tuple[int, ...]
    names: tuple[str, ...]

    def embedding(self, model: int) -> slice:
        """Where f of a model lies among the D features, without the constant coordinate of a biased head."""
        start = self._starts[model]
        return slice(start, start + self.dims[model] - self.has_bias(model))

    def log_partition(self, model: int) -> int:
        """Where Z of a model lies among the D features."""
        return self._starts[model] + self.dims[model]

    def has_bias(self, model: int) -> bool:
        """Whether the last coordinate of f was 1 on every input: it carries a head's bias."""
        last = self._starts[model] + self.dims[model] - 1
        _, mean, scatter = self.moments
        return bool((mean[last] == 1) & (scatter[last, last] == 0))

    @property
    def _starts(self) -> list[int]:
        return [0, *accumulate(dim + 1 for dim in self.dims)]


def joint_features(embeddings: Sequence[Tensor], log_partitions: Tensor) -> Tensor:
    """Rows [f_1; Z_1; ...; f_P; Z_P], [N, D] in float64, from f_i [N, M_i] and Z [P, N]."""
    models = zip(embeddings, log_partitions, strict=True)
    return torch.cat([torch.column_stack([as_float64(f), z]) for f, z in models], dim=1)


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
