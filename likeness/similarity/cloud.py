"""How far apart two clouds of the same n points are, seen from one of them and each difference at unit length.

For points v_i of one cloud and w_i of the other, s_ij = |v_i - v_j| and t_ij = |w_i - w_j|,

    gap(i, j) = max(|v_i / s_ij - w_i / t_ij|, |v_j / s_ij - w_j / t_ij|).

With labels for points, lengths are standard deviations over inputs and the gap is the entry of term 1 of d_LLV
(Nielsen et al. 2025, arXiv 2506.03784, Def 4.4) for pivot i and label j; with inputs for points, the entry of
term 2. It is symmetric in i and j, and unchanged when either cloud is scaled.

The clouds of P models lie in one space, of which each spans a part. Functions take B pairs of them, and do once for
each model what does not concern a pair.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.numerics import power_of_two

Pairs = tuple[Tensor, Tensor]
"""B pairs of models: i [B] and j [B]."""

_BLOCK = {"cpu": 2**17, "cuda": 2**24}  # elements of a temporary: in the CPU's cache, filling the GPU
_EXACT_DIMS = 32  # up to here distances are taken of differences, above from inner products
_NEAR = 0.03  # relative to the points' own lengths: nearer ones are taken of differences in any case
_RESOLUTION = 1e-12  # relative to a point's own length: a difference below it is rounding
_TEMPORARIES = 4  # that a block of rows holds at a time
_PRODUCT_ROWS = 256  # at least, where a block is a matrix product
_SETS_AT_ONCE = 256
_SET_WORK = 2**34  # multiplications that factorising the input sets of an exact search may cost
_MAX_SETS = 2**19  # that an exact search looks at before it answers with the best so far


@dataclass(frozen=True)
class Cloud:
    """n points of each of P models in R dimensions, centred around an offset: size (own @ axes + offset).

    Differences are taken between the centred points, where they are exact; within a model, in its own M dimensions.
    ``size``, a power of two for each model, leaves coordinates whose squares are numbers, whatever the logits' scale;
    all lengths are in units of it unless they say otherwise.
    """

    own: Tensor  # [P, n, M], with zero columns for models with fewer dimensions than M
    axes: Tensor  # [P, M, R], orthonormal rows, and zero ones
    offset: Tensor  # [P, R]
    size: Tensor  # [P]

    @classmethod
    def of_maps(cls, points: Sequence[Tensor], maps: Sequence[Tensor], offset: Tensor) -> Self:
        """Points [n, M_i] through linear maps [R, M_i]."""
        basis, triangle = torch.linalg.qr(padded(maps))
        real = torch.tensor([map_.shape[1] for map_ in maps], device=basis.device)[:, None, None]
        within = torch.arange(basis.shape[2], device=basis.device) < real
        own = padded(points) @ triangle.mT
        size = power_of_two(torch.cat([own.flatten(1), offset], dim=1), dim=1)
        return cls(own / size[..., None], (basis * within).mT.contiguous(), offset / size, size.squeeze(1))

    def __len__(self) -> int:
        return self.own.shape[1]

    @property
    def num_models(self) -> int:
        """P."""
        return len(self.own)

    @property
    def width(self) -> int:
        """R."""
        return self.axes.shape[2]

    def of_models(self, models: Sequence[int]) -> "Cloud":
        """The points of these models alone."""
        index = list(models)
        return Cloud(self.own[index], self.axes[index], self.offset[index], self.size[index])

    def centred(self, rows: slice) -> Tensor:
        """[P, rows, R]."""
        return self.own[:, rows] @ self.axes

    def points(self, rows: slice) -> Tensor:
        """[P, rows, R]."""
        return self.centred(rows) + self.offset[:, None]

    def take(self, models: Tensor, index: Tensor | slice) -> Tensor:
        """Centred points [B, m, R] of the models [B] at their positions [B, m], or at the same ones."""
        rows = models if isinstance(index, slice) else models[:, None]
        return self.own[rows, index] @ self.axes[models]

    def blocks(self, width: int, least: int = 1) -> Iterator[slice]:
        """All rows, in slices of as many as make temporaries of ``width`` elements a row the best size."""
        return blocks(len(self), width, self.own.device, least)


def blocks(size: int, width: int, device: torch.device, least: int = 1) -> Iterator[slice]:
    """Slices of ``size`` rows of ``width`` elements, as large as the device works best with or ``least`` rows."""
    step = max(least, _BLOCK.get(device.type, _BLOCK["cpu"]) // width)
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def one_pair(first: int, second: int, device: torch.device) -> Pairs:
    """Two models as the one pair of a batch."""
    return torch.tensor([first], device=device), torch.tensor([second], device=device)


def padded(matrices: Sequence[Tensor]) -> Tensor:
    """[P, n, largest M] of P matrices [n, M_i], with zero columns."""
    width = max(matrix.shape[1] for matrix in matrices)
    return torch.stack([x if x.shape[1] == width else pad(x, (0, width - x.shape[1])) for x in matrices])


class Gaps(NamedTuple):
    """Between pairs of points; the gap is inf where s or t vanishes, as from a point to itself."""

    gap: Tensor
    first: Tensor  # s, not in units of its cloud's size
    second: Tensor  # t


class _Points(NamedTuple):
    """Of the points of B pairs of clouds, each cloud scaled to unit mean square; [B, n]."""

    first: Tensor  # |v|^2
    second: Tensor  # |w|^2
    difference: Tensor  # |v - w|^2

    def map(self, function: Callable[[Tensor], Tensor]) -> "_Points":
        return _Points(*map(function, self))


class _Clouds(NamedTuple):
    """Of P clouds."""

    scale: Tensor  # [P, 1] root mean square length of the points
    resolved: Tensor  # [P, n] lengths of differences from the point that can be told from zero

    def inverse(self, distances: Tensor, resolved: Tensor) -> Tensor:
        """Of distances [P, ...] at unit scale, inf where they cannot be told from zero."""
        scale = self.scale.view(-1, *[1] * (distances.dim() - 1))
        return (scale / distances).masked_fill(distances <= resolved, torch.inf)


def gaps_from(cloud: Cloud, pairs: Pairs, pivot: Tensor) -> Gaps:
    """From the pivots [B] to all points, [B, n]."""
    clouds, points = _summarised(cloud, pairs)
    distances, inverses = [], []
    for index in pairs:
        ours = _Clouds(*(field[index] for field in clouds))
        distances.append(torch.linalg.vector_norm(cloud.own[index] - cloud.own[index, pivot][:, None], dim=-1))
        inverses.append(ours.inverse(distances[-1], ours.resolved.gather(1, pivot[:, None])))
    at_pivot = points.map(lambda field: field.gather(1, pivot[:, None]))
    sizes = (cloud.size[index][:, None] for index in pairs)
    return Gaps(_gaps(at_pivot, points, *inverses), *(s * size for s, size in zip(distances, sizes, strict=True)))


class GapRows:
    """The gaps between all pairs of n points for B pairs of clouds, by rows; inf as in :class:`Gaps`."""

    def __init__(self, cloud: Cloud, pairs: Pairs) -> None:
        self._cloud, self._pairs = cloud, pairs
        self._exact = cloud.own.shape[2] <= _EXACT_DIMS
        self._clouds, self._points = _summarised(cloud, pairs)
        self._columns = self._points.map(lambda field: field[:, None])

    def rows(self, rows: slice | Tensor) -> Tensor:
        """[B, rows, n]."""
        distances = self._distances(rows)
        inverses = self._clouds.inverse(distances, self._clouds.resolved[:, rows, None])
        at_rows = self._points.map(lambda field: field[:, rows, None])
        return _gaps(at_rows, self._columns, *(_of_models(inverses, index) for index in self._pairs))

    def _distances(self, rows: slice | Tensor) -> Tensor:
        """[P, rows, n] within each cloud. Inner products lose the digits of near points: these are subtracted."""
        own = self._cloud.own
        mode = "donot_use_mm_for_euclid_dist" if self._exact else "use_mm_for_euclid_dist"
        distances = torch.cdist(own[:, rows], own, compute_mode=mode)
        if not self._exact:
            near = (distances < _NEAR / _RESOLUTION * self._clouds.resolved[:, rows, None]).nonzero()
            for model, row, column in (part.unbind(1) for part in torch.split(near, _BLOCK["cpu"])):
                differences = own[:, rows][model, row] - own[model, column]
                distances[model, row, column] = torch.linalg.vector_norm(differences, dim=-1)
        return distances

    def blocks(self) -> Iterator[slice]:
        """All rows, in blocks of a good size."""
        width = len(self._cloud) * max(self._cloud.num_models, len(self._pairs[0]))
        return self._cloud.blocks(_TEMPORARIES * width, 1 if self._exact else _PRODUCT_ROWS)


def gaps_in_sets(cloud: Cloud, pairs: Pairs, size: int) -> Gaps:
    """Of S sets of ``size`` points, from the first point of each to its others, [B, size - 1, S].

    The cloud has the first points of all sets, then their second ones, and so on.
    """
    clouds, points = _summarised(cloud, pairs)
    sets = points.map(lambda field: field.view(len(field), size, -1))
    own = cloud.own.view(cloud.num_models, size, -1, cloud.own.shape[2])
    distances = torch.linalg.vector_norm(own[:, 1:] - own[:, :1], dim=-1)
    inverses = clouds.inverse(distances, clouds.resolved.view(cloud.num_models, size, -1)[:, :1])
    at_pivot, others = sets.map(lambda field: field[:, :1]), sets.map(lambda field: field[:, 1:])
    gaps = _gaps(at_pivot, others, *(_of_models(inverses, index) for index in pairs))
    sizes = cloud.size[:, None, None]
    return Gaps(gaps, *(_of_models(distances * sizes, index) for index in pairs))


def _summarised(cloud: Cloud, pairs: Pairs) -> tuple[_Clouds, _Points]:
    lengths = torch.linalg.vector_norm(cloud.own, dim=-1)
    scale = (lengths.square().mean(1, keepdim=True) + cloud.offset.square().sum(1, keepdim=True)).sqrt()
    scale = scale.where(scale > 0, 1.0)
    squares, differences = [], []
    for rows in cloud.blocks(cloud.num_models * max(cloud.num_models, cloud.width)):
        points = cloud.points(rows) / scale[..., None]
        squares.append(points.square().sum(-1))
        across = points.transpose(0, 1).contiguous()
        between = torch.cdist(across, across, compute_mode="donot_use_mm_for_euclid_dist")
        differences.append(between[:, pairs[0], pairs[1]].square().T)
    first, second = (torch.cat(squares, dim=1)[index] for index in pairs)
    points_of_pairs = _Points(first, second, torch.cat(differences, dim=1))
    return _Clouds(scale, _RESOLUTION * lengths), points_of_pairs


def _gaps(a: _Points, b: _Points, x: Tensor, y: Tensor) -> Tensor:
    """Between points a and b (broadcast), with x = 1 / s and y = 1 / t.

    |x v - y w|^2 = (x - y) (x |v|^2 - y |w|^2) + x y |v - w|^2: every difference is of things that are equal in
    equal clouds, where the textbook form would leave 1e-8 of the gap.
    """
    difference, product = x - y, x * y
    squares = [torch.addcmul(product * p.difference, x * p.first - y * p.second, difference) for p in (a, b)]
    return torch.maximum(*squares).clamp_(min=0).sqrt_().masked_fill_(product.isinf(), torch.inf)


def _of_models(values: Tensor, models: Tensor) -> Tensor:
    """Of the models [B]; of a single one without a copy."""
    return values[models] if len(models) > 1 else values.narrow(0, int(models), 1)


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
