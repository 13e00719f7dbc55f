"""Which labels L = [g(y1) - g(y0) .. g(yM) - g(y0)] is made of: all choices where they are few, else random ones."""

from itertools import chain, combinations
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.seeding import generator

_WORK = 2**32  # multiplications that factorising the sampled L may cost


class LabelSubsets(NamedTuple):
    """Subsets of a number of labels, or of positions among them."""

    members: Tensor  # [S, m]
    complete: bool  # whether these are all


def subsets_beside_choice(
    num_labels: int, dim: int, *, max_subsets: int = 5000, num_sampled: int = 200, seed: int = 0
) -> LabelSubsets:
    """M-subsets, M = ``dim``, of the K - 2 labels that are neither pivot nor left out, by position [S, M].

    All where there are at most ``max_subsets``, else ``num_sampled`` random ones. Raises ValueError where there
    are not so many labels.
    """
    free = num_labels - 2
    if free < dim:
        raise ValueError(
            f"L^T f needs M labels besides the pivot and the left-out one, but K = {num_labels} and M = {dim}"
        )
    if comb(free, dim) <= max_subsets:
        return LabelSubsets(_all(free, dim), complete=True)
    return LabelSubsets(_random(free, dim, num_sampled, dim, seed), complete=False)


def pivots_with_subsets(num_labels: int, dim: int, *, max_choices: int = 20_000, seed: int = 0) -> LabelSubsets:
    """A pivot and M = ``dim`` further labels, [S, M + 1], the pivot first.

    All K C(K-1, M) where they are at most ``max_choices``, else so many random ones. Raises ValueError for fewer
    than M + 1 labels.
    """
    if num_labels < dim + 1:
        raise ValueError(f"L has a pivot and M labels, but K = {num_labels} and M = {dim}")
    if num_labels * comb(num_labels - 1, dim) <= max_choices:
        sets = _all(num_labels, dim + 1)
        return LabelSubsets(torch.cat([sets.roll(-pivot, dims=1) for pivot in range(dim + 1)]), complete=True)
    return LabelSubsets(_random(num_labels, dim + 1, max_choices, dim, seed), complete=False)


def _all(size: int, count: int) -> Tensor:
    members = chain.from_iterable(combinations(range(size), count))
    return torch.tensor(list(members)).view(-1, count)


def _random(size: int, count: int, number: int, dim: int, seed: int) -> Tensor:
    """Uniform ordered subsets; fewer where factorising so many matrices [M, M] would take too long."""
    number = max(1, min(number, _WORK // dim**3))
    keys = torch.rand(number, size, generator=generator(seed, size, count))
    return keys.topk(count).indices
