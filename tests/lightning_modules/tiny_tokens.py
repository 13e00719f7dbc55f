"""Token files of a cyclic text with noise, small enough to train on in a test."""

import functools
import tempfile
from typing import Any

import numpy as np
import torch

from datamodules import Tokens
from tests.datamodules.language.toys import write_bin

CONTEXT, STRIDE = 8, 6
_COUNTS = {"train": (1 + 64) * CONTEXT + 1, "val": 20 * STRIDE + CONTEXT + 1, "test": 16 * STRIDE + CONTEXT + 1}
_FOLDER = tempfile.TemporaryDirectory()


class TinyTokens(Tokens):
    """Token t is followed by t + 1, or now and then by any other; of all windows but the first two tokens were said."""

    vocab_size = 19
    byte_counts = torch.arange(19) % 4  # token 0 and others stand for no text

    def __init__(self, context: int = CONTEXT, batch_size: int = 16, eval_batch_size: int = 5, **kwargs: Any) -> None:
        sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size}
        super().__init__(_written(), context, stride=STRIDE, vocab_size=self.vocab_size, **sizes, **kwargs)


@functools.cache
def _written() -> str:
    return write_bin(_FOLDER.name, **{part: _text(count) for part, count in _COUNTS.items()})


def _text(count: int) -> np.ndarray:
    random = np.random.default_rng(count)
    steps = np.where(random.random(count) < 0.1, random.integers(TinyTokens.vocab_size, size=count), 1)
    return steps.cumsum() % TinyTokens.vocab_size
