"""A spiral of points in the plane with integer coordinates: the toy that diffusion models are tried on."""

import math
from typing import Any

import numpy as np
import torch

from datamodules.base import TensorDataModule
from datamodules.split import SplitName, TensorSplit

NOISE = 0.25
_SEEDS: dict[SplitName, int] = {"train": 0, "test": 1, "val": 2}


class Swirl(TensorDataModule):
    """x = uint8(4 (r (cos t, sin t) + 0.25 eps + 30)), t = 3 pi sqrt(u), r = 2 t + pi: 256 levels, no labels.

    As in the variational diffusion model's toy example (Kingma et al. 2021), with per-point noise: the published code
    draws ``normal(size, 2)``, one shift for all points, and overflows its integers.
    """

    input_shape = (2,)
    num_classes = 1
    levels = 256
    dataset_name = "swirl"

    def __init__(self, size: int = 1024, **kwargs: Any) -> None:
        """
        Args:
            size: Points in each of the three splits, which are independent draws.
        """
        super().__init__(**kwargs)
        self.size = size

    def load(self, split: SplitName) -> TensorSplit:
        random = np.random.default_rng(_SEEDS[split])
        turn = 3 * math.pi * np.sqrt(random.random(self.size))
        curve = (2 * turn + math.pi)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        x = 4 * (curve + NOISE * random.standard_normal((self.size, 2)) + 30)
        return TensorSplit(torch.from_numpy(x.clip(0, 255).astype(np.uint8)), torch.zeros(self.size, dtype=torch.long))
