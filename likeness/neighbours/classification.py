"""Classification by the labels of the k nearest neighbours: what a reduction of hubness should improve.

Leave-one-out, on queries of their own, and with k chosen by cross-validation as Nielsen & Hansen 2024
(arXiv 2311.18364) do. Neighbours are found once, by any distance, and classified here.

Whether two classifiers of the same queries differ by more than chance: McNemar's exact test.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from likeness.checks import require_one_of
from likeness.neighbours.exact import Neighbours

TieRule = Literal["nearest", "lowest"]
"""Of classes with equally many votes: that of the nearest neighbour among theirs, or the lowest label."""
Weights = Literal["uniform", "distance"]
"""One vote each, or 1 / distance; where neighbours lie at distance 0, they alone vote, with one vote each."""

_BLOCK = 2**22  # pairs of neighbours whose labels are compared at a time


@dataclass(frozen=True, eq=False)
class KnnScore:
    """How many of m queries the vote of their k neighbours classifies wrongly."""

    k: int
    correct: Tensor  # [m] bool

    @property
    def error(self) -> float:
        """Share of queries that are classified wrongly."""
        return 1 - int(self.correct.sum()) / len(self.correct)

    @property
    def margin(self) -> float:
        """Half of the error's 95 % interval, 1.96 sqrt(e (1 - e) / m), for one set; :func:`mcnemar` compares two."""
        return 1.96 * math.sqrt(self.error * (1 - self.error) / len(self.correct))


@dataclass(frozen=True, eq=False)
class KnnChoice:
    """Mean accuracy over the folds for every k that was tried, and how the best of them classifies all points.

    The best is the smallest k of the largest mean accuracy. Its error is optimistic by the choice: it tells reductions
    apart, but what is to be reported is measured on other queries.
    """

    ks: tuple[int, ...]
    accuracies: tuple[float, ...]
    best: KnnScore


def knn_score(
    neighbours: Neighbours,
    labels: Tensor | ArrayLike,
    k: int = 10,
    *,
    query_labels: Tensor | ArrayLike | None = None,
    ties: TieRule = "nearest",
    weights: Weights = "uniform",
) -> KnnScore:
    """Classify queries by their k nearest index points.

    Args:
        neighbours: lists [m, k] or wider, nearest first. Leave-one-out, they are those of the index points themselves,
            none of them in its own list.
        labels: [n] of the index, of any kind.
        query_labels: [m]; None for leave-one-out.
        ties, weights: see :data:`TieRule` and :data:`Weights`.

    Raises ValueError for sizes that do not fit, a point in its own list, and weights of distances below 0 or NaN.

    Example:
        >>> import torch
        >>> from likeness import nearest_neighbours
        >>> points = torch.tensor([[0.0], [1.0], [1.5], [9.0]])
        >>> knn_score(nearest_neighbours(points, k=1), ["a", "a", "a", "b"], k=1).error
        0.25
    """
    numbers, wanted = _numbered(labels, query_labels)
    _require_lists(neighbours, len(numbers), len(wanted), k, own=query_labels is None)
    nearest = Neighbours(neighbours.distances[:, :k].cpu(), neighbours.ids[:, :k].cpu())
    return KnnScore(k, _votes(numbers[nearest.ids], _vote_weights(nearest.distances, weights), ties) == wanted)


def choose_k(
    neighbours: Neighbours,
    labels: Tensor | ArrayLike,
    ks: Sequence[int] = range(2, 20),
    *,
    folds: int = 10,
    seed: int = 0,
    ties: TieRule = "nearest",
    weights: Weights = "uniform",
) -> KnnChoice:
    """Try every k by stratified cross-validation: each point is classified by points of the other folds.

    ``neighbours`` [n, K] are those of the index points, none in its own list, ``labels`` [n] theirs. Points of the
    same fold are struck from the lists, so K must be well above the largest k: 40 is enough for k < 20 and ten folds.
    scikit-learn deals the folds, shuffled by ``seed``. Raises ValueError where a list becomes too short, where there
    are fewer than two folds or more than any class has points, and as :func:`knn_score` does.
    """
    from sklearn.model_selection import StratifiedKFold

    numbers, _ = _numbered(labels, None)
    if not ks:
        raise ValueError("ks must name at least one k to try, got none")
    largest = int(torch.bincount(numbers).max())
    if not 2 <= folds <= largest:
        raise ValueError(f"folds must be at least 2 and at most {largest}, the largest class's points, got {folds}")
    _require_lists(neighbours, len(numbers), len(numbers), max(ks), own=True)
    fold = torch.empty_like(numbers)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(numbers)), numbers.numpy())
    for number, (_, held_out) in enumerate(splits):
        fold[torch.from_numpy(held_out)] = number
    nearest = _of_other_folds(neighbours, fold, max(ks))
    scores = [knn_score(nearest, numbers, k, ties=ties, weights=weights) for k in ks]
    accuracies = tuple(_mean_accuracy(score.correct, fold, folds) for score in scores)
    return KnnChoice(tuple(ks), accuracies, scores[_best(ks, accuracies)])


def _best(ks: Sequence[int], accuracies: Sequence[float]) -> int:
    return min(range(len(ks)), key=lambda position: (-accuracies[position], ks[position]))


def _mean_accuracy(correct: Tensor, fold: Tensor, folds: int) -> float:
    sizes = torch.bincount(fold, minlength=folds)
    right = torch.bincount(fold, correct.double(), minlength=folds)
    return float((right / sizes).mean())


def _of_other_folds(neighbours: Neighbours, fold: Tensor, k: int) -> Neighbours:
    """The k nearest of each list [n, K] that are of another fold than the point itself."""
    ids = neighbours.ids.cpu()
    same = fold[ids] == fold[:, None]
    short = ((~same).sum(1) < k).nonzero().flatten()
    if len(short):
        raise ValueError(
            f"of the {ids.shape[1]} neighbours of point {int(short[0])} fewer than {k} are of other folds, "
            f"as for {len(short)} points: give longer lists"
        )
    order = same.byte().sort(dim=1, stable=True).indices[:, :k]
    return Neighbours(neighbours.distances.cpu().gather(1, order), ids.gather(1, order))


def _votes(labels: Tensor, weights: Tensor, ties: TieRule) -> Tensor:
    """The winning label [m] from those of the neighbours [m, k], nearest first, and the weights of their votes."""
    require_one_of(ties, get_args(TieRule), "ties")
    winners = []
    for rows in _blocks(*labels.shape):
        label, weight = labels[rows], weights[rows]
        votes = ((label[:, :, None] == label[:, None]) * weight[:, None]).sum(2)  # for each neighbour's label
        first = votes == votes.amax(1, keepdim=True)
        if ties == "lowest":
            winners.append(label.masked_fill(~first, torch.iinfo(label.dtype).max).amin(1))
        else:
            winners.append(label.gather(1, first.byte().argmax(1, keepdim=True))[:, 0])
    return torch.cat(winners)


def _blocks(m: int, k: int) -> Iterator[slice]:
    size = max(1, _BLOCK // k**2)
    return (slice(start, start + size) for start in range(0, m, size))


def _vote_weights(distances: Tensor, weights: Weights) -> Tensor:
    """The weight [m, k] of each neighbour's vote, in float64."""
    require_one_of(weights, get_args(Weights), "weights")
    distances = distances.double()
    if weights == "uniform":
        return torch.ones_like(distances)
    bad = ~(distances >= 0)
    if bool(bad.any()):
        row = int(bad.any(1).nonzero()[0])
        raise ValueError(
            f"votes of weight 1 / distance need distances >= 0: query {row} has {distances[row][bad[row]][0]}"
        )
    zero = distances == 0
    return torch.where(zero.any(1, keepdim=True), zero.double(), 1 / distances)


def _numbered(labels: Tensor | ArrayLike, query_labels: Tensor | ArrayLike | None) -> tuple[Tensor, Tensor]:
    """Labels of any kind as numbers in their order, of the index [n] and of queries [m]; one of the two without."""
    arrays = [np.asarray(x.cpu() if isinstance(x, Tensor) else x) for x in (labels, query_labels) if x is not None]
    if any(array.ndim != 1 for array in arrays):
        raise ValueError(f"labels must be one for each point, got {[list(array.shape) for array in arrays]}")
    numbers = torch.from_numpy(np.unique(np.concatenate(arrays), return_inverse=True)[1])
    return numbers[: len(arrays[0])], numbers[-len(arrays[-1]) :]


def _require_lists(neighbours: Neighbours, n: int, m: int, k: int, own: bool) -> None:
    ids = neighbours.ids
    if ids.ndim != 2 or len(ids) != m or not 1 <= k <= ids.shape[1]:
        raise ValueError(f"k is {k} and there are {m} query labels, but the lists of neighbours are {list(ids.shape)}")
    if int(ids.min()) < 0 or int(ids.max()) >= n:
        raise ValueError(f"neighbours {int(ids.min())} to {int(ids.max())} need as many labels, but there are {n}")
    listed = (ids == torch.arange(m, device=ids.device)[:, None]).any(1) if own else ids.new_zeros(1)
    if bool(listed.any()):
        raise ValueError(
            f"point {int(listed.byte().argmax())} is its own neighbour: leave-one-out lists must not hold it"
        )


Verdict = Literal["better", "worse", "not significant", "too few to tell"]


@dataclass(frozen=True)
class McNemar:
    """The queries on which only one of two classifiers is right, and how surprising their split is under a fair coin.

    McNemar 1947. Such a split cannot be significant where there are so few of these queries that even all on one side
    are likely enough: below 6 at the level of 5 %, where 2 / 2^5 is 0.0625.
    """

    baseline_only: int  # b
    other_only: int  # c
    level: float = 0.05

    @property
    def p(self) -> float:
        """Two-sided and exact: 2 P(Binomial(b + c, 1/2) <= min(b, c)), at most 1."""
        from scipy.stats import binomtest

        discordant = self.baseline_only + self.other_only
        return float(binomtest(self.other_only, discordant).pvalue) if discordant else 1.0

    @property
    def possible(self) -> bool:
        """Whether any split of as many queries would be significant."""
        return 2.0 ** (1 - self.baseline_only - self.other_only) <= self.level

    @property
    def significant(self) -> bool:
        """Whether p is at most the level."""
        return self.p <= self.level

    @property
    def verdict(self) -> Verdict:
        """Of the other classifier against the baseline."""
        if not self.possible:
            return "too few to tell"
        if not self.significant:
            return "not significant"
        return "better" if self.other_only > self.baseline_only else "worse"


def mcnemar(baseline: Tensor, other: Tensor, level: float = 0.05) -> McNemar:
    """Compare two classifiers by whether they are right, bool [m], on the same queries in the same order.

    Raises ValueError if the shapes differ.
    """
    if baseline.shape != other.shape:
        raise ValueError(
            f"both must be right or wrong on the same queries, got {[*baseline.shape]} and {[*other.shape]}"
        )
    return McNemar(int((baseline & ~other).sum()), int((~baseline & other).sum()), level)
