"""Heads with exactly the same probabilities whose labels stand at any angle one likes.

Every function answers with a change of coordinates; :func:`log_probability_change` is the proof that it changes
nothing else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelRows, Progress, row_blocks
from likeness.numerics import as_float64

_PARALLEL = 1e-10  # sine of the angle between two vectors below which they count as parallel


def translation_to_cosine(a: Tensor, b: Tensor, cosine: float) -> Tensor:
    """v [M] with cos(a + v, b + v) = cosine; the head g + v has the same probabilities as g for every f.

    a, b [M] are two labels' vectors. -1 and 1 are lemmas 2.2 and 2.3 of Nielsen & Grivas (arXiv 2603.29488); the
    values between, which take M >= 2, are derived, not in the paper: v = -m + h n with m the middle of a and b,
    n a unit vector orthogonal to b - a and h = |b - a|/2 sqrt((1 + c)/(1 - c)). Of the possible n it is the one
    that makes v shortest. Raises ValueError for a cosine outside [-1, 1], for equal vectors, whose cosine no
    translation moves, and for M = 1 with a cosine strictly between.
    """
    a, b = as_float64(a), as_float64(b)
    _require_cosine(cosine, "[-1, 1]", -1 <= cosine <= 1)
    if torch.equal(a, b):
        raise ValueError("the two labels have the same vector: their cosine is 1 or undefined under any translation")
    if cosine == 1:
        return translation_on_line(a, b, 0.5)
    height = 0.5 * float((b - a).norm()) * math.sqrt((1 + cosine) / (1 - cosine))
    middle = 0.5 * (a + b)
    return -middle if height == 0 else -middle + height * _orthogonal(b - a, towards=middle)


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
    orthogonal to both stay where they are. Raises ValueError for a cosine outside (-1, 1) and for labels whose
    centred vectors are parallel. Derived, not in the paper.
    """
    g = as_float64(g)
    _require_cosine(cosine, "(-1, 1)", -1 < cosine < 1)
    pair = (g - g.mean(0))[[a, b]].T
    plane, now = torch.linalg.qr(pair)
    length = pair.norm(dim=0)
    if pair.shape[0] < 2 or length[0] == 0 or float(now[1, 1].abs()) <= _PARALLEL * float(length[1]):
        raise ValueError(f"the centred vectors of labels {a} and {b} are parallel: every linear map keeps them so")
    direct = now.diagonal().sign()  # so that the first vector keeps its direction, not only its line
    plane, now = plane * direct, direct.unsqueeze(1) * now
    sine = math.sqrt((1 - cosine) * (1 + cosine))
    wanted = length * length.new_tensor([[1.0, cosine], [0.0, sine]])
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


class EquivalentHead(NamedTuple):
    """A head g + v with the probabilities of g, and the proof on some inputs."""

    translation: Tensor  # [M]
    cosine: float  # of two labels, as computed
    logit_change: float  # largest: logits do change
    log_probability_change: float  # largest, in nats: zero up to rounding


def equivalent_heads(
    f: Tensor, g: LabelRows, pair: tuple[int, int], cosines: Sequence[float], bias: Tensor | None = None
) -> list[EquivalentHead]:
    """For each cosine the head g + v that gives it to two labels, with its proof; see :func:`translated_heads`.

    Raises as :func:`translation_to_cosine` does.
    """
    a, b = (g[label : label + 1][0] for label in pair)
    translations = [translation_to_cosine(a, b, cosine) for cosine in cosines]
    return translated_heads(f, g, pair, translations, bias)


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
    a, b = (as_float64(g[label : label + 1][0]).to(f.device) for label in pair)
    return [
        EquivalentHead(
            v,
            float(torch.cosine_similarity(a + v, b + v, dim=0)),
            float((logits[index] - logits[0]).abs().max()),
            float((log_p[index] - log_p[0]).abs().max()),
        )
        for index, v in enumerate(moved)
        if index > 0
    ]


def _orthogonal(direction: Tensor, towards: Tensor) -> Tensor:
    """The unit vector [M] orthogonal to ``direction`` that is nearest to ``towards``, or any if there is none.

    Raises ValueError for M = 1.
    """
    if len(direction) < 2:
        raise ValueError("with M = 1 two labels' cosine is -1 or 1, whatever the translation")
    unit = direction / direction.norm()
    normal = _rejected(towards, unit)
    if float(normal.norm()) <= _PARALLEL * float(towards.norm()):
        axis = torch.zeros_like(unit)
        axis[unit.abs().argmin()] = 1
        normal = _rejected(axis, unit)
    return torch.nn.functional.normalize(normal, dim=0)


def _rejected(vector: Tensor, unit: Tensor) -> Tensor:
    """What is left of a vector orthogonal to a unit vector; twice, because once leaves rounding along it."""
    for _ in range(2):
        vector = vector - (vector @ unit) * unit
    return vector


def _require_cosine(cosine: float, interval: str, inside: bool) -> None:
    if not inside:  # NaN is not
        raise ValueError(f"the cosine must lie in {interval}, got {cosine}")
