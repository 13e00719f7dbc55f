"""What a dataloader yields and every model reads."""

from typing import Generic, NamedTuple

from torch import Tensor
from typing_extensions import TypeVar

Inputs = TypeVar("Inputs", Tensor, list[str], default=Tensor)


class Batch(NamedTuple, Generic[Inputs]):
    """One mini-batch, as it is stored: images are uint8 until a model scales them on its device."""

    x: Inputs  # uint8 images [B, C, H, W], float points [B, D], token ids [B, T]; of a Batch[list[str]], B texts
    y: Tensor  # [B] int64 class labels, zeros where the data has none; of tokens the next ones [B, T], -1 for none
    id: Tensor  # [B] int64 position of each sample in its split, the same on every rank and at any batch size


class PairBatch(NamedTuple):
    """One mini-batch of sentence pairs with how alike each pair is."""

    first: list[str]  # B sentences
    second: list[str]  # B sentences, compared with ``first`` one to one
    score: Tensor  # [B] float32 likeness from 0, unrelated, to 5, the same meaning
    id: Tensor  # [B] int64 position of each pair in its split, as in ``Batch``


class Positions(NamedTuple):
    """Positions in the contexts of a batch that stand for samples."""

    rows: Tensor  # [n] int64, of the B T positions of the batch, context by context
    ids: Tensor  # [n] int64 by which they are told apart, the same on every rank and at any batch size
