"""From the vectors of a text's tokens to one embedding: pooling, and the heads that follow it."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from likeness.measures.feature_moments import at_least_float32
from likeness.networks.embedding_heads import FeatureCentre, FeatureZScore, L2Normalize, RowCentre, RowZScore

PoolingName = Literal["mean", "cls", "max"]
HeadName = Literal["none", "z", "n", "c", "c_n", "feature_c", "feature_c_n", "feature_z", "feature_z_n"]


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
        "z": [RowZScore()],
        "feature_c": [FeatureCentre(dim)],
        "feature_z": [FeatureZScore(dim)],
    }
    layers = first.get(name.removesuffix("_n"), [])
    return nn.Sequential(*layers, *([L2Normalize()] if name == "n" or name.endswith("_n") else []))
