"""Points in the plane: paper A's double cones for classifiers, and a spiral of integers for diffusion models."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import TensorDataModule
from datamodules.splits import SplitName, TensorSplit
from likeness.checks import require_positive

SCALE = 3.0  # standard deviation of the points
# (number of points, seed): the paper has no validation split, so it is drawn anew, as large as the test split
_DRAWS: dict[SplitName, tuple[int, int]] = {"train": (20_000, 0), "test": (2_000, 1), "val": (2_000, 2)}
NOISE = 0.25  # standard deviation of each coordinate around the spiral, before the scaling by 4
_SEEDS: dict[SplitName, int] = {"train": 0, "test": 1, "val": 2}


class Radial(TensorDataModule):
    """Points x ~ N(0, 3^2 I) in the plane; the class is the direction of the line through x and the origin.

    Train (20,000) and test (2,000) are the paper's own draws; validation is a fresh draw of 2,000 points.
    Nielsen, Marconato, Dittadi and Gresele 2025, experiments on synthetic data.
    """

    input_shape = (2,)
    dataset_name = "radial"

    def __init__(self, num_classes: int = 4, **kwargs: Any) -> None:
        """
        Args:
            num_classes: Equal double cones into which the plane is cut; the paper has 4, 6, 10 and 18.
        """
        super().__init__(**kwargs)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes = num_classes

    def load(self, split: SplitName) -> TensorSplit:
        size, seed = _DRAWS[split]
        x = np.random.default_rng(seed).normal(0, SCALE, (size, 2)).astype(np.float32)
        return TensorSplit(torch.from_numpy(x), double_cone(torch.from_numpy(x), self.num_classes))


def double_cone(x: Tensor, num_classes: int) -> Tensor:
    """Class [N] of the points x [N, 2]: floor(angle / (pi / K)) of the line's angle in [0, pi], last bin closed."""
    x = x.double()
    upper = torch.where(x[:, 1:] < 0, -x, x)  # the label alone is symmetric; the input stays as drawn
    angle = torch.acos(upper[:, 0] / upper.norm(dim=1))
    return (angle / (math.pi / num_classes)).floor().long().clamp(max=num_classes - 1)


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
        require_positive(size=size)
        self.size = size

    def load(self, split: SplitName) -> TensorSplit:
        random = np.random.default_rng(_SEEDS[split])
        turn = 3 * math.pi * np.sqrt(random.random(self.size))
        curve = (2 * turn + math.pi)[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        x = 4 * (curve + NOISE * random.standard_normal((self.size, 2)) + 30)
        return TensorSplit(torch.from_numpy(x.clip(0, 255).astype(np.uint8)), torch.zeros(self.size, dtype=torch.long))
