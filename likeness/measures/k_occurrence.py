"""How often each point is among the k nearest neighbours of others, and the histogram that says so of many shards."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def k_occurrence(ids: Tensor, n: int) -> Tensor:
    """N [n] int64: in how many of the lists of neighbours ids [m, k] each of n points stands; the sum is k m.

    Counts of disjoint sets of queries add. Raises as :func:`require_neighbour_ids` does.
    """
    require_neighbour_ids(ids, n)
    return torch.bincount(ids.flatten().long(), minlength=n)


def bad_k_occurrence(ids: Tensor, labels: Tensor, query_labels: Tensor | None = None) -> Tensor:
    """BN [n] int64: how many queries with another label than its own have the point among their neighbours.

    ids: [m, k]; labels: [n] of the points; query_labels: [m], by default those of the points, which then ask
    themselves (m = n). Radovanovic et al. 2010, JMLR 11, who call the sum over k m bad hubness.
    """
    asked_by = labels if query_labels is None else query_labels
    if len(asked_by) != len(ids):
        raise ValueError(f"{len(ids)} lists of neighbours need as many queries' labels, got {len(asked_by)}")
    require_neighbour_ids(ids, len(labels))
    return torch.bincount(ids[labels[ids.long()] != asked_by[:, None]].long(), minlength=len(labels))


def asymmetry(ids: Tensor) -> float:
    """Share of the edges i -> j, from n points to their neighbours ids [n, k], without the edge j -> i.

    0 if all neighbours are mutual; 1 - k / (n - 1) if they are drawn at random. A point in its own list is a mutual
    edge.
    """
    n = len(ids)
    require_neighbour_ids(ids, n)
    targets = ids.long()
    sources = torch.arange(n, device=ids.device)[:, None].expand_as(targets)
    mutual = torch.isin(targets * n + sources, sources * n + targets, assume_unique=True)
    return 1 - int(mutual.sum()) / ids.numel()


def count_histogram(counts: Tensor) -> Tensor:
    """h [max N + 1] int64: h[c] points have N = c, from the counts N [n].

    All indices but asymmetry and bad occurrence are functions of h, which adds over disjoint shards of the index.
    """
    if bool((counts < 0).any()):
        raise ValueError(f"counts must not be negative, got {int(counts.min())}")
    return torch.bincount(counts.long())


def merge_histograms(histograms: Sequence[Tensor]) -> Tensor:
    """The histogram of counts over all of S shards of the index, from each one's (:func:`count_histogram`)."""
    size = max(len(histogram) for histogram in histograms)
    return torch.stack([pad(histogram, (0, size - len(histogram))) for histogram in histograms]).sum(0)


def require_neighbour_ids(ids: Tensor, n: int) -> None:
    """Raise ValueError unless ids [m, k] are lists of k different ones of n points; TypeError if no integers."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"neighbours are named by integers, got ids of {ids.dtype}")
    if ids.ndim != 2 or not ids.numel():
        raise ValueError(f"ids of neighbours must be [m, k] with m and k at least 1, got {list(ids.shape)}")
    outside = (ids < 0) | (ids >= n)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(f"ids[{row}, {column}] is {int(ids[row, column])}, which is none of the points 0 to {n - 1}")
    ordered = ids.sort(dim=1).values
    repeated = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if bool(repeated.any()):
        row = int(repeated.nonzero()[0])
        raise ValueError(f"ids[{row}] names one point twice: {ids[row].tolist()}")
