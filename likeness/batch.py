"""What a dataloader yields and every model reads."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One mini-batch, as it is stored: images are uint8 until a model scales them on its device."""

    x: Tensor  # [B, ...] inputs: uint8 images [B, C, H, W] or float points [B, D]
    y: Tensor  # [B] int64 class labels; zeros where the data has none
    id: Tensor  # [B] int64 position of each sample in its split, the same on every rank and at any batch size
