"""Data in (-1, 1) as pictures."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def pictures(x: Tensor) -> np.ndarray:
    """Images [B, C, H, W] as [B, H, W, 3] of three channels, else as their mean [B, H, W], clipped to [0, 1]."""
    shown = ((x.detach().float() + 1) / 2).clamp(0, 1).cpu()
    return shown.movedim(1, -1).numpy() if x.shape[1] == 3 else shown.mean(1).numpy()


def is_image(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are images [C, H, W]."""
    return len(shape) == 3


def is_point(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are points in the plane."""
    return tuple(shape) == (2,)
