"""Points of several models in one space, of which each model's own spans a part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

Pairs = tuple[Tensor, Tensor]
"""B pairs of models: i [B] and j [B]."""

_BLOCK = {"cpu": 2**17, "cuda": 2**24}  # elements of a temporary: in the CPU's cache, filling the GPU


@dataclass(frozen=True)
class Cloud:
    """n points of each of P models in R dimensions, centred around an offset: own @ axes + offset.

    Differences are taken between the centred points, where they are exact; within a model, in its own M dimensions.
    """

    own: Tensor  # [P, n, M], with zero columns for models with fewer dimensions than M
    axes: Tensor  # [P, M, R], orthonormal rows, and zero ones
    offset: Tensor  # [P, R]

    @classmethod
    def of_maps(cls, points: Sequence[Tensor], maps: Sequence[Tensor], offset: Tensor) -> Self:
        """Points [n, M_i] through linear maps [R, M_i]."""
        basis, triangle = torch.linalg.qr(padded(maps))
        real = torch.tensor([map_.shape[1] for map_ in maps], device=basis.device)[:, None, None]
        within = torch.arange(basis.shape[2], device=basis.device) < real
        return cls(padded(points) @ triangle.mT, (basis * within).mT.contiguous(), offset)

    def __len__(self) -> int:
        return self.own.shape[1]

    @property
    def num_models(self) -> int:
        """P."""
        return len(self.own)

    @property
    def width(self) -> int:
        """R."""
        return self.axes.shape[2]

    def centred(self, rows: slice) -> Tensor:
        """[P, rows, R]."""
        return self.own[:, rows] @ self.axes

    def points(self, rows: slice) -> Tensor:
        """[P, rows, R]."""
        return self.centred(rows) + self.offset[:, None]

    def take(self, models: Tensor, index: Tensor | slice) -> Tensor:
        """Centred points [B, m, R] of the models [B] at their positions [B, m], or at the same ones."""
        rows = models if isinstance(index, slice) else models[:, None]
        return self.own[rows, index] @ self.axes[models]

    def blocks(self, width: int, least: int = 1) -> Iterator[slice]:
        """All rows, in slices of as many as make temporaries of ``width`` elements a row the best size."""
        return blocks(len(self), width, self.own.device, least)


def blocks(size: int, width: int, device: torch.device, least: int = 1) -> Iterator[slice]:
    """Slices of ``size`` rows of ``width`` elements, as large as the device works best with or ``least`` rows."""
    step = max(least, _BLOCK.get(device.type, _BLOCK["cpu"]) // width)
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def one_pair(first: int, second: int, device: torch.device) -> Pairs:
    """Two models as the one pair of a batch."""
    return torch.tensor([first], device=device), torch.tensor([second], device=device)


def padded(matrices: Sequence[Tensor]) -> Tensor:
    """[P, n, largest M] of P matrices [n, M_i], with zero columns."""
    width = max(matrix.shape[1] for matrix in matrices)
    return torch.stack([x if x.shape[1] == width else pad(x, (0, width - x.shape[1])) for x in matrices])
