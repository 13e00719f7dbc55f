"""Heads with exactly the same probabilities whose labels stand at any angle one likes.

Every function answers with a change of coordinates, at any scale of the label vectors;
:func:`log_probability_change` is the proof that it changes nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelMetric, LabelRows, Progress, raw_similarity, row_blocks
from likeness.numerics import as_float64

_PARALLEL = 1e-10  # sine of the angle between two vectors below which they count as parallel


class EquivalentHead(NamedTuple):
    """A head g + v with the probabilities of g, and the proof on some inputs.

    >>> g = torch.eye(3)
    >>> head = equivalent_head(torch.randn(10, 3), g, pair=(0, 1), cosine=-1)
    >>> (g + head.translation)[:2]
    tensor([[ 0.5000, -0.5000,  0.0000],
            [-0.5000,  0.5000,  0.0000]], dtype=torch.float64)
    """

    translation: Tensor  # v [M]
    cosine: float  # of the two labels, as computed; NaN where one of them stands at zero
    logit_change: float  # largest: logits do change
    log_probability_change: float  # largest, in nats: zero up to rounding


def equivalent_head(
    f: Tensor, g: LabelRows, pair: tuple[int, int], cosine: float, bias: Tensor | None = None
) -> EquivalentHead:
    """The head g + v that gives two labels this cosine at the same probabilities, with its proof on f.

    f [N, M] are inputs of the proof, g [K, M], bias [K] stays as it is. Raises as :func:`translation_to_cosine` does.

    >>> f, g = torch.randn(100, 4), torch.randn(7, 4)
    >>> head = equivalent_head(f, g, pair=(2, 5), cosine=0.25)
    >>> round(head.cosine, 6), head.log_probability_change < 1e-9
    (0.25, True)
    """
    a, b = (g[label : label + 1][0] for label in pair)
    return translated_heads(f, g, pair, [translation_to_cosine(a, b, cosine)], bias)[0]


def translated_heads(
    f: Tensor,
    g: LabelRows,
    pair: tuple[int, int],
    translations: Sequence[Tensor],
    bias: Tensor | None = None,
    progress: Progress = iter,
) -> list[EquivalentHead]:
    """The heads g + v for translations v [M], each checked on the inputs f [N, M] in float64 and on f's device.

    g [K, M] is read block by block, once; bias [K] stays as it is.
    """
    f = as_float64(f)
    moved = [torch.zeros_like(f[0]), *(as_float64(v).to(f.device) for v in translations)]
    blocks = []
    for block in progress(row_blocks(g.shape)):
        rows = as_float64(g[block].to(f.device))
        offset = 0.0 if bias is None else as_float64(bias[block].to(f.device))
        blocks.append(torch.stack([f @ (rows + v).T + offset for v in moved]))
    logits = torch.cat(blocks, dim=-1)
    log_p = logits.log_softmax(-1)
    two = torch.cat([as_float64(g[label : label + 1]) for label in pair]).to(f.device)
    return [
        EquivalentHead(
            v,
            float(raw_similarity(two + v)[0, 1]),
            float((logits[index] - logits[0]).abs().max()),
            float((log_p[index] - log_p[0]).abs().max()),
        )
        for index, v in enumerate(moved)
        if index > 0
    ]


def translation_to_cosine(a: Tensor, b: Tensor, cosine: float) -> Tensor:
    """v [M] with cos(a + v, b + v) = cosine; the head g + v has the same probabilities as g for every f.

    a, b [M] are two labels' vectors. -1 and 1 are lemmas 2.2 and 2.3 of Nielsen & Grivas (arXiv 2603.29488); the
    values between, which take M >= 2, are derived, not in the paper: v = -m + h n with m the middle of a and b,
    n a unit vector orthogonal to b - a and h = |b - a|/2 sqrt((1 + c)/(1 - c)). Of the possible n it is the one
    that makes v shortest. Raises ValueError for a cosine outside [-1, 1], for equal vectors, whose cosine no
    translation moves, and for M = 1 with a cosine strictly between.
    """
    _require_cosine(cosine, "[-1, 1]", -1 <= cosine <= 1)
    if torch.equal(a, b):
        raise ValueError("the two labels have the same vector: their cosine is 1 or undefined under any translation")
    if cosine == 1:
        return translation_on_line(a, b, 0.5)
    pair, size = _scaled(torch.stack([as_float64(a), as_float64(b)]))
    middle, apart = pair.mean(0), pair[1] - pair[0]
    height = 0.5 * _length(apart) * math.sqrt((1 + cosine) / (1 - cosine))
    v = -middle if height == 0 else -middle + height * _orthogonal(apart, towards=middle)
    return size * v


def translation_on_line(a: Tensor, b: Tensor, t: float) -> Tensor:
    """v = -a + t (b - a), [M]: both vectors come to lie on the line through b - a.

    Their cosine is then -1 for -1 < t < 0 and 1 for t > 0 or t < -1. t = -1/2 is lemma 2.2 of Nielsen & Grivas
    (arXiv 2603.29488), t = 1/2 lemma 2.3. Raises ValueError for t = 0 and t = -1, where one vector becomes zero,
    and for equal vectors, which both do.
    """
    a, b = as_float64(a), as_float64(b)
    if t in (0, -1) or torch.equal(a, b):
        raise ValueError(f"a cosine with a zero vector is undefined, and t = {t:g} makes a + v or b + v zero")
    return -a + t * (b - a)


def linear_map_to_cosine(g: Tensor, a: int, b: int, cosine: float) -> Tensor:
    """A [M, M] such that the CENTRED cosine of labels a and b is ``cosine`` in the head of :func:`transformed`.

    g [K, M]. Centring removes a translation, not this. The two centred vectors keep their lengths, and directions
    orthogonal to both stay where they are. Raises ValueError for a cosine outside (-1, 1), for labels whose centred
    vectors are parallel, and for a label at the mean. Derived, not in the paper.
    """
    g = as_float64(g)
    _require_cosine(cosine, "(-1, 1)", -1 < cosine < 1)
    pair = LabelMetric.centred(g.mean(0)).directions(g[[a, b]]).T
    if bool(pair.isnan().any()):
        raise ValueError(f"label {a if bool(pair[0, 0].isnan()) else b} stands at the mean: it has no centred cosine")
    plane, now = torch.linalg.qr(pair)
    if pair.shape[0] < 2 or float(now[1, 1].abs()) <= _PARALLEL:
        raise ValueError(f"the centred vectors of labels {a} and {b} are parallel: every linear map keeps them so")
    direct = now.diagonal().sign()  # so that the first vector keeps its direction, not only its line
    plane, now = plane * direct, direct.unsqueeze(1) * now
    wanted = pair.new_tensor([[1.0, cosine], [0.0, math.sqrt((1 - cosine) * (1 + cosine))]])
    # g -> B g with B = A^-T: within the plane ``now`` becomes ``wanted``, so A there is (now wanted^-1)^T.
    within = torch.linalg.solve(wanted, now, left=False).T
    identity = torch.eye(2, dtype=g.dtype, device=g.device)
    matrix: Tensor = torch.eye(len(pair), dtype=g.dtype, device=g.device) + plane @ (within - identity) @ plane.T
    return matrix


def transformed(f: Tensor, g: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A f [N, M] and A^-T g [K, M]: the same logits in other coordinates, from f [N, M], g [K, M] and A [M, M]."""
    matrix = as_float64(matrix)
    new_g: Tensor = torch.linalg.solve(matrix, as_float64(g), left=False)
    return as_float64(f) @ matrix.T, new_g


def log_probability_change(f: Tensor, g: Tensor, new_f: Tensor, new_g: Tensor, bias: Tensor | None = None) -> Tensor:
    """max over inputs and labels of |log p - log p'|, a scalar in nats, between two heads in float64.

    f, new_f [N, M]; g, new_g [K, M]; bias [K] of both. Zero up to rounding proves the heads equivalent on f.
    """
    offset = 0.0 if bias is None else as_float64(bias)
    before = as_float64(f) @ as_float64(g).T + offset
    after = as_float64(new_f) @ as_float64(new_g).T + offset
    return (before.log_softmax(-1) - after.log_softmax(-1)).abs().max()


def _orthogonal(direction: Tensor, towards: Tensor) -> Tensor:
    """The unit vector [M] orthogonal to ``direction`` that is nearest to ``towards``, or any if there is none.

    Raises ValueError for M = 1.
    """
    if len(direction) < 2:
        raise ValueError("with M = 1 two labels' cosine is -1 or 1, whatever the translation")
    unit = _unit(direction)
    normal = _rejected(towards, unit)
    if _length(normal) <= _PARALLEL * _length(towards):
        axis = torch.zeros_like(unit)
        axis[unit.abs().argmin()] = 1
        normal = _rejected(axis, unit)
    return _unit(_rejected(_unit(normal), unit))  # again, because what rounding left is as long as a short normal


def _rejected(vector: Tensor, unit: Tensor) -> Tensor:
    """The part of a vector that is orthogonal to a unit vector."""
    return vector - (vector @ unit) * unit


def _unit(vector: Tensor) -> Tensor:
    scaled, _ = _scaled(vector)
    return torch.div(scaled, scaled.norm())


def _length(vector: Tensor) -> float:
    scaled, size = _scaled(vector)
    return size * float(scaled.norm())


def _scaled(tensor: Tensor) -> tuple[Tensor, float]:
    """The tensor with a largest entry of 1, and the factor; a tensor of zeros stays."""
    size = _largest(tensor) or 1.0
    return tensor / size, size


def _largest(tensor: Tensor) -> float:
    return float(tensor.abs().max())


def _require_cosine(cosine: float, interval: str, inside: bool) -> None:
    if not inside:  # NaN is not
        raise ValueError(f"the cosine must lie in {interval}, got {cosine}")
