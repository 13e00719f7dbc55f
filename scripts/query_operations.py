"""What is done to queries before they meet augmented vectors: found out, and checked, on examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likeness.measures.hubness_reduction import Composition
from likeness.measures.inverted_softmax import DynamicInvertedSoftmax
from likeness.measures.reduction_base import HubnessReduction
from likeness.seeding import generator

EXAMPLES = 256
TOLERANCE = 1e-5  # of the augmented queries' root mean square


class QueryOperation(NamedTuple):
    """a(q) = [multiply_by * u + add, append...] with u = q, or q scaled to length 1."""

    scale_to_length_1: bool
    multiply_by: float
    add: Tensor | None  # [d]
    append: tuple[float | str, ...]  # numbers, or "squared length" of what stands before

    def as_json(self, offset: str) -> dict[str, Any]:
        """Plain values; ``offset`` is the file of the vector that is added."""
        return {**self._asdict(), "add": None if self.add is None else offset, "append": list(self.append)}


def query_operation(method: HubnessReduction) -> QueryOperation | None:
    """The operation of a fitted method with augmented vectors; None where it is no scaling and shift of each query."""
    last = method.last if isinstance(method, Composition) else method
    if isinstance(last, DynamicInvertedSoftmax):  # its operation depends on what a query finds
        return None
    augment = method.augment().queries
    x = method.index[method.index.any(1)][:EXAMPLES].double()
    unit = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    stretched = x * (0.5 + torch.rand(len(x), 1, generator=generator(0), dtype=x.dtype)).to(x.device)
    try:
        return next(_fitting(stretched, augment(stretched).double(), (False, True)), None)
    except ValueError:  # the method takes queries of length 1 alone
        return next(_fitting(unit, augment(unit).double(), (True,)), None)


def _fitting(queries: Tensor, answers: Tensor, scaled: Sequence[bool]) -> Iterator[QueryOperation]:
    """The operations that answer these queries [m, d] with these [m, d + e], of queries scaled to length 1 or not."""
    lengths = torch.linalg.vector_norm(queries, dim=1, keepdim=True)
    dim = queries.shape[1]
    appended = _appended(answers[:, dim:], answers[:, :dim].square().sum(1))
    if answers.shape[1] < dim or appended is None:
        return
    for to_length_1 in scaled:
        u = queries / lengths if to_length_1 else queries
        spread = u - u.mean(0)
        factor = float((spread * answers[:, :dim]).sum() / spread.square().sum())
        rest = answers[:, :dim] - factor * u
        shift = rest.mean(0)
        scale = TOLERANCE * answers.square().mean().sqrt()
        if bool((rest - shift).abs().max() <= scale):
            shifted = bool(shift.abs().max() > scale)
            yield QueryOperation(to_length_1, round(factor, 6), shift if shifted else None, appended)


def _appended(columns: Tensor, squares: Tensor) -> tuple[float | str, ...] | None:
    """What stands in the further columns [m, e]: a number, or the squared length [m] of those before."""
    found: list[float | str] = []
    for column in columns.T:
        if bool((column - column.mean()).abs().max() <= TOLERANCE):
            found.append(round(float(column.mean()), 6))
        elif torch.allclose(column, squares, rtol=TOLERANCE):
            found.append("squared length")
        else:
            return None
    return tuple(found)
