"""How far apart two clouds of the same n points are, seen from one of them and each difference at unit length.

For points v_i of one cloud and w_i of the other, s_ij = |v_i - v_j| and t_ij = |w_i - w_j|,

    gap(i, j) = max(|v_i / s_ij - w_i / t_ij|, |v_j / s_ij - w_j / t_ij|).

With labels for points, lengths are standard deviations over inputs and the gap is the entry of term 1 of d_LLV
(Nielsen et al. 2025, arXiv 2506.03784, Def 4.4) for pivot i and label j; with inputs for points, the entry of
term 2. It is symmetric in i and j, and unchanged when either cloud is scaled.

The clouds of P models lie in one space, of which each spans a part. Functions take B pairs of them, and do once for
each model what does not concern a pair.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from likeness.numerics import power_of_two, triangle

Pairs = tuple[Tensor, Tensor]
"""B pairs of models: i [B] and j [B]."""

_BLOCK = {"cpu": 2**17, "cuda": 2**24}  # elements of a temporary: in the CPU's cache, filling the GPU
_EXACT_DIMS = 32  # up to here distances are taken of differences, above from inner products
_NEAR = 0.03  # relative to the points' own lengths: nearer ones are taken of differences in any case
_RESOLUTION = 1e-12  # relative to a point's own length: a difference below it is rounding
_TEMPORARIES = 4  # that a block of rows holds at a time
_PRODUCT_ROWS = 256  # at least, where a block is a matrix product
_PRODUCT_COLUMNS = 512
_PAIR_ELEMENTS = 2**23  # of the axes of pairs that are looked at together


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
    summaries: "dict[tuple[int, ...], Summary]" = field(default_factory=dict, repr=False)  # of pairs asked about

    @classmethod
    def of_maps(cls, points: Iterable[Tensor], maps: Sequence[Tensor], offset: Tensor) -> Self:
        """Points [n, M_i] through linear maps [R, M_i]; the points are asked for one model at a time."""
        basis, factors = torch.linalg.qr(padded(maps))
        real = torch.tensor([map_.shape[1] for map_ in maps], device=basis.device)[:, None, None]
        within = torch.arange(basis.shape[2], device=basis.device) < real
        own = basis.new_empty(0)
        for number, (x, map_, factor) in enumerate(zip(points, maps, factors, strict=True)):
            if not number:
                own = basis.new_empty(len(maps), len(x), len(factor))
            torch.matmul(x, factor[:, : map_.shape[1]].T, out=own[number])
        largest = torch.stack([power_of_two(own, (1, 2)).flatten(), power_of_two(offset, 1).flatten()]).amax(0)
        own /= largest[:, None, None]
        return cls(own, (basis * within).mT.contiguous(), offset / largest[:, None], largest)

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

    def at(self, index: Tensor) -> "Cloud":
        """Some of the points, in the same coordinates."""
        known = {key: summary.at(index) for key, summary in self.summaries.items()}
        return Cloud(self.own[:, index], self.axes, self.offset, self.size, known)

    def take(self, models: Tensor, index: Tensor | slice) -> Tensor:
        """Centred points [B, m, R] of the models [B] at their positions [B, m], or at the same ones."""
        rows = models if isinstance(index, slice) else models[:, None]
        return self.own[rows, index] @ self.axes[models]

    def differences(self, models: Tensor, pivot: Tensor, index: Tensor) -> Tensor:
        """Points [B, m, M] of the models at their positions [B, m] less those of the pivots [B], by their own axes."""
        return self.own[models[:, None], index] - self.own[models, pivot][:, None]

    def summary(self, pairs: Pairs) -> "Summary":
        """What the gaps of these pairs are made of, computed once."""
        key, turned = (tuple(torch.cat(order).tolist()) for order in (pairs, pairs[::-1]))
        if key not in self.summaries:
            known = self.summaries.get(turned)
            self.summaries[key] = _summarised(self, pairs) if known is None else known.turned()
        return self.summaries[key]

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


class Points(NamedTuple):
    """Of the points of B pairs of clouds, each cloud scaled to unit mean square; [B, n]."""

    first: Tensor  # |v|^2
    second: Tensor  # |w|^2
    difference: Tensor  # |v - w|^2

    def map(self, function: Callable[[Tensor], Tensor]) -> "Points":
        """The same function of each field."""
        return Points(*map(function, self))


class Summary(NamedTuple):
    """Of P clouds, and of the points of B pairs of them."""

    scale: Tensor  # [P] root mean square length of the points
    lengths: Tensor  # [P, n] of the centred points
    points: Points
    centred: Points  # without the offset
    across: Tensor  # [B, M, M] products of the axes of the pair

    def at(self, index: Tensor) -> "Summary":
        """Of some of the points."""
        points, centred = (x.map(lambda field: field[:, index]) for x in (self.points, self.centred))
        return Summary(self.scale, self.lengths[:, index], points, centred, self.across)

    def turned(self) -> "Summary":
        """Of the same pairs with the other cloud first."""
        points, centred = (Points(x.second, x.first, x.difference) for x in (self.points, self.centred))
        return Summary(self.scale, self.lengths, points, centred, self.across.mT)

    def inverse(self, models: Tensor | slice, distances: Tensor, lengths: Tensor) -> Tensor:
        """Of distances [B, ...] from points of such lengths, at unit scale; inf where they cannot be told from zero."""
        scale = self.scale[models].view(-1, *[1] * (distances.dim() - 1))
        return (scale / distances).masked_fill_(distances <= _RESOLUTION * lengths, torch.inf)


def gaps_from(cloud: Cloud, pairs: Pairs, pivot: Tensor) -> Gaps:
    """From the pivots [B] to all points, [B, n]."""
    summary = cloud.summary(pairs)
    distances = [_distances_from(cloud, index, pivot) for index in pairs]
    inverses = [
        summary.inverse(index, s, summary.lengths[index].gather(1, pivot[:, None]))
        for index, s in zip(pairs, distances, strict=True)
    ]
    at_pivot = summary.points.map(lambda field: field.gather(1, pivot[:, None]))
    sizes = (cloud.size[index][:, None] for index in pairs)
    return Gaps(
        _gaps(at_pivot, summary.points, *inverses), *(s * size for s, size in zip(distances, sizes, strict=True))
    )


def _distances_from(cloud: Cloud, models: Tensor, pivot: Tensor) -> Tensor:
    """Of the centred points of the models [B] from their pivots [B], [B, n]."""
    start = cloud.own[models, pivot][:, None]
    parts = [
        torch.linalg.vector_norm(cloud.own[models, rows] - start, dim=-1)
        for rows in cloud.blocks(len(models) * cloud.own.shape[2])
    ]
    return torch.cat(parts, dim=1)


def half_squares_from(cloud: Cloud, pairs: Pairs, pivot: Tensor) -> Tensor:
    """1 - cos between v_y - v_pivot and w_y - w_pivot, [B, n], for pivots [B]; nan where either is zero.

    Half the square of a difference of unit vectors, which is exact for equal clouds, by the identity of :func:`_gaps`.
    """
    summary, at = cloud.summary(pairs), pivot[:, None]
    s, t = (_distances_from(cloud, index, pivot) / summary.scale[index][:, None] for index in pairs)
    v, w = (cloud.own[index, pivot][:, None] / summary.scale[index][:, None, None] for index in pairs)
    direction = (v @ cloud.axes[pairs[0]] - w @ cloud.axes[pairs[1]]).mT  # v - w of the pivot, [B, R, 1]
    along = [
        (cloud.own[index] @ (cloud.axes[index] @ direction)).squeeze(2) / summary.scale[index][:, None]
        for index in pairs
    ]
    squares = summary.centred.difference
    squares = squares + squares.gather(1, at) - 2 * (along[0] - along[1])
    halves = 0.5 * (squares - (s - t).square()).clamp(min=0) / (s * t)
    _take_of_units(halves, cloud, pairs, pivot, (s, t))
    return halves.clamp(max=2).where(s * t > 0, torch.nan)


def _take_of_units(halves: Tensor, cloud: Cloud, pairs: Pairs, pivot: Tensor, distances: tuple[Tensor, Tensor]) -> None:
    """Half of |v - w|^2 of units for points near the pivot, whose squares are lost in the points' own."""
    scales = (cloud.summary(pairs).scale[index][:, None] for index in pairs)
    reach = zip(pairs, distances, scales, strict=True)
    near = [
        length <= _NEAR * torch.linalg.vector_norm(cloud.own[index], dim=-1) / scale for index, length, scale in reach
    ]
    for pair, chosen in enumerate(near[0] | near[1]):
        if len(rows := chosen.nonzero().squeeze(1)):
            units = []
            for index in (of[pair] for of in pairs):
                moved = cloud.own[index, rows] - cloud.own[index, pivot[pair]]
                length = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
                units.append((moved / length.where(length > 0, 1.0)) @ cloud.axes[index])
            halves[pair, rows] = 0.5 * (units[0] - units[1]).square().sum(-1)


class GapRows:
    """The gaps between all pairs of n points for B pairs of clouds, by rows; inf as in :class:`Gaps`."""

    def __init__(self, cloud: Cloud, pairs: Pairs) -> None:
        self._cloud, self._pairs = cloud, pairs
        self._exact = cloud.own.shape[2] <= _EXACT_DIMS
        self._summary = cloud.summary(pairs)
        self._squares = None if self._exact else self._summary.lengths.square()

    def rows(self, rows: slice | Tensor) -> Tensor:
        """[B, rows, n], by tiles that stay in the CPU's cache."""
        at_rows = self._summary.points.map(lambda field: field[:, rows, None])
        found = self._cloud.own.new_empty(len(self._pairs[0]), at_rows.first.shape[1], len(self._cloud))
        least = 1 if self._exact else _PRODUCT_COLUMNS
        for columns in self._cloud.blocks(found.shape[1] * self._cloud.num_models, least):
            inverses = self._inverses(rows, columns)
            at_columns = Points(*(field[:, None, columns] for field in self._summary.points))
            found[..., columns] = _gaps(at_rows, at_columns, *(_of_models(inverses, index) for index in self._pairs))
        return found

    def _inverses(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Of the distances within each cloud, [P, rows, columns].

        Inner products lose the digits of near points: these are subtracted.
        """
        own, lengths = self._cloud.own, self._summary.lengths[:, rows, None]
        if self._squares is None:
            distances = torch.cdist(own[:, rows], own[:, columns], compute_mode="donot_use_mm_for_euclid_dist")
            return self._summary.inverse(slice(None), distances, lengths)
        squares = self._squares[:, rows, None] + self._squares[:, None, columns]
        distances = torch.baddbmm(squares, own[:, rows], own[:, columns].mT, alpha=-2).clamp_(min=0).sqrt_()
        near = distances <= _NEAR * lengths
        if not bool(near.any()):
            return self._summary.scale[:, None, None] / distances
        for model, row, column in (part.unbind(1) for part in torch.split(near.nonzero(), _BLOCK["cpu"])):
            differences = own[:, rows][model, row] - own[:, columns][model, column]
            distances[model, row, column] = torch.linalg.vector_norm(differences, dim=-1)
        return self._summary.inverse(slice(None), distances, lengths)

    def blocks(self) -> Iterator[slice]:
        """All rows, in blocks of a good size."""
        width = len(self._cloud) * max(self._cloud.num_models, len(self._pairs[0]))
        return self._cloud.blocks(_TEMPORARIES * width, 1 if self._exact else _PRODUCT_ROWS)


def gaps_in_sets(cloud: Cloud, pairs: Pairs, size: int) -> Gaps:
    """Of S sets of ``size`` points, from the first point of each to its others, [B, size - 1, S].

    The cloud has the first points of all sets, then their second ones, and so on.
    """
    summary = cloud.summary(pairs)
    sets = summary.points.map(lambda field: field.view(len(field), size, -1))
    own = cloud.own.view(cloud.num_models, size, -1, cloud.own.shape[2])
    distances = torch.linalg.vector_norm(own[:, 1:] - own[:, :1], dim=-1)
    lengths = summary.lengths.view(cloud.num_models, size, -1)[:, :1]
    inverses = summary.inverse(slice(None), distances, lengths)
    at_pivot, others = sets.map(lambda field: field[:, :1]), sets.map(lambda field: field[:, 1:])
    gaps = _gaps(at_pivot, others, *(_of_models(inverses, index) for index in pairs))
    sizes = cloud.size[:, None, None]
    return Gaps(gaps, *(_of_models(distances * sizes, index) for index in pairs))


def _summarised(cloud: Cloud, pairs: Pairs) -> Summary:
    """Lengths by the points' own axes, and differences for as many pairs at once as memory should hold."""
    lengths = torch.linalg.vector_norm(cloud.own, dim=-1)
    offsets = cloud.offset.square().sum(1, keepdim=True)
    scale = (lengths.square().mean(1, keepdim=True) + offsets).sqrt()
    scale = scale.where(scale > 0, 1.0)
    centred = (lengths / scale).square()
    toward = (cloud.own @ (cloud.axes @ (cloud.offset / scale)[..., None])).squeeze(2) / scale
    whole = (centred + 2 * toward + offsets / scale.square()).clamp_(min=0)
    step = max(1, _PAIR_ELEMENTS // (cloud.width * cloud.own.shape[2]))
    some = zip(*(torch.split(index, step) for index in pairs), strict=True)
    found = zip(*(_differences(cloud, scale, part) for part in some), strict=True)
    without, with_offset, across = (torch.cat(parts) for parts in found)
    (first, second), (own_first, own_second) = ([x[index] for index in pairs] for x in (whole, centred))
    points = Points(first, second, with_offset), Points(own_first, own_second, without)
    return Summary(scale.squeeze(1), lengths, *points, across)


def _differences(cloud: Cloud, scale: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
    """|v - w|^2 without and with the offsets, [B, n], for clouds that are divided by scales [P, 1]; and ``across``.

    In coordinates of what both clouds of a pair span: the axes of v, and then a triangle of what is left of those of w
    and of the offsets. The products of a difference are of things that are equal in equal clouds, so that nothing is
    left of it.
    """
    (v_axes, w_axes), (v_scale, w_scale) = ([x[index] for index in pairs] for x in (cloud.axes, scale[..., None]))
    across = v_axes @ w_axes.mT
    offset = (cloud.offset / scale)[pairs[0]] - (cloud.offset / scale)[pairs[1]]
    shift = (v_axes @ offset[..., None]).mT  # [B, 1, M]
    rest = torch.cat([w_axes.mT - v_axes.mT @ across, offset[..., None] - (shift @ v_axes).mT], dim=2)
    left = triangle(rest).mT  # [B, M + 1, .]
    without, with_offset = [], []
    for rows in cloud.blocks(len(pairs[0]) * cloud.own.shape[2]):
        v, w = (cloud.own[index, rows] / size for index, size in zip(pairs, (v_scale, w_scale), strict=True))
        along, beside = v - w @ across.mT, w @ left[:, :-1]
        without.append(along.square().sum(-1) + beside.square().sum(-1))
        with_offset.append((along + shift).square().sum(-1) + (beside - left[:, -1:]).square().sum(-1))
    return torch.cat(without, dim=1), torch.cat(with_offset, dim=1), across


def _gaps(a: Points, b: Points, x: Tensor, y: Tensor) -> Tensor:
    """Between points a and b (broadcast), with x = 1 / s and y = 1 / t.

    |x v - y w|^2 = (x - y) (x |v|^2 - y |w|^2) + x y |v - w|^2: every difference is of things that are equal in
    equal clouds, where the textbook form would leave 1e-8 of the gap.
    """
    difference, product = x - y, x * y
    squares = [torch.addcmul(product * p.difference, x * p.first - y * p.second, difference) for p in (a, b)]
    gaps = torch.maximum(*squares).clamp_(min=0).sqrt_()
    return gaps.masked_fill_(product.isinf(), torch.inf)


def _of_models(values: Tensor, models: Tensor) -> Tensor:
    """Of the models [B]; of a single one without a copy."""
    return values[models] if len(models) > 1 else values.narrow(0, int(models), 1)
