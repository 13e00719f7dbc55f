"""Splits of a dataset: of tensors, of texts and of sentence pairs; and the rows that are held out of one."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from likeness.batch import Batch, PairBatch
from likeness.checks import require_probability
from likeness.files.errors import DataError
from likeness.seeding import generator

SplitName = Literal["train", "val", "test"]
PARTS: tuple[SplitName, ...] = get_args(SplitName)
_HELD_OUT = 0x5EED
_STRATIFIED = 0x57A7


def require_fractions(val_fraction: float, test_fraction: float) -> None:
    """Raise ValueError unless both are shares in [0, 1) that leave something to train on."""
    require_probability("val_fraction", val_fraction)
    require_probability("test_fraction", test_fraction)
    if val_fraction + test_fraction >= 1:
        raise ValueError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave nothing to train on")


class Split(Dataset[Any]):
    """Samples 0 to len - 1; indexing with ids [B] gathers a whole batch of them, a named tuple that carries the ids."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, ids: Tensor) -> Any: ...


class TensorSplit(Split):
    """Inputs and labels of one split, gathered a whole batch at a time.

    x: [N, ...] as stored; y: [N] int64. ``rows`` [n], where given, are the samples that belong to the split, so that
    two splits can share one (memory-mapped) tensor. Indexing with ids [B] gives a Batch of the samples at these
    positions of the split.
    """

    def __init__(self, x: Tensor, y: Tensor, rows: Tensor | None = None) -> None:
        self.x = x
        self.y = y
        self.rows = rows

    def __len__(self) -> int:
        return len(self.x if self.rows is None else self.rows)

    def __getitem__(self, ids: Tensor) -> Batch:
        ids = ids.to(self.y.device)
        rows = ids if self.rows is None else self.rows[ids]
        return Batch(self.x[rows], self.y[rows], ids)

    def to(self, device: torch.device | str) -> Self:
        """The same split on ``device``, with no more than its own samples there."""
        if self.y.device == torch.device(device):
            return self
        if self.rows is None:
            return type(self)(self.x.to(device), self.y.to(device))
        return type(self)(self.x[self.rows].to(device), self.y[self.rows].to(device))


def held_out(num_samples: int, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which of the training samples are trained on, and which ``val_size`` are kept for validation; both sorted.

    Raises ValueError where nothing would be left to train on.
    """
    if not 0 < val_size < num_samples:
        raise ValueError(f"val_size must be between 1 and {num_samples - 1} here, got {val_size}")
    order = torch.randperm(num_samples, generator=generator(seed, _HELD_OUT))
    return order[val_size:].sort().values, order[:val_size].sort().values


def check_split(name: str, split: TensorSplit, num_classes: int) -> None:
    """Raise DataError for an empty split, a NaN or infinite input, or a label that is no class.

    Names the split and the id of the first sample that is wrong.
    """
    if len(split) == 0:
        raise DataError(f"the {name} split is empty")
    y = split.y if split.rows is None else split.y[split.rows]
    wrong = (y < 0) | (y >= num_classes)
    if wrong.any():
        id_ = int(wrong.nonzero()[0])
        raise DataError(f"{name} sample {id_} has label {int(y[id_])}, expected 0 to {num_classes - 1}")
    if split.x.is_floating_point():
        x = split.x if split.rows is None else split.x[split.rows]
        finite = x.flatten(1).isfinite().all(1)
        if not finite.all():
            id_ = int((~finite).nonzero()[0])
            raise DataError(f"{name} sample {id_} has an input that is not finite: {_first_bad(x[id_])}")


def _first_bad(sample: Tensor) -> float:
    return float(sample[~sample.isfinite()][0])


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
