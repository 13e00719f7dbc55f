"""Heads from Nielsen & Grivas (arXiv 2603.29488) on which angles between label vectors mislead, in float64.

Which sets of labels can be the most probable ones is decided by ``likeness.label_geometry.top_sets.can_be_top``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def centred_head() -> Tensor:
    """Five centred labels [5, 2] whose cosines do not say which labels are probable together.

    cos(0, 1) = .32 and cos(1, 2) = -.58, yet both pairs can be the two most probable labels; cos(2, 4) = .80, yet
    labels 2 and 4 never are, because label 3 stands between them.
    """
    return torch.tensor([(1.4, -1), (1.4, 1), (-0.9, 0.3), (-1, 0), (-0.9, -0.3)], dtype=torch.float64)


def fixed_length_head(cosine: float = 0.805) -> Tensor:
    """Six centred labels [6, 2] of length 1: cos(1, 3) = cosine and cos(0, 1) = -cosine.

    However near 1 the cosine is, labels 1 and 3 are never the two most probable ones, because label 5 stands
    between them, and labels 0 and 1 can be. The paper's head has 0.805; other values are derived. Raises
    ValueError for a cosine outside (-1, 1).
    """
    if not -1 < cosine < 1:
        raise ValueError(f"the cosine must lie in (-1, 1), got {cosine}")
    x, y = math.sqrt((1 + cosine) / 2), math.sqrt((1 - cosine) / 2)
    return torch.tensor([(x, y), (-x, y), (x, -y), (-x, -y), (1, 0), (-1, 0)], dtype=torch.float64)


def shortened_head() -> tuple[Tensor, Tensor]:
    """Two heads [7, 2] with the same cosines: every label of the first can win, label 2 of the second never.

    Angles {0, 1, 2, 3, 4, 5, 7} pi/4 and length 5; in the second head the label at pi/2 is shortened to (0, 2).
    """
    angles = torch.tensor([0, 1, 2, 3, 4, 5, 7], dtype=torch.float64) * (math.pi / 4)
    g = 5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    shortened = g.clone()
    shortened[2] *= 2 / 5
    return g, shortened


class RankingPair(NamedTuple):
    """Two heads [5, 3] with the same sign pattern and different ranking patterns."""

    first: Tensor
    second: Tensor


def same_signs_other_rankings() -> RankingPair:
    """Homogenised points [5, 3] whose sign patterns agree (20 regions) and whose rankings do not.

    The third point lies between the first and the fifth in both, and one minor of the braid arrangement flips.
    """
    return RankingPair(_homogenised(0.8, 1.0), _homogenised(1.0, 0.8))


def _homogenised(upper: float, lower: float) -> Tensor:
    corners = [(-upper, 1.0), (upper, 1.0), (-lower, -1.0), (lower, -1.0)]
    points = torch.tensor(corners, dtype=torch.float64)
    between = 0.25 * points[0] + 0.75 * points[3]
    points = torch.stack([points[0], points[1], between, points[2], points[3]])
    return torch.cat([torch.ones(5, 1, dtype=torch.float64), points], dim=1)
