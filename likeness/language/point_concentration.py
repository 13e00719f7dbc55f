"""How concentrated the distances of points are: Var(d^q) / E(d^q)^2 over pairs, in one pass over tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from likeness.language.context_visit import visit_contexts
from likeness.neighbours.distances import PointDistances, unit_rows
from likeness.neighbours.moments import fill_own, tiles


@torch.no_grad()
def concentration(
    points: Tensor,
    distance: Literal["euclidean", "norm_euclidean", "softmax_dot"] = "euclidean",
    powers: Sequence[float] = (1,),
) -> dict[float, float]:
    """By power q, of the distances d between points [n, M].

    Euclidean distances are of all pairs of different points. d = 1 - p of a softmax over all points, the point itself
    included, so that it sums to 1. Raises ValueError for rows of zeros that are to have length 1.
    """
    if distance == "softmax_dot":
        return visit_contexts(points, points, powers=powers).concentration
    points = unit_rows(points.double(), "points") if distance == "norm_euclidean" else points
    distances = PointDistances(points, None, "euclidean")
    numbers = torch.arange(distances.m, device=distances.device)
    sums = {q: torch.zeros(2, dtype=torch.float64, device=distances.device) for q in powers}
    for rows, columns in tiles(distances.m, distances.n):
        tile = fill_own(distances.tile(numbers[rows], columns), numbers[rows], columns, 0.0)
        for q, total in sums.items():
            powered = tile**q
            total += torch.stack([powered.sum(), powered.square_().sum()])
    pairs = distances.n * (distances.n - 1)
    return {q: float(square / pairs / (mean / pairs).square() - 1) for q, (mean, square) in sums.items()}
