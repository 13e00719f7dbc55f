"""Token windows of a cyclic text with noise, small enough to train on in a test."""

from typing import Any

import torch
from torch import Tensor

from datamodules.base import ResumableDataModule
from datamodules.splits import Split, SplitName
from likeness.batch import Batch
from likeness.language.loss import IGNORED


class Windows(Split):
    """Contexts [N, T] and the tokens that follow them."""

    def __init__(self, windows: Tensor) -> None:
        self.windows = windows  # [N, T + 1]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, ids: Tensor) -> Batch:
        x, y = self.windows[ids, :-1], self.windows[ids, 1:].clone()
        y[ids % 3 == 0, :2] = IGNORED  # what an earlier window has predicted
        return Batch(x, y, ids)


class TinyTokens(ResumableDataModule[Windows]):
    """Token t is followed by t + 1, or now and then by any other."""

    dataset_name = "tiny_tokens"
    sizes = {"train": 64, "val": 21, "test": 17}  # noqa: RUF012
    vocab_size = 19
    byte_counts = torch.arange(19) % 4  # token 0 and others stand for no text

    def __init__(self, context: int = 8, batch_size: int = 16, eval_batch_size: int = 5, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, **kwargs)
        self.context = context

    def load(self, split: SplitName) -> Windows:
        random = torch.Generator().manual_seed(self.sizes[split])
        shape = (self.sizes[split], self.context + 1)
        first = torch.randint(self.vocab_size, (shape[0], 1), generator=random)
        noise = torch.randint(self.vocab_size, shape, generator=random)
        noise *= torch.rand(shape, generator=random) < 0.1
        return Windows((first + torch.arange(shape[1]) + noise) % self.vocab_size)
