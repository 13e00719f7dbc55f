"""From the vectors of a text's tokens to one embedding: pooling, then a head.

A head centres or standardises, rows or dimensions, and may divide by the length. Nielsen & Hansen 2024
(arXiv 2311.18364) train sentence encoders with heads of rows. Those of dimensions replace a batch's own mean, which
would make an embedding depend on its batch, by running statistics.
"""

from typing import Literal, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from likeness.checks import require_positive, require_probability
from likeness.numerics import FeatureMoments, as_float64, at_least_float32, row_centre, row_z_score, unit_length

PoolingName = Literal["mean", "cls", "max"]
HeadName = Literal["none", "z", "n", "c", "c_n", "feature_c", "feature_c_n", "feature_z", "feature_z_n"]


class RowCentre(nn.Module):
    """Each embedding minus the mean of its own components."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        return row_centre(x)


class EmbeddingZScore(nn.Module):
    """Layer normalisation without weights: mean 0 and standard deviation 1 over an embedding's own components.

    As in the modules of Nielsen & Hansen, 1e-6 is added to the standard deviation, so an embedding that varies by less
    than that comes out smaller.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D], of norm sqrt(D)."""
        return row_z_score(x)


class L2Normalize(nn.Module):
    """Embeddings of norm 1; zero stays zero."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        return unit_length(at_least_float32(x))


class RunningMoments(nn.Module):
    """Mean and variance of D dimensions over the batches of training, the same on all ranks.

    A batch weighs as many samples as it has, over all ranks, until its share of all samples so far falls to
    ``momentum``; from then on it weighs ``momentum``. With 0 the statistics are exactly those of all samples seen,
    with more they follow an encoder that learns. They are constants to the gradient, and training normalises with
    the same ones as evaluation, with its own batch in them: neither depends on how texts fall into batches of one call
    or two. Before the first batch the mean is 0 and the variance 1.
    Raises ValueError for ``dim`` below 1 or ``momentum`` outside [0, 1).
    """

    mean: Tensor
    variance: Tensor
    num_seen: Tensor

    def __init__(self, dim: int, momentum: float = 0.01) -> None:
        super().__init__()
        require_positive(dim=dim)
        require_probability("momentum", momentum)
        self.dim, self.momentum = dim, momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.long))

    def extra_repr(self) -> str:
        """What ``print`` shows of the module."""
        return f"{self.dim}, momentum={self.momentum}"

    def moments(self, x: Tensor) -> FeatureMoments:
        """The statistics by which x [N, D] is normalised; in training x is added to them first.

        In training all ranks must enter. Raises ValueError unless x has D columns.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"embeddings have shape {list(x.shape)}, {type(self).__name__} takes [N, {self.dim}]")
        if self.training:
            self._add(x.detach())
        return FeatureMoments(self.mean, self.variance)

    @torch.no_grad()
    def _add(self, x: Tensor) -> None:
        # Sums about the running mean, which all ranks share: once it is known their squares hardly cancel.
        mean, variance = as_float64(self.mean), as_float64(self.variance)
        deviations = as_float64(x) - mean
        sums = torch.cat([deviations.sum(0), deviations.square().sum(0), mean.new_full((1,), len(x))])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        n, num_seen = sums[-1], self.num_seen.to(sums.device)
        shift, square = sums[:-1].view(2, self.dim) / n.clamp(min=1)
        share = (n / (num_seen + n).clamp(min=1)).clamp(min=self.momentum) * (n > 0)
        # Two sets of weights 1 - share and share, whose means lie ``shift`` apart.
        self.variance.copy_((1 - share) * variance + share * (square - share * shift.square()))
        self.mean.copy_(mean + share * shift)
        self.num_seen.add_(n.long().to(self.num_seen.device))


class FeatureCentre(RunningMoments):
    """Each dimension minus its running mean."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        mean, _ = self.moments(x)
        wide = at_least_float32(x)
        return wide - mean.to(wide.dtype)


class FeatureZScore(RunningMoments):
    """Each dimension with running mean 0 and standard deviation 1; a dimension that does not vary becomes 0."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        moments = self.moments(x)
        wide = at_least_float32(x)
        return (wide - moments.mean.to(wide.dtype)) * moments.inverse_std().to(wide.dtype)


class Pooling(nn.Module):
    """The mean of a text's token vectors, the vector of its first token, or the largest of each coordinate.

    Raises ValueError for another name.
    """

    def __init__(self, name: PoolingName = "mean") -> None:
        super().__init__()
        if name not in get_args(PoolingName):
            raise ValueError(f"pooling must be one of {', '.join(get_args(PoolingName))}, got {name!r}")
        self.name = name

    def forward(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """[N, T, D] and which tokens are the text's, at least one of each, [N, T], to [N, D]."""
        vectors, mask = at_least_float32(vectors), mask.bool()
        if self.name == "cls":
            return vectors[torch.arange(len(vectors), device=mask.device), mask.int().argmax(1)]
        mask = mask.unsqueeze(-1)
        if self.name == "max":
            return vectors.masked_fill(~mask, -torch.inf).amax(1)
        return vectors.masked_fill(~mask, 0).sum(1) / mask.sum(1)


def embedding_head(name: HeadName, dim: int) -> nn.Sequential:
    """What follows the pooling, to embeddings of ``dim`` coordinates; Nielsen & Hansen 2024 (arXiv 2311.18364).

    ``c``: each embedding minus the mean of its coordinates; ``z``: its z-score; ``n``: length 1, alone or last.
    ``feature_c`` and ``feature_z`` centre or standardise each coordinate over the texts, by running statistics. There
    is no z-score of what is centred, which it would do again. Raises ValueError for another name.
    """
    if name not in get_args(HeadName):
        raise ValueError(f"head must be one of {', '.join(get_args(HeadName))}, got {name!r}")
    first: dict[str, list[nn.Module]] = {
        "c": [RowCentre()],
        "z": [EmbeddingZScore()],
        "feature_c": [FeatureCentre(dim)],
        "feature_z": [FeatureZScore(dim)],
    }
    layers = first.get(name.removesuffix("_n"), [])
    return nn.Sequential(*layers, *([L2Normalize()] if name == "n" or name.endswith("_n") else []))
