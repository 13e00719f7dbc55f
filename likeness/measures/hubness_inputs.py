"""What hubness is measured on: index points, queries, their labels, and lists of neighbours that others found."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likeness.measures.embedding_checks import dimension_warnings, row_warnings
from likeness.measures.neighbours import DistanceName, Neighbours, nearest_neighbours
from likeness.measures.points import as_points, as_tensor


@dataclass(frozen=True, eq=False)
class HubnessInputs:
    """Index points, and queries where these are others than the points; both finite and of one width, d."""

    index: Tensor  # [n, d]
    queries: Tensor | None  # [m, d]
    labels: Tensor | None  # [n] numbers 0, 1, ...
    query_labels: Tensor | None  # [m]

    @classmethod
    def of(
        cls,
        embeddings: Tensor | ArrayLike,
        queries: Tensor | ArrayLike | None,
        labels: Tensor | ArrayLike | None,
        query_labels: Tensor | ArrayLike | None,
    ) -> Self:
        """Tensors on the embeddings' device. Raises ValueError where rows or sizes are wrong."""
        index = as_points(embeddings, "embeddings")
        if queries is None:
            if query_labels is not None:
                raise ValueError("query_labels belong to queries, of which there are none")
            numbers = _numbered({"labels": (labels, len(index))}, index.device)
            return cls(index, None, *(numbers * 2))
        asked = as_points(queries, "queries").to(index.device)
        if asked.shape[1] != index.shape[1]:
            raise ValueError(f"queries have {asked.shape[1]} dimensions, but the embeddings {index.shape[1]}")
        dtype = torch.promote_types(index.dtype, asked.dtype)
        both = {"labels": (labels, len(index)), "query_labels": (query_labels, len(asked))}
        return cls(index.to(dtype), asked.to(dtype), *_numbered(both, index.device))

    @property
    def num_queries(self) -> int:
        """m."""
        return len(self.index if self.queries is None else self.queries)

    def warnings(self, metric: str) -> tuple[str, ...]:
        """What is suspicious of the rows; raises ValueError for rows of zeros under the cosine."""
        found = row_warnings(self.index, "embeddings", metric) + dimension_warnings(self.index, "embeddings")
        if self.queries is None:
            return tuple(found)
        if torch.equal(self.queries, self.index):
            found.append("queries equal the embeddings, so that each is its own neighbour; leave them out")
        return (*found, *row_warnings(self.queries, "queries", metric))

    def search(self, chosen: Tensor, k: int, metric: DistanceName, include_self: bool) -> Tensor:
        """Ids [s, k] of the neighbours of the queries at the positions ``chosen`` [s]."""
        if len(chosen) == self.num_queries:
            return nearest_neighbours(self.index, k, metric=metric, queries=self.queries, include_self=include_self).ids
        if self.queries is not None:
            return nearest_neighbours(self.index, k, metric=metric, queries=self.queries[chosen]).ids
        # One neighbour more, because each of these points may find itself.
        ids = nearest_neighbours(self.index, k + 1, metric=metric, queries=self.index[chosen]).ids
        last = (ids == chosen[:, None]).to(torch.uint8).sort(dim=1, stable=True).indices
        return ids.gather(1, last)[:, :k]


def nearest_ids(neighbours: Neighbours | Tensor | ArrayLike, queries: int, k: int) -> Tensor:
    """The first k ids [m, k] of given lists, sorted by distance if they come with distances that are not.

    Raises ValueError unless there is a list for each of m queries, of at least k. The caller's tensors stay as they
    are.
    """
    ids = neighbours.ids if isinstance(neighbours, Neighbours) else as_tensor(neighbours)
    if ids.ndim != 2 or len(ids) != queries or ids.shape[1] < k:
        raise ValueError(f"neighbours of {queries} queries must be [{queries}, {k}] or wider, got {list(ids.shape)}")
    if isinstance(neighbours, Neighbours) and bool((neighbours.distances.diff(dim=1) < 0).any()):
        ids = ids.gather(1, neighbours.distances.argsort(dim=1, stable=True))
    return ids[:, :k]


def _numbered(
    labels: dict[str, tuple[Tensor | ArrayLike | None, int]], device: torch.device
) -> tuple[Tensor | None, ...]:
    """Labels of any kind as numbers 0, 1, ..., the same number for the same label; all of them or none are given."""
    missing = [name for name, (values, _) in labels.items() if values is None]
    if len(missing) == len(labels):
        return (None,) * len(labels)
    if missing:
        raise ValueError(f"bad occurrence needs the labels of points and of queries; {missing[0]} are missing")
    arrays = [_label_array(name, values, size) for name, (values, size) in labels.items()]
    numbers = np.unique(np.concatenate(arrays), return_inverse=True)[1]
    return torch.split(torch.as_tensor(numbers, device=device), [len(array) for array in arrays])


def _label_array(name: str, values: Tensor | ArrayLike | None, size: int) -> np.ndarray:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.shape != (size,):
        raise ValueError(f"{name} must be [{size}], one for each row, got {list(array.shape)}")
    return array
