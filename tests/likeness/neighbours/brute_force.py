"""Neighbours as they are defined: all distances in float64, every row sorted by (distance, id)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

SCIPY = {"euclidean": "euclidean", "sqeuclidean": "sqeuclidean", "cosine": "cosine"}


def distance_matrix(x: Tensor, y: Tensor, metric: str) -> NDArray[np.float64]:
    """[m, n] of queries x [m, d] and index points y [n, d]; exact for small whole numbers, cosines aside."""
    a, b = x.double().numpy(), y.double().numpy()
    return -(a @ b.T) if metric == "dot" else cdist(a, b, SCIPY[metric])


def first_of_rows(matrix: NDArray[np.floating], k: int, exclude_self: bool = False) -> NDArray[np.int64]:
    """Columns [m, k] of the smallest entries by (value, column), the diagonal left out if asked for."""
    order = np.argsort(matrix, axis=1, kind="stable")
    if exclude_self:
        order = np.stack([row[row != i] for i, row in enumerate(order)])
    return order[:, :k]


def brute_force(
    index: Tensor, k: int, metric: str, queries: Tensor | None = None, include_self: bool = False
) -> tuple[Tensor, Tensor]:
    """Distances and ids [m, k]."""
    matrix = distance_matrix(index if queries is None else queries, index, metric)
    ids = first_of_rows(matrix, k, queries is None and not include_self)
    return torch.from_numpy(np.take_along_axis(matrix, ids, axis=1)), torch.from_numpy(ids)
