"""The k smallest entries of each row of a matrix, equal ones in the order of their columns."""

import torch
from torch import Tensor

_SMALLEST_GROUP = 8  # below which the whole row is searched as fast


def smallest(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns [r, k] of the k <= c smallest entries of each row of a tile [r, c], without NaN.

    Sorted by (value, column), and chosen by it as well where the k-th value occurs more often than it fits.
    """
    columns = tile.shape[1]
    values, chosen = _unordered(tile, min(k + 1, columns))
    if k < columns:
        tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
        values, chosen = values[:, :k], chosen[:, :k]
        if len(tied):
            chosen[tied] = _with_first_ties(tile[tied], values[tied], chosen[tied])
    chosen, order = chosen.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, stable=True)
    return values, chosen.gather(1, order)


def _with_first_ties(tile: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Columns [r, k] in which those of the largest of the ascending values are the first that hold it."""
    k, last = values.shape[1], values[:, -1:]
    below = (values < last).sum(1, keepdim=True)
    numbers = torch.arange(tile.shape[1], dtype=torch.int32, device=tile.device)
    first = _unordered(torch.where(tile == last, numbers, tile.shape[1]), k)[0].long()
    slots = torch.arange(k, device=tile.device) - below
    return torch.where(slots < 0, chosen, first.gather(1, slots.clamp(min=0)))


def _unordered(tile: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries [r, k] of each row and their columns, ascending; any of those that tie with the last.

    The k smallest lie in the k groups of columns with the smallest minima. One vectorised pass finds these minima,
    so that the search itself reads a small part of the row.
    """
    rows, columns = tile.shape
    size = int((columns / k) ** 0.5)  # of a group: as many minima to search as members of the best groups
    if size < _SMALLEST_GROUP:
        values, order = tile.topk(k, dim=1, largest=False)
        return values, order
    groups = columns // size
    minima = tile[:, : groups * size].view(rows, size, groups).amin(1)
    best = minima.topk(k, dim=1, largest=False, sorted=False).indices
    members = torch.arange(0, groups * size, groups, device=tile.device)
    rest = torch.arange(groups * size, columns, device=tile.device)
    candidates = torch.cat([(best[:, None] + members[:, None]).flatten(1), rest.expand(rows, -1)], dim=1)
    values, order = tile.gather(1, candidates).topk(k, dim=1, largest=False)
    return values, candidates.gather(1, order)
