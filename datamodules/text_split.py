"""Splits of texts and of sentence pairs, and how a part is taken out of one in proportion."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from datamodules.split import Split
from likeness.batch import Batch, PairBatch
from likeness.seeding import generator

_STRATIFIED = 0x57A7


class TextSplit(Split):
    """N texts ``x`` with their labels ``y`` [N] int64; indexing with ids [B] gives a Batch[list[str]]."""

    def __init__(self, x: Sequence[str], y: Tensor) -> None:
        self.x = list(x)
        self.y = y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, ids: Tensor) -> Batch[list[str]]:
        return Batch(_gathered(self.x, ids), self.y[ids], ids)

    @property
    def strata(self) -> Tensor:
        """What keeps its proportions [N] int64 where the split is divided: the labels."""
        return self.y

    def select(self, rows: Tensor) -> Self:
        """The samples at these rows, in their order."""
        return type(self)(_gathered(self.x, rows), self.y[rows])


class PairSplit(Split):
    """N pairs of sentences with scores [N] float32 in 0..5; indexing with ids [B] gives a PairBatch."""

    def __init__(self, first: Sequence[str], second: Sequence[str], score: Tensor) -> None:
        self.first = list(first)
        self.second = list(second)
        self.score = score

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, ids: Tensor) -> PairBatch:
        return PairBatch(_gathered(self.first, ids), _gathered(self.second, ids), self.score[ids], ids)

    @property
    def strata(self) -> Tensor:
        """What keeps its proportions [N] int64 where the split is divided: the scores, rounded."""
        return self.score.round().long()

    def select(self, rows: Tensor) -> Self:
        """The pairs at these rows, in their order."""
        return type(self)(_gathered(self.first, rows), _gathered(self.second, rows), self.score[rows])


def stratified_rows(strata: Tensor, size: int, seed: int) -> Tensor:
    """``size`` of the rows 0 to N - 1, sorted: of each stratum its share, to within one row.

    strata: [N] int64. These are evenly spaced rows of the order that has the strata one after the other, each of them
    shuffled; so any size can be taken, from strata of any size. Raises ValueError where size exceeds N.
    """
    count = len(strata)
    if not 0 <= size <= count:
        raise ValueError(f"{size} samples cannot be taken out of {count}")
    shuffled = torch.randperm(count, generator=generator(seed, _STRATIFIED))
    ordered = shuffled[strata[shuffled].argsort(stable=True)]
    places = (2 * torch.arange(size) + 1) * count // (2 * max(size, 1))
    return ordered[places].sort().values


def remaining_rows(count: int, taken: Tensor) -> Tensor:
    """The rows of 0 to ``count`` - 1 that are not taken, sorted."""
    left = torch.ones(count, dtype=torch.bool)
    left[taken] = False
    return left.nonzero()[:, 0]


def _gathered(texts: list[str], rows: Tensor) -> list[str]:
    return [texts[row] for row in rows.tolist()]
