"""Sets of inputs, a pivot and M others, whose differences in f are well conditioned in every model."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_SETS_AT_ONCE = 256
_SET_WORK = 2**34  # multiplications that factorising the input sets of an exact search may cost
_MAX_SETS = 2**19  # that an exact search looks at before it answers with the best so far


def sample_input_sets(samples: int, size: int, num_sets: int, seed: int) -> Tensor:
    """Disjoint random sets [num_sets, size] of the positions 0..samples-1, as the paper's code draws them.

    The stream is NumPy's legacy one, so that ``seed`` is that code's ``np.random.seed``. Raises ValueError for
    fewer than ``size * num_sets`` samples.
    """
    if samples < size * num_sets:
        raise ValueError(
            f"{num_sets} disjoint sets of {size} inputs need {num_sets * size} samples, but there are {samples}"
        )
    return torch.from_numpy(np.random.RandomState(seed).choice(samples, (num_sets, size), replace=False))


def conditioning_of(points: Tensor) -> Tensor:
    """The smallest singular value over the largest, [S], of points [S, m + 1, M] less their first ones."""
    singular = torch.linalg.svdvals(points[:, 1:] - points[:, :1])
    largest = singular[:, 0]
    ratio: Tensor = singular[:, -1] / largest.where(largest > 0, 1.0)
    return ratio


class RegularSets:
    """Input sets, of as many as the smallest M and a pivot, whose differences are well conditioned in every model.

    Adding an input never raises the relative smallest singular value: what fails with some fails with more.
    """

    def __init__(self, embeddings: Sequence[Tensor], min_conditioning: float) -> None:
        self.embeddings, self.min_conditioning = embeddings, min_conditioning
        self.size, self.bounded = min(f.shape[1] for f in embeddings), False
        self.left = min(_MAX_SETS, _SET_WORK // self.size**3)

    def nearest(self, pivot: int, order: Tensor) -> Tensor | None:
        """The pivot and M inputs of the order, the farthest of which comes as early as it can, [M + 1]; or None.

        Where the search is broken off before it has found a set, one that Gram-Schmidt finds stands in.
        """
        alone = order.new_tensor([pivot])
        found = self._first(alone, order)
        if found is None:
            return self._independent(alone, order) if self.bounded else None
        farthest = int((order == found[-1]).nonzero())
        for last in range(self.size - 1, farthest):
            if self._exhausted():
                break
            better = self._first(torch.cat([alone, order[last : last + 1]]), order[:last])
            if better is not None:
                return better
        return found

    def _first(self, chosen: Tensor, candidates: Tensor) -> Tensor | None:
        """The first regular set that adds candidates, in their order, to those chosen."""
        missing = self.size + 1 - len(chosen)
        if missing > len(candidates):
            return None
        whole = torch.cat([chosen, candidates[:missing]])
        if bool(self._regular(whole[None])):
            return whole
        for start in range(0, len(candidates), _SETS_AT_ONCE) if missing else ():
            if self._exhausted():
                return None
            trial = candidates[start : start + _SETS_AT_ONCE]
            sets = torch.cat([chosen.expand(len(trial), -1), trial[:, None]], dim=1)
            for position in self._regular(sets).nonzero().flatten().tolist():
                found = self._first(sets[position], candidates[start + position + 1 :])
                if found is not None or self._exhausted():
                    return found
        return None

    def _independent(self, alone: Tensor, order: Tensor) -> Tensor | None:
        """The pivot and M inputs of the order, without those that are too near to the span of the ones before them."""
        distance = self.min_conditioning
        while distance < 1:
            chosen = self._spanning(int(alone[0]), order, distance)
            if chosen is None or bool(self._regular(whole := torch.cat([alone, chosen])[None])):
                return None if chosen is None else whole[0]
            distance *= 10
        return None

    def _spanning(self, pivot: int, order: Tensor, distance: float) -> Tensor | None:
        """The first M inputs whose differences are farther from the span of the others than this share of their length.

        In every model; None where there are fewer.
        """
        bases = [f.new_zeros(self.size, f.shape[1]) for f in self.embeddings]
        chosen: list[int] = []
        for candidate in order.tolist():
            rests = []
            for f, basis in zip(self.embeddings, bases, strict=True):
                rest = difference = f[candidate] - f[pivot]
                for _ in range(2):  # once more, for what rounding left
                    rest = rest - (basis[: len(chosen)] @ rest) @ basis[: len(chosen)]
                if not bool(rest.norm() > distance * difference.norm()):
                    break
                rests.append(rest / rest.norm())
            if len(rests) < len(bases):
                continue
            for basis, rest in zip(bases, rests, strict=True):
                basis[len(chosen)] = rest
            chosen.append(candidate)
            if len(chosen) == self.size:
                return order.new_tensor(chosen)
        return None

    def _regular(self, sets: Tensor) -> Tensor:
        self.left -= len(sets)
        return torch.stack([conditioning_of(f[sets]) >= self.min_conditioning for f in self.embeddings]).all(0)

    def _exhausted(self) -> bool:
        self.bounded |= self.left <= 0
        return self.bounded
