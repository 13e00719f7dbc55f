"""Measures of all pairs of layers on the samples that were kept, as observed, permuted and resampled.

Most measures of representations are the cosine of two matrices [N, N] of relations between samples. Of these all pairs
are one product of matrices, [L, N^2] by [N^2, L'], and a reordering of the samples costs no more. The others are
computed pair by pair.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from likeness.similarity.catalogue import FAMILIES, REPRESENTATION_MEASURES, RepresentationMeasure, of_function
from likeness.similarity.layers.outputs import require_room
from likeness.similarity.representations import cca, cka, mutual_knn
from likeness.similarity.representations.samples import cosine, prepare_all
from likeness.similarity.undefined import UndefinedError

Reasons = dict[tuple[int, int], str]

LAYER_MEASURES: dict[str, RepresentationMeasure[Any]] = {
    **REPRESENTATION_MEASURES,
    "m_cca": replace(of_function(cca.m_cca, "m_CCA", larger_is_more_alike=True), limit=1.0, symmetric=True),
}
"""By name, every measure that reads representations alone."""


def select_measures(names: Sequence[str]) -> dict[str, RepresentationMeasure[Any]]:
    """The measures of these names, ``peers`` for all but m_CCA. Raises ValueError for an unknown one."""
    names = [names] if isinstance(names, str) else names
    members = [member for name in names for member in (FAMILIES["peers"] if name == "peers" else (name,))]
    unknown = [name for name in members if name not in LAYER_MEASURES]
    if unknown or not members:
        known = ", ".join(["peers", *LAYER_MEASURES])
        raise ValueError(f"layers are compared by one or more of {known}, got {', '.join(unknown) or 'none'}")
    return {name: LAYER_MEASURES[name] for name in members}


def u_centred(gram: Tensor) -> Tensor:
    """A Gram matrix [N, N] so centred, without its diagonal, that inner products of two are N (N - 3) HSIC_1.

    Székely & Rizzo 2014 (arXiv 1310.2926), eq. 3.1; the identity with Song et al. 2012, eq. 5, is algebra.
    """
    n, gram = len(gram), gram.clone().fill_diagonal_(0)
    sums = gram.sum(1)
    centred = gram - (sums[:, None] + sums) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)


def _adjacency(neighbours: Tensor) -> Tensor:
    """Whether one sample is among the k nearest of another, [N, N], of unit norm; from their numbers [N, k]."""
    n, k = neighbours.shape
    matrix = torch.zeros(n, n, dtype=torch.float64, device=neighbours.device)
    return matrix.scatter_(1, neighbours, (n * k) ** -0.5)


RELATIONS: dict[Callable[..., Tensor], Callable[[Tensor], Tensor]] = {
    cosine: lambda matrix: matrix,
    cka.linear_alignment: lambda x: x @ x.T,
    cka.unbiased_linear_alignment: lambda x: u_centred(x @ x.T),
    mutual_knn.overlap: _adjacency,
}
"""By a measure's comparison, the matrix of relations whose cosine it is, from what the measure prepares."""


class Matrices(ABC):
    """A measure of L layers with L' others, on N samples of P rows each: [L, L'], NaN where it is undefined."""

    repeats_inflate = False  # whether samples drawn twice make everything more alike

    def __init__(self, measure: RepresentationMeasure[Any], positions: int) -> None:
        self.measure, self.positions = measure, positions
        self.reasons: Reasons = {}

    @abstractmethod
    def observed(self) -> Tensor:
        """The measure as it is."""

    @abstractmethod
    def permuted(self, orders: Tensor) -> Tensor:
        """With the samples of all others in each of B orders [B, N]: [B, L, L']."""

    @abstractmethod
    def resampled(self, drawn: Tensor) -> Tensor:
        """Of samples drawn [N] with replacement, the same ones of all layers."""

    def _rows(self, samples: Tensor) -> Tensor:
        """The rows [..., N P] of samples [..., N]."""
        return (samples[..., None] * self.positions + torch.arange(self.positions)).flatten(-2)


class RelationMatrices(Matrices):
    """Of a measure that is a cosine of relations. It holds N^2 float64 for each layer."""

    def __init__(
        self,
        measure: RepresentationMeasure[Any],
        positions: int,
        a: Mapping[int, Any],
        b: Mapping[int, Any] | None,
        shape: tuple[int, int],
    ) -> None:
        super().__init__(measure, positions)
        self.shape, relation = shape, RELATIONS[measure.compare]
        self.rows, self.columns = list(a), list(a if b is None else b)
        self.a = torch.stack([relation(one) for one in a.values()])
        self.b = self.a if b is None else torch.stack([relation(one) for one in b.values()])

    @override
    def observed(self) -> Tensor:
        return self._values(self.a.flatten(1) @ self.b.flatten(1).T)

    @override
    def permuted(self, orders: Tensor) -> Tensor:
        values = []
        for rows in self._rows(orders).to(self.b.device):
            other = self.b.index_select(1, rows).index_select(2, rows)
            values.append(self._values(self.a.flatten(1) @ other.flatten(1).T))
        return torch.stack(values)

    @override
    def resampled(self, drawn: Tensor) -> Tensor:
        """A pair of two draws of one sample is dropped; a draw with itself counts as often as it was drawn.

        Kernels, centring and neighbours stay those of all samples.
        """
        times = torch.bincount(drawn, minlength=self.a.shape[1] // self.positions).to(self.a)
        weights = torch.outer(times, times)
        weights.diagonal().copy_(times)
        weights = weights.repeat_interleave(self.positions, 0).repeat_interleave(self.positions, 1).flatten()
        weighted = self.a.flatten(1) * weights
        norms = (weighted * self.a.flatten(1)).sum(1).sqrt()
        same = self.b is self.a
        others = norms if same else torch.stack([(one.flatten().square() * weights).sum().sqrt() for one in self.b])
        return self._values(weighted @ self.b.flatten(1).T / (norms[:, None] * others))

    def _values(self, cosines: Tensor) -> Tensor:
        values = torch.full(self.shape, torch.nan, dtype=torch.float64)
        values[torch.tensor(self.rows)[:, None], torch.tensor(self.columns)] = cosines.clamp(-1, 1).cpu()
        return values


class PairMatrices(Matrices):
    """Of any other measure, pair by pair."""

    repeats_inflate = True

    def __init__(
        self,
        measure: RepresentationMeasure[Any],
        positions: int,
        a: Mapping[int, Any],
        b: Mapping[int, Any] | None,
        layers: tuple[Sequence[Tensor], Sequence[Tensor]],
    ) -> None:
        super().__init__(measure, positions)
        self.a, self.b, self.layers = a, a if b is None else b, layers
        self.halved = b is None and measure.symmetric

    @override
    def observed(self) -> Tensor:
        return self._each(self.a, self.b, self.halved, lambda one: one)

    @override
    def permuted(self, orders: Tensor) -> Tensor:
        rows = self._rows(orders)
        return self._each(self.a, self.b, False, partial(self._reordered, rows=rows), len(orders)).movedim(-1, 0)

    @override
    def resampled(self, drawn: Tensor) -> Tensor:
        """Everything is computed again of the rows drawn, those drawn twice among them."""
        rows = self._rows(drawn)
        a = _prepared(self.measure, [layer[rows.to(layer.device)] for layer in self.layers[0]])
        b = a if self.halved else _prepared(self.measure, [layer[rows.to(layer.device)] for layer in self.layers[1]])
        return self._each(a[0], b[0], self.halved, lambda one: one)

    def _reordered(self, prepared: Any, rows: Tensor) -> Any:
        device = (prepared[0] if isinstance(prepared, tuple) else prepared).device
        return self.measure.reorder(prepared, rows.to(device))

    def _each(
        self, a: Mapping[int, Any], b: Mapping[int, Any], halved: bool, other: Callable[[Any], Any], *batch: int
    ) -> Tensor:
        """[L, L'], or of a batch of B others [L, L', B]."""
        values = torch.full((len(self.layers[0]), len(self.layers[1]), *batch), torch.nan, dtype=torch.float64)
        for j, given in b.items():
            second = other(given)
            for i, first in a.items():
                if halved and i > j:
                    continue
                try:
                    values[i, j] = self.measure.compare(first, second)
                except UndefinedError as error:
                    self.reasons[i, j] = str(error)
                if halved:
                    values[j, i] = values[i, j]
                    self.reasons |= {(j, i): self.reasons[i, j]} if (i, j) in self.reasons else {}
        return values


class LayerMatrices(Matrices):
    """Of all layers: what answers the same is computed once, and rows are compared with as many rows a sample.

    Args:
        measure: of two representations.
        a: L layers [N, P, d]; P and d may differ.
        b: L' others; None where a model is compared with itself.
        max_bytes: that relations between samples may take.
        names: of the layers of both, for messages.
    """

    def __init__(
        self,
        measure: RepresentationMeasure[Any],
        a: Sequence[Tensor],
        b: Sequence[Tensor] | None,
        max_bytes: int,
        names: tuple[Sequence[str], Sequence[str]],
    ) -> None:
        super().__init__(measure, 1)
        others = a if b is None else b
        self.shape = (len(a), len(others))
        self.repeats_inflate = measure.compare not in RELATIONS
        self.blocks: list[_Block] = []
        for positions in dict.fromkeys(layer.shape[1] for layer in a):
            rows, first = _distinct(a, positions)
            columns, second = (rows, first) if b is None else _distinct(b, positions)
            if columns:
                own = _named(rows, names[0]), _named(columns, names[1])
                cells = _matrices(measure, first, None if b is None else second, positions, max_bytes, own)
                self.blocks.append(_Block(rows, columns, cells))
        for i, j in ((i, j) for i in range(self.shape[0]) for j in range(self.shape[1])):
            if a[i].shape[1] != others[j].shape[1]:
                counts = f"{a[i].shape[1]} and {others[j].shape[1]}"
                self.reasons[i, j] = f"{names[0][i]!r} and {names[1][j]!r} have {counts} positions a sample"

    @override
    def observed(self) -> Tensor:
        values = self._whole([block.cells.observed() for block in self.blocks])
        for block in self.blocks:
            for i, row in block.rows.items():
                self.reasons |= {
                    (i, j): block.cells.reasons[row, column]
                    for j, column in block.columns.items()
                    if (row, column) in block.cells.reasons
                }
        return values

    @override
    def permuted(self, orders: Tensor) -> Tensor:
        return self._whole([block.cells.permuted(orders) for block in self.blocks])

    @override
    def resampled(self, drawn: Tensor) -> Tensor:
        return self._whole([block.cells.resampled(drawn) for block in self.blocks])

    def _whole(self, parts: Sequence[Tensor]) -> Tensor:
        values = torch.full((*parts[0].shape[:-2], *self.shape), torch.nan, dtype=torch.float64)
        for block, part in zip(self.blocks, parts, strict=True):
            rows, columns = (torch.tensor(list(own)) for own in (block.rows, block.columns))
            first, second = (torch.tensor(list(own.values())) for own in (block.rows, block.columns))
            values[..., rows[:, None], columns] = part[..., first[:, None], second]
        return values


class _Block(NamedTuple):
    """The layers that have equally many rows a sample."""

    rows: dict[int, int]  # of a layer among the L, its number among the different ones
    columns: dict[int, int]
    cells: Matrices


def _distinct(layers: Sequence[Tensor], positions: int) -> tuple[dict[int, int], list[Tensor]]:
    """Which layers have so many positions, and the different ones of them, [N P, d]."""
    chosen = {number: layer for number, layer in enumerate(layers) if layer.shape[1] == positions}
    different = {id(layer): layer for layer in chosen.values()}
    places = {key: place for place, key in enumerate(different)}
    return (
        {number: places[id(layer)] for number, layer in chosen.items()},
        [layer.flatten(0, 1) for layer in different.values()],
    )


def _named(layers: Mapping[int, int], names: Sequence[str]) -> list[str]:
    """The first name of each of the different layers."""
    first = {place: number for number, place in reversed(list(layers.items()))}
    return [names[first[place]] for place in sorted(first)]


def _matrices(
    measure: RepresentationMeasure[Any],
    a: Sequence[Tensor],
    b: Sequence[Tensor] | None,
    positions: int,
    max_bytes: int,
    names: tuple[Sequence[str], Sequence[str]],
) -> Matrices:
    """Of different layers [N P, d] with equally many rows."""
    first, why_first = _prepared(measure, a, names[0])
    second, why_second = (first, why_first) if b is None else _prepared(measure, b, names[1])
    others, own = a if b is None else b, None if b is None else second
    found: Matrices
    if measure.compare in RELATIONS and first and second:
        held = len(first) + (0 if b is None else len(second))
        require_room(8 * held * len(a[0]) ** 2, max_bytes, f"the relations between samples of {held} layers")
        found = RelationMatrices(measure, positions, first, own, (len(a), len(others)))
    else:
        found = PairMatrices(measure, positions, first, own, (a, others))
    for i, j in ((i, j) for i in range(len(a)) for j in range(len(others))):
        if i in why_first or j in why_second:
            found.reasons[i, j] = why_first.get(i) or why_second[j]
    return found


def _prepared(
    measure: RepresentationMeasure[Any], layers: Sequence[Tensor], names: Sequence[str] | None = None
) -> tuple[dict[int, Any], dict[int, str]]:
    return prepare_all(measure.prepare, layers, names or [str(number) for number in range(len(layers))])
