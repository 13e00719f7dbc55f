"""Points as they come in, checked, and the distances between them.

Float32 matrix products bound distances from below, float64 products give tiles of them, and differences of the points
themselves give those of the pairs that matter.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

DistanceName = Literal["euclidean", "sqeuclidean", "cosine", "dot"]

_NAMED_ROWS = 5
_LARGEST, _SMALLEST = 1e150, 1e-150  # beyond which squares leave float64
_ELEMENTS, _ELEMENTS_ON_DEVICE = 2**16, 2**24  # of float64 at a time: what a cache holds, what fills a GPU
_TINY = torch.finfo(torch.float64).tiny
_NEAR = 1e-3  # of |x|^2 + |y|^2: squared distances below it lose digits in a product, and are taken by differences
_EQUAL = 1e-11  # distances that differ by this share are equal to all that a tile of products tells


def as_points(points: Any, what: str) -> Tensor:
    """`points` [n, d], a tensor or an array, as a finite float32 or float64 tensor without gradient.

    On the CPU where their device has no float64 (Apple's MPS). Raises ValueError that names `what` and the shape of
    what is no matrix or is empty, the first rows that are not finite, or a value whose square leaves float64.
    """
    tensor = as_tensor(points).detach()
    if tensor.dim() != 2 or tensor.numel() == 0 or tensor.is_complex():
        raise ValueError(f"{what} must be [points, dimensions], but is {tensor.dtype} of shape {list(tensor.shape)}")
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float() if tensor.is_floating_point() else tensor.double()
    wrong = ~tensor.isfinite()
    rows = wrong.any(1).nonzero().flatten()
    if len(rows):
        value = float(tensor[rows[0]][wrong[rows[0]]][0])
        raise ValueError(f"{len(rows)} rows of {what} are not finite: {first_rows(rows)}; row {rows[0]} has {value}")
    largest = float(tensor.abs().max())
    if largest > _LARGEST or 0 < largest < _SMALLEST:
        raise ValueError(f"the largest value of {what} is {largest:g}, and its square leaves float64: rescale {what}")
    return tensor


def as_tensor(values: Any) -> Tensor:
    """A tensor, or a tensor over an array's memory; torch takes no negative strides, and warns of read-only arrays."""
    return values if isinstance(values, Tensor) else torch.as_tensor(np.require(values, requirements=["C", "W"]))


def row_lengths(points: Tensor, what: str) -> Tensor:
    """Euclidean lengths [n] of the points in float64; ValueError names rows of length 0, which have no cosine."""
    lengths = torch.cat([_lengths(rows) for rows in torch.split(points, _at_once(points))])
    zero = (lengths == 0).nonzero().flatten()
    if len(zero):
        raise ValueError(f"{len(zero)} rows of {what} are zero and have no cosine: {first_rows(zero)}")
    return lengths


def _lengths(points: Tensor) -> Tensor:
    """Euclidean lengths [n]; divided by a power of two no component's square underflows or overflows."""
    unit = torch.exp2(torch.frexp(points.abs().amax(1).double()).exponent.double())
    lengths: Tensor = torch.linalg.vector_norm(points / unit[:, None], dim=1)
    return lengths * unit


def first_rows(rows: Tensor) -> str:
    """The numbers of the first few rows, for a message."""
    return ", ".join(map(str, rows[:_NAMED_ROWS].tolist())) + (", ..." if len(rows) > _NAMED_ROWS else "")


class PointDistances:
    """Distances from queries [m, d] to index points [n, d]; without queries from the index points themselves.

    Matrix products are fast and, where points are near to each other, wrong: they take the difference of two large
    numbers. Here they only propose. A `key` orders the index points for one query and is reduced by as much as
    float32 may be wrong, so that `bound` turns it into a lower bound of the distance; `exact` takes the difference
    of the points themselves, in float64.

    Keys are taken about the mean of the index: a shift changes no Euclidean distance, and adds the same to all inner
    products of one query. The cosine distance is half the squared Euclidean one of points scaled to length 1.
    `points` [n, d] and `probes` [m, d], float32, are what is multiplied: for "dot" their inner products, else their
    Euclidean distances rank as the metric does; `centre` [d] is the mean of the index, of unit vectors for the cosine.
    """

    def __init__(self, index: Tensor, queries: Tensor | None, metric: DistanceName) -> None:
        unit_length = metric == "cosine"
        self._index = _Vectors(as_points(index, "index"), "index", unit_length)
        self._queries = self._index
        if queries is not None:
            points = as_points(queries, "queries").to(self._index.stored.device)
            self._queries = _Vectors(points, "queries", unit_length)
        self.m, self.n, self.device = len(self._queries), len(self._index), self._index.stored.device
        dim, centre = self._index.stored.shape[1], self._index.mean()
        self.metric, self.centre = metric, centre
        if self._queries.stored.shape[1] != dim:
            raise ValueError(
                f"queries and index must have the same dimensions, but the shapes are "
                f"{list(self._queries.stored.shape)} and {list(self._index.stored.shape)}"
            )
        # The product of two float32 rows is wrong by at most d u |x| |y| in whatever order it is summed (Higham 2002,
        # section 3.1); the rest is for rounding the factors, the bias and the key.
        error = (dim + 8) * torch.finfo(torch.float32).eps / 2
        if metric == "dot":
            self._keys_of_products(centre, error)
        else:
            self._keys_of_squares(centre, error)
        self._offset -= self._slope * dim * torch.finfo(torch.float32).tiny  # where products underflow

    def _keys_of_squares(self, centre: Tensor, error: float) -> None:
        """|x - y|^2 / 2 = |x|^2 / 2 + |y|^2 / 2 - <x, y>, and |x| |y| is at most |x|^2 / 2 + |y|^2 / 2."""
        index = self._index.squares(centre)
        queries = index if self._queries is self._index else self._queries.squares(centre)
        unit = _power_of_two(torch.maximum(index.max(), queries.max()))
        self.points = self._index.rounded(centre, unit)
        self.probes = self.points if queries is index else self._queries.rounded(centre, unit)
        self._bias = ((1 - error) / 2 * index / unit.square()).float()
        self._slope, self._offset = unit.square().expand(self.m), (1 - error) / 2 * queries

    def _keys_of_products(self, centre: Tensor, error: float) -> None:
        """-<x, y> = -|x| <x / |x|, y - c> - <x, c>: of queries of length 1 the error depends on y alone."""
        squares, lengths = self._index.squares(centre), self._queries.squares(torch.zeros_like(centre)).sqrt()
        self._lengths = lengths, self._index.squares(torch.zeros_like(centre)).max().sqrt()  # for the tolerance
        unit = _power_of_two(squares.max())
        self.points = self._index.rounded(centre, unit)
        self.probes = self._queries.rounded(torch.zeros_like(centre), lengths.clamp(min=_TINY)[:, None])
        self._bias = (-error * squares.sqrt() / unit).float()
        self._slope, self._offset = lengths * unit, -self._queries.products(centre)

    @property
    def index(self) -> Tensor:
        """The index points [n, d] as they came."""
        return self._index.stored

    def keys(self, rows: Tensor, columns: slice | Tensor) -> Tensor:
        """Of the queries `rows` [r] and index points [c], [r, c] float32: the smaller, the nearer may the point be."""
        return torch.addmm(self._bias[columns], self.probes[rows], self.points[columns].T, alpha=-1)

    def bound(self, rows: Tensor, keys: Tensor) -> Tensor:
        """A lower bound [r] of the distance from each of the queries `rows` to all points of at least this key [r]."""
        return self._distance(self._slope[rows] * keys + self._offset[rows])

    def bounds(self, rows: Tensor, columns: slice | Tensor) -> Tensor:
        """Lower bounds [r, c] float64 of the distances from the queries `rows` to some of the index points."""
        keys = self.keys(rows, columns).double()
        return self._distance(keys.mul_(self._slope[rows, None]).add_(self._offset[rows, None]))

    def tile(self, rows: Tensor, columns: slice) -> Tensor:
        """Distances [r, c] in float64 from the queries `rows` to some of the index points, by a matrix product.

        Pairs that are much nearer to each other than to the centre of the index are taken by their differences, so
        all but inner products are right to 1e-12 of themselves.
        """
        x, y = self._queries.take(rows), self._index.take(columns)
        if self.metric == "dot":
            return (x @ y.T).neg_()
        halves, near = _half_squares(x.sub_(self.centre), y.sub_(self.centre))
        if len(near):
            row, column = near.T
            halves[row, column] = self._halves(rows[row], (column + columns.start)[:, None])[:, 0]
        return self._distance(halves)

    def between(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances [r, c, w] in float64 between index points `first` [r, c] and `second` [r, w], as `tile` has them.

        Of distances without queries of their own.
        """
        x, y = self._index.take(first), self._index.take(second)
        if self.metric == "dot":
            return (x @ y.transpose(1, 2)).neg_()
        halves, near = _half_squares(x.sub_(self.centre), y.sub_(self.centre))
        if len(near):
            row, left, right = near.T
            halves[row, left, right] = self._halves(first[row, left], second[row, right][:, None])[:, 0]
        return self._distance(halves)

    def tolerance(self, rows: Tensor, distances: Tensor) -> Tensor:
        """By how much distances [r, c] of the queries `rows` may differ from equal ones by rounding alone."""
        if self.metric == "dot":
            of_queries, longest = self._lengths
            return (_EQUAL / 100 * longest * of_queries[rows, None]).expand_as(distances)
        slack = _EQUAL * distances
        return slack + 1e-15 * distances.clamp(min=0).sqrt() if self.metric == "cosine" else slack

    def exact(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Distances [r, c] in float64 from the queries `rows` to the index points `ids` [r, c]."""
        return self._distance(self._halves(rows, ids))

    def dense(self) -> Tensor:
        """All distances [m, n] in float64."""
        rows = torch.arange(self.m, device=self.device)
        return self.exact(rows, torch.arange(self.n, device=self.device).expand(self.m, -1))

    def centred(self, rows: slice, *, queries: bool) -> Tensor:
        """Some of the queries, or of the index points, about the centre of the index, in float64."""
        return (self._queries if queries else self._index).take(rows).sub_(self.centre)

    def query_vectors(self, rows: slice) -> Tensor:
        """Some of the queries as the metric sees them, in float64."""
        return self._queries.take(rows)

    def _halves(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Half the squared Euclidean distances [r, c] of pairs, or minus their inner products."""
        pairs = _at_once(self.points)
        height, width = max(1, pairs // ids.shape[1]), min(pairs, ids.shape[1])
        return torch.cat(
            [
                torch.cat([self._differences(some, part) for part in torch.split(parts, width, dim=1)], dim=1)
                for some, parts in zip(torch.split(rows, height), torch.split(ids, height), strict=True)
            ]
        )

    def _differences(self, rows: Tensor, ids: Tensor) -> Tensor:
        x, y = self._queries.take(rows)[:, None], self._index.take(ids)
        return y.mul_(x).sum(-1).neg_() if self.metric == "dot" else y.sub_(x).square_().sum(-1).div_(2)

    def _distance(self, value: Tensor) -> Tensor:
        """From half a squared Euclidean distance, or from minus an inner product."""
        if self.metric == "dot":
            return value
        if self.metric == "cosine":
            return value.clamp(min=0)
        squares = 2 * value.clamp(min=0)
        return squares.sqrt() if self.metric == "euclidean" else squares


def _half_squares(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """|x - y|^2 / 2 of x [..., r, d] and y [..., c, d], and the places of those that lost their digits."""
    a, b = x.square().sum(-1, keepdim=True).div_(2), y.square().sum(-1).div_(2).unsqueeze(-2)
    halves = (x @ y.transpose(-1, -2)).neg_().add_(a).add_(b)
    return halves, (halves < _NEAR * (a + b)).nonzero()


class _Vectors:
    """Points [n, d] as the metric sees them, in float64, as many at a time as are asked for."""

    def __init__(self, points: Tensor, what: str, unit_length: bool) -> None:
        self.stored = points
        self._lengths = row_lengths(points, what)[:, None] if unit_length else None

    def __len__(self) -> int:
        return len(self.stored)

    def take(self, rows: Tensor | slice) -> Tensor:
        """[..., d]; never the stored points themselves."""
        vectors = self.stored[rows].to(torch.float64, copy=True)
        return vectors if self._lengths is None else vectors.div_(self._lengths[rows])

    def mean(self) -> Tensor:
        """[d]."""
        return torch.stack([self.take(rows).sum(0) for rows in self._blocks()]).sum(0) / len(self)

    def squares(self, centre: Tensor) -> Tensor:
        """Squared distances [n] from a point [d]."""
        return torch.cat([self.take(rows).sub_(centre).square_().sum(1) for rows in self._blocks()])

    def products(self, direction: Tensor) -> Tensor:
        """Inner products [n] with a vector [d]."""
        return torch.cat([self.take(rows) @ direction for rows in self._blocks()])

    def rounded(self, centre: Tensor, divisor: Tensor) -> Tensor:
        """(x - centre) / divisor [n, d] in float32, the divisor a number or [n, 1]."""
        divisors = divisor.expand(len(self), 1)
        return torch.cat([self.take(rows).sub_(centre).div_(divisors[rows]).float() for rows in self._blocks()])

    def _blocks(self) -> Iterator[slice]:
        size = _at_once(self.stored)
        return (slice(start, start + size) for start in range(0, len(self), size))


def _power_of_two(square: Tensor) -> Tensor:
    """The power of two at or above a length, given its square; division by it rounds nothing."""
    return torch.exp2(square.clamp(min=_TINY).sqrt().log2().ceil())


def _at_once(points: Tensor) -> int:
    """How many points of this dimension are computed with together."""
    return max(1, (_ELEMENTS if points.device.type == "cpu" else _ELEMENTS_ON_DEVICE) // points.shape[1])


def unit_rows(points: Tensor, what: str) -> Tensor:
    """`points` [n, d] divided by their lengths; ValueError names the rows of length zero, which have no direction."""
    return (points / row_lengths(points, what)[:, None]).to(points.dtype)
