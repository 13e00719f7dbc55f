"""Mutual k-nearest-neighbour overlap: whether two representations put the same samples close together."""

from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from likeness.checks import require_one_of
from likeness.neighbours import exact as neighbours
from likeness.numerics import as_float64, power_of_two
from likeness.similarity.representations.samples import centred, compare_two
from likeness.similarity.undefined import UndefinedError

Metric = Literal["euclidean", "cosine"]


def mutual_knn(x: Tensor, y: Tensor, k: int = 10, metric: Metric = "euclidean") -> Tensor:
    """Mean share of a sample's k nearest neighbours that x [N, M] and y [N, M'] have in common; a scalar in [0, 1].

    Larger is more alike; unrelated representations score k / (N - 1). Huh et al. 2024 (arXiv 2405.07987),
    appendix A, who take the cosine. Invariant to orthogonal maps and isotropic scaling of either, and to shifts
    with Euclidean distance; blind to everything but the ranks of the nearest. Not for comparisons across N or k,
    and not where many samples coincide: of equally near ones those that come first count, which is arbitrary. Memory
    N k and one block of the distances. Raises ValueError for k outside 1..N-1, N that differs, a constant
    representation, a sample of length 0 under the cosine, and values that are not finite.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 3, generator=torch.manual_seed(0)).double()
        >>> mutual_knn(x, 2 * x[:, [2, 0, 1]] + 1).item()
        1.0
    """
    return compare_two(partial(nearest_samples, k=k, metric=metric), overlap, x, y)


def nearest_samples(x: Tensor, name: str, k: int, metric: Metric) -> Tensor:
    """Indices [N, k] of the samples nearest to each one, itself left out; equally near ones by their indices."""
    require_one_of(metric, get_args(Metric), "metric")
    offset = centred(x, name)
    require_neighbours(len(x), k, name)
    if metric == "cosine":
        _require_directions(x, name)
        x = as_float64(x)
        return neighbours.nearest_neighbours(x / power_of_two(x, 1), k, metric=metric).ids
    return neighbours.nearest_neighbours(offset, k, metric=metric).ids


def overlap(x: Tensor, y: Tensor) -> Tensor:
    """Share of the indices x [N, k] that y [..., N, k] holds in the same row, [...]; none repeats in a row."""
    both = torch.cat([x.expand(y.shape), y], dim=-1).sort(dim=-1).values
    return (both[..., 1:] == both[..., :-1]).double().sum((-2, -1)) / x.numel()


def reorder_neighbours(neighbours: Tensor, orders: Tensor) -> Tensor:
    """The neighbours [N, k] of samples that stand in each of B orders [B, N]: [B, N, k]."""
    positions = orders.argsort(dim=1)
    moved = neighbours[orders]
    return positions.gather(1, moved.flatten(1)).view(moved.shape)


def require_neighbours(n: int, k: int, name: str) -> None:
    """Raise ValueError for k < 1, UndefinedError unless each of n samples has k others."""
    if not 1 <= k < n:
        kind = ValueError if k < 1 else UndefinedError
        raise kind(f"k must be at least 1 and below the number of samples, but k is {k} and {name!r} has {n}")


def _require_directions(x: Tensor, name: str) -> None:
    zero = (x == 0).all(1)
    if bool(zero.any()):
        raise UndefinedError(f"sample {int(zero.nonzero()[0])} of {name!r} has length 0, so no cosine")
