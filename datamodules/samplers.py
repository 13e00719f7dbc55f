"""Which samples are in which batch: functions of (seed, epoch, rank, world size) and of nothing else."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

from datamodules.errors import OptionError
from likeness.seeding import generator

_ORDER = 0x0D3  # sets these streams apart from every other use of the same seed


def epoch_order(seed: int, epoch: int, num_samples: int) -> Tensor:
    """The order [num_samples] in which epoch number ``epoch`` visits the training samples."""
    return torch.randperm(num_samples, generator=generator(seed, epoch, _ORDER))


class Visits(NamedTuple):
    """A training batch of a split that augments: its samples, and what decides how each of them looks this time."""

    ids: Tensor  # [P * B], one order's samples after the other's
    epoch: int
    seeds: tuple[int, ...]  # of the P orders


class TrainOrder(Sampler[Tensor | Visits]):
    """Index batches of one training epoch, resumable at any batch.

    Global batch b is slice b of the epoch's order; rank r takes rows r, r + world_size, ... of it, so that the ranks
    together train on the same samples at any world size. With P order seeds a batch holds the P orders' batches one
    after the other: [P * batch_size / world_size] indices, order-major. The incomplete last batch is dropped.

    ``position``, where given, is asked for (epoch, batches done) at the start of each pass and replaces ``set_epoch``
    and ``skip``. Where ``tells_epoch`` is set, batches are ``Visits``. Raises OptionError where the batch does not
    divide among the ranks or exceeds the data.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seeds: Sequence[int],
        rank: int = 0,
        world_size: int = 1,
        position: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        if batch_size % world_size:
            raise OptionError(
                f"batch_size {batch_size} is over all ranks and does not divide by world_size {world_size}"
            )
        if num_samples < batch_size:
            raise OptionError(f"batch_size {batch_size} exceeds the {num_samples} training samples: not one full batch")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seeds = tuple(seeds)
        self.rank = rank
        self.world_size = world_size
        self.position = position
        self.epoch = 0
        self.tells_epoch = False
        self._skip = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch whose order the next pass follows."""
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Leave out the first ``batches`` batches of the next pass, once."""
        self._skip = batches

    def __len__(self) -> int:
        """Batches in a whole epoch, whatever the next pass skips."""
        return self.num_samples // self.batch_size

    def __iter__(self) -> Iterator[Tensor | Visits]:
        if self.position is not None:
            self.epoch, self._skip = self.position()
        start, self._skip = self._skip, 0
        orders = torch.stack([epoch_order(seed, self.epoch, self.num_samples) for seed in self.seeds])
        for batch in range(start, len(self)):
            rows = slice(batch * self.batch_size + self.rank, (batch + 1) * self.batch_size, self.world_size)
            ids = orders[:, rows].reshape(-1)
            yield Visits(ids, self.epoch, self.seeds) if self.tells_epoch else ids


class RepeatedOrder(TrainOrder, SequentialSampler):  # type: ignore[misc]  # batches of indices, not indices
    """The batches of epoch 0 in every epoch, for overfitting on purpose (``trainer.overfit_batches``).

    Lightning replaces any sampler that is not a SequentialSampler in that mode.
    """

    def set_epoch(self, epoch: int) -> None:
        """Stay at epoch 0."""


class EvaluationOrder(SequentialSampler):
    """Index batches that visit each sample exactly once over all ranks: nothing padded, nothing dropped.

    Rank r takes samples r, r + world_size, ...; the last batch may be smaller, and ranks may differ by one sample, but
    not in their number of batches: sharded models gather weights in each. At a batch size of 1 a rank with one sample
    more has two in its last batch. Raises ValueError where a rank would have no sample, for metrics would wait for it
    forever.
    """

    def __init__(self, num_samples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if num_samples < world_size:
            raise ValueError(f"{num_samples} samples to evaluate are fewer than the {world_size} ranks")
        super().__init__(range(num_samples))
        own = torch.arange(rank, num_samples, world_size)
        self.batches = list(own.split(batch_size))
        of_first_rank = -(-num_samples // (world_size * batch_size))  # which has the most samples
        if batch_size == 1:
            self.batches = list(own.tensor_split(tuple(range(1, num_samples // world_size))))
        elif len(self.batches) < of_first_rank:
            self.batches[-1:] = self.batches[-1].tensor_split(2)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:  # type: ignore[override]
        return iter(self.batches)
