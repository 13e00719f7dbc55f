"""Means over positions and their standard errors, where positions of one document are not independent."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor


class DocumentSums:
    """Sums and counts of quantities by document, from which means and errors follow; NaN is no value.

    For a ratio of sums over documents d, se^2 = sum_d (s_d - n_d mean)^2 / (sum_d n_d)^2. Positions whose document is
    not said are each one of its own.

    Example:
        >>> import torch
        >>> sums = DocumentSums(["nll"])
        >>> sums.add(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), torch.tensor([7, 7, 9, 9]))
        >>> sums.mean("nll"), sums.standard_error("nll")
        (2.0, 0.0)
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.documents = torch.empty(0, dtype=torch.long)
        self.sums = torch.zeros(0, 2, len(self.names), dtype=torch.float64)  # by document: values, counts
        self.single = torch.zeros(3, len(self.names), dtype=torch.float64)  # values, squares, counts

    def add(self, values: Tensor, documents: Tensor | None = None) -> None:
        """Values [Q, n] of n positions, and the number of each one's document, [n]."""
        known = ~values.isnan()
        found = values.where(known, 0.0).double().cpu()
        known = known.double().cpu()
        if documents is None:
            self.single += torch.stack([found.sum(1), found.square().sum(1), known.sum(1)])
        else:
            self._merge(documents.cpu(), torch.stack([found.T, known.T], dim=1))

    def merge(self, other: Self) -> None:
        """Add what another one, of a part of the positions, has seen; a document may be in both."""
        self.single += other.single
        self._merge(other.documents, other.sums)

    def _merge(self, documents: Tensor, sums: Tensor) -> None:
        every = torch.cat([self.documents, documents])
        self.documents, place = torch.unique(every, return_inverse=True)
        empty = sums.new_zeros(len(self.documents), *sums.shape[1:])
        self.sums = empty.index_add(0, place, torch.cat([self.sums, sums]))

    def count(self, name: str) -> int:
        """How many positions have a value."""
        place = self.names.index(name)
        return int(self.single[2, place] + self.sums[:, 1, place].sum())

    def mean(self, name: str) -> float:
        """Over all positions that have a value; NaN where none has."""
        place = self.names.index(name)
        total = self.single[0, place] + self.sums[:, 0, place].sum()
        return float(total / (self.single[2, place] + self.sums[:, 1, place].sum()))

    def standard_error(self, name: str) -> float:
        """Of the mean, with documents as the units that are independent; NaN where there are no two."""
        place, mean = self.names.index(name), self.mean(name)
        (values, squares, single), (sums, counts) = self.single[:, place], self.sums[:, :, place].T
        if int(single) + int((counts > 0).sum()) < 2:
            return float("nan")
        alone = squares - 2 * mean * values + mean**2 * single
        between = (sums - counts * mean).square().sum() + alone.clamp(min=0)
        return float(between.sqrt() / (single + counts.sum()))
