"""Samples that stay where they lie until a batch asks for them, and what is done to each on its way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.samplers import Visits
from datamodules.splits import TensorSplit
from likeness.batch import Batch
from likeness.files.errors import DataError
from likeness.progress import tracked
from likeness.seeding import mix, seeded

_AUGMENTATION = 0xA46  # set these streams apart from every other use of the same seed
_TRANSFORM = 0x7F0

Transform = Callable[[Tensor], Tensor]


class SampleError(DataError):
    """A sample that cannot be read; one line that names it, wherever it was met.

    A loader's worker hands over its whole traceback, the last line of which is the message.
    """

    def __init__(self, message: str) -> None:
        lines = message.strip().splitlines()
        super().__init__(lines[-1].partition(": ")[2] if message.startswith("Caught ") else message)


class Source(ABC):
    """The N samples of a part of the data; no more of them is in memory than was asked for.

    ``codes`` [N] int64 numbers ``names``, the classes of this part as they are written there; None without labels.
    """

    def __init__(self, codes: Tensor | None, names: Sequence[str]) -> None:
        self.codes = codes
        self.names = tuple(names)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, rows: Tensor) -> Sequence[Any] | Tensor:
        """These samples: a tensor [B, ...], B tensors of any sizes, or B texts. Raises SampleError naming one."""

    @abstractmethod
    def place(self, row: int) -> str:
        """Where a sample stands, for messages."""


class Selected(Source):
    """The samples of another source at some rows [n], in their order."""

    def __init__(self, source: Source, rows: Tensor) -> None:
        super().__init__(None if source.codes is None else source.codes[rows], source.names)
        self.source = source
        self.rows = rows

    @override
    def __len__(self) -> int:
        return len(self.rows)

    @override
    def read(self, rows: Tensor) -> Sequence[Any] | Tensor:
        return self.source.read(self.rows[rows])

    @override
    def place(self, row: int) -> str:
        return self.source.place(int(self.rows[row]))


@dataclass(frozen=True)
class Preparation:
    """What is done to a sample between its file and its batch.

    ``augment`` comes first, in training alone, and is a function of (seed of the order, epoch, id); ``transform``
    follows, always, and where it draws random numbers, in a function of the id. So neither depends on the number of
    workers or ranks. torchvision's transforms draw from torch's generator, which is left as it was.
    """

    augment: Sequence[Transform] = ()
    transform: Sequence[Transform] = ()

    def __call__(self, samples: Iterable[Tensor], visits: Visits) -> list[Tensor]:
        """Augmented and transformed samples [P * B] of a training batch."""
        orders, ids = len(visits.seeds), visits.ids.tolist()
        seeds = [visits.seeds[place * orders // len(ids)] for place in range(len(ids))]
        keys = [mix(seed, visits.epoch, id_, _AUGMENTATION) for seed, id_ in zip(seeds, ids, strict=True)]
        return self._applied([*self.augment, *self.transform], samples, keys)

    def plain(self, samples: Iterable[Tensor], ids: Tensor) -> list[Tensor]:
        """Transformed samples [B] of a batch that is not trained on."""
        return self._applied(self.transform, samples, [mix(id_, _TRANSFORM) for id_ in ids.tolist()])

    @staticmethod
    def _applied(steps: Sequence[Transform], samples: Iterable[Tensor], keys: Sequence[int]) -> list[Tensor]:
        answer = []
        with seeded(0):
            for sample, key in zip(samples, keys, strict=True):
                torch.default_generator.manual_seed(key)
                for step in steps:
                    sample = step(sample)
                answer.append(sample)
        return answer


class StoredSplit(TensorSplit):
    """Samples of a source at ``rows`` [n], or all of them, read and prepared when a batch asks for them.

    y: [N] int64, of the source. Indexing with ids [B] gives a Batch, with ``Visits`` an augmented one. ``like`` is
    an input, as all are in shape and dtype; None for texts.
    """

    def __init__(
        self,
        source: Source,
        y: Tensor,
        rows: Tensor | None = None,
        preparation: Preparation | None = None,
        like: Tensor | None = None,
    ) -> None:
        self.source = source
        self.y = y
        self.rows = rows
        self.preparation = preparation or Preparation()
        self.like = like

    @override
    def __len__(self) -> int:
        return len(self.y if self.rows is None else self.rows)

    @override
    def __getitem__(self, index: Tensor | Visits) -> Batch[Any]:
        ids = index.ids if isinstance(index, Visits) else index
        rows = ids if self.rows is None else self.rows[ids]
        x: Any = self.source.read(rows)
        if isinstance(index, Visits):
            x = self.preparation(x, index)
        elif self.preparation.transform:
            x = self.preparation.plain(x, ids)
        return Batch(x if self.like is None else self._stacked(x, rows, self.like), self.y[rows], ids)

    @override
    def to(self, device: torch.device | str) -> Self:
        """All of its samples, decoded, as a split of tensors on ``device``."""
        whole = self[torch.arange(len(self))]
        return TensorSplit(whole.x.to(device), whole.y.to(device))  # type: ignore[return-value]  # no longer stored

    def _stacked(self, x: Sequence[Tensor] | Tensor, rows: Tensor, like: Tensor) -> Tensor:
        if isinstance(x, Tensor):
            return x
        for row, sample in zip(rows.tolist(), x, strict=True):
            if sample.shape != like.shape or sample.dtype != like.dtype:
                raise SampleError(
                    f"{self.source.place(row)} is {_kind(sample)} once prepared, where inputs are {_kind(like)}: set "
                    "image_size, or a transform that ends in one size, and leave types to transform"
                )
        return torch.stack(list(x)).contiguous()


def _kind(sample: Tensor) -> str:
    return f"{str(sample.dtype).removeprefix('torch.')} {list(sample.shape)}"


def unreadable(source: Source, description: str) -> dict[int, str]:
    """The rows that cannot be read, and why; each sample is read once, by as many threads as torch would use."""

    def refused(row: int) -> str | None:
        try:
            source.read(torch.tensor([row]))
        except SampleError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        reasons = tracked(pool.map(refused, range(len(source))), description, total=len(source))
        return {row: reason for row, reason in enumerate(reasons) if reason is not None}
