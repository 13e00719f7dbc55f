"""Windows of T + 1 tokens out of a token file: in training at an offset of the epoch, in evaluation at a stride.

A sample's id is where its window starts in the file. Which tokens it has and which of them it predicts is a function
of (seed, epoch) in training, and of the file alone in evaluation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from datamodules.language.token_files import TokenFile
from datamodules.samplers import Visits
from datamodules.splits import Split
from likeness.batch import Batch
from likeness.language.loss import IGNORED
from likeness.seeding import mix

_OFFSET = 0x70CE  # sets these streams apart from every other use of the same seed


def num_windows(count: int, context: int) -> int:
    """How many windows of ``context`` predictions, one behind the other, fit at any offset below ``context``."""
    return max(0, (count - 1) // context - 1)


def epoch_offset(seed: int, epoch: int, context: int) -> int:
    """Where the first window of an epoch begins: 0 to T - 1."""
    return mix(seed, epoch, _OFFSET) % context


class TrainingWindows(Split):
    """Window i of epoch e begins at offset_e + T i, so in an epoch each token is predicted once at most.

    Indexing with ``Visits`` gives a Batch: x [P B, T], y [P B, T], id [P B]; with plain numbers the windows at offset
    0.
    """

    def __init__(self, file: TokenFile, context: int) -> None:
        self.file = file
        self.context = context

    @override
    def __len__(self) -> int:
        return num_windows(len(self.file), self.context)

    @override
    def __getitem__(self, index: Tensor | Visits) -> Batch:
        starts = self._starts(index) if isinstance(index, Visits) else index * self.context
        tokens = self.file.windows(starts, self.context + 1)
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), starts)

    def _starts(self, visits: Visits) -> Tensor:
        offsets = [epoch_offset(seed, visits.epoch, self.context) for seed in visits.seeds]
        return (visits.ids.view(len(offsets), -1) * self.context + torch.tensor(offsets)[:, None]).flatten()


class EvaluatedWindows(Split):
    """Windows at a stride S <= T, of each but the first the last S predictions: every token is predicted once.

    ``documents`` [D], the starts of documents, makes windows that see one document alone and the separator in front
    of it. Only the first token of the file is never predicted. x beyond the end of what a window may see is there to
    fill the batch.
    """

    def __init__(self, file: TokenFile, context: int, stride: int, documents: Tensor | None = None) -> None:
        self.file = file
        self.context = context
        begin = torch.zeros(1, dtype=torch.long) if documents is None else documents
        end = torch.cat([begin[1:], torch.tensor([len(file)])])
        begin = (begin - 1).clamp(min=0)  # the separator of the document before
        predicted = end - begin - 1
        counts = torch.where(predicted > 0, 1 + (predicted - context).clamp(min=0).add(stride - 1) // stride, 0)
        number = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        self.starts = begin.repeat_interleave(counts) + stride * number
        self.first = torch.where(number > 0, context - stride, 0)  # the first prediction that counts, of 0 to T - 1
        self.last = (end.repeat_interleave(counts) - 1 - self.starts).clamp(max=context)  # behind the last that does

    @override
    def __len__(self) -> int:
        return len(self.starts)

    @override
    def __getitem__(self, ids: Tensor) -> Batch:
        starts = self.starts[ids]
        tokens = self.file.windows(starts, self.context + 1)
        place = torch.arange(self.context)
        counts = (place >= self.first[ids, None]) & (place < self.last[ids, None])
        return Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].where(counts, IGNORED), starts)
