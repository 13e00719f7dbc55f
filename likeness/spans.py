"""What the embeddings of a model span, and the model in coordinates of that.

A final LayerNorm leaves f in M - 1 dimensions, sum_i (f_i - beta_i) / gamma_i = 0, and what float32 rounds fills the
missing one: it passes for a direction in float64. :func:`reduce_to_span` takes it out, and no probability moves.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from likeness.numerics import as_float64, length, power_of_two, rank_tolerance, triangle
from likeness.similarity.undefined import RankDeficientError

CONSTANT = 1e-14  # standard deviation over mean of a constant coordinate, after centring
_ROUNDING = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}  # singular values, of the largest


class Span(NamedTuple):
    """The space that centred vectors span."""

    basis: Tensor  # [R, M] orthonormal; arbitrary beyond the rank
    rank: int

    @classmethod
    def of(cls, centred: Tensor, size: Tensor, tolerance: float) -> Self:
        """Of centred columns [R, M], whose lengths ``size`` [M] were before; by a relative ``tolerance``.

        Columns are brought to one length, so that neither a unit nor a scale decides the rank.
        """
        scale = length(centred, 0)
        live = scale > CONSTANT * size
        basis, factor = torch.linalg.qr(centred / scale.where(live, torch.inf))
        singular = torch.linalg.svdvals(factor)
        largest = singular[:1] if len(singular) else singular
        return cls(basis, int((singular > tolerance * largest).sum()) if bool(live.any()) else 0)

    def require_full(self, what: str, shape: Sequence[int]) -> Tensor:
        """The basis. Raises RankDeficientError, with the words ``what`` and the shape, unless all M are spanned."""
        if self.rank < shape[1]:
            raise RankDeficientError(f"{what}, {list(shape)}, span {self.rank} of {shape[1]} dimensions")
        return self.basis


def span_of_rows(x: Tensor, dtype: torch.dtype | None = None) -> Span:
    """What x [N, M] in float64 spans around its mean; ``dtype`` is the type that it came in, where another."""
    scale = power_of_two(x, 0)
    x = x / scale
    return Span.of(x - x.mean(0), length(x, 0), rank_tolerance(dtype or x.dtype, x.shape))


def span_of_factor(factor: Tensor, count: int) -> Span:
    """What centred rows x [count, M] in float64 span, from a factor [R, M] of them, x^T x = factor^T factor."""
    scaled = factor / power_of_two(factor, 0)
    return Span.of(scaled, length(scaled, 0), rank_tolerance(factor.dtype, (count, factor.shape[1])))


class SpanModel(NamedTuple):
    """A softmax model in coordinates of what its embeddings span: the same distribution, softmax(fr gr^T + br)."""

    f: Tensor  # fr = (f - mean) B, [N, r], along its principal axes
    g: Tensor  # gr = g B, [V, r]
    bias: Tensor  # br = g . mean (+ b), [V]
    rank: int  # r
    basis: Tensor  # B [M, r], orthonormal


def reduce_to_span(f: Tensor, g: Tensor, bias: Tensor | None = None, tau: float | None = None) -> SpanModel:
    """A model with f [N, M], g [V, M] and bias [V] in the r dimensions that f spans around its mean, in float64.

    A direction counts as rounding where the singular value of centred f, its columns at one length, is at most ``tau``
    times the largest; by default as the type of f says: 1e-5 for float32, 2^-7 for bfloat16, max(N, M) eps for
    float64.

    Example:
        >>> import torch
        >>> f = torch.nn.functional.layer_norm(torch.randn(40, 4, generator=torch.manual_seed(0)), [4])
        >>> g = torch.eye(5, 4)
        >>> reduced = reduce_to_span(f, g)
        >>> again = reduced.f @ reduced.g.T + reduced.bias
        >>> reduced.rank, bool((again - f.double() @ g.double().T).abs().max() < 1e-6)
        (3, True)
    """
    x, head = as_float64(f), as_float64(g)
    mean = x.mean(0)
    size = len(x) ** 0.5 * mean.abs()
    basis = spanned_axes(triangle(x - mean), size, span_tolerance(tau, coarsest([f]), x.shape))
    shift = head @ mean if bias is None else head @ mean + as_float64(bias)
    return SpanModel((x - mean) @ basis, head @ basis, shift, basis.shape[1], basis)


def coarsest(tensors: Sequence[Tensor]) -> torch.dtype:
    """The type with the fewest digits among those of the tensors.

    float64 numbers that float32 holds without loss, all of them, were computed in float32.
    """
    floating = [_held_by(x) for x in tensors if x.dtype.is_floating_point]
    return max(floating, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float64)


def epsilon(tensors: Sequence[Tensor]) -> float:
    """That of the coarsest type; of a stream of batches the smallest one counts, whatever the batches are."""
    return torch.finfo(coarsest(tensors)).eps


def type_of(smallest: float) -> torch.dtype:
    """The type with this epsilon; float64 where nothing came."""
    return next((dtype for dtype in _ROUNDING if torch.finfo(dtype).eps == smallest), torch.float64)


def _held_by(x: Tensor) -> torch.dtype:
    if x.dtype != torch.float64:
        return x.dtype
    is_single = all(bool((part.float() == part).all()) for part in (x[:1], x))  # most are told by the first row
    return torch.float32 if is_single else torch.float64


def span_tolerance(tau: float | None, dtype: torch.dtype, shape: Sequence[int]) -> float:
    """The share of the largest singular value up to which one is rounding, by type and shape unless ``tau`` says it."""
    return _ROUNDING.get(dtype, rank_tolerance(dtype, shape)) if tau is None else tau


def spanned_axes(centred: Tensor, size: Tensor, tau: float) -> Tensor:
    """The principal axes [M, r] of centred columns [R, M], but those of rounding; ``size`` as in :meth:`Span.of`.

    Columns are brought to one length to see how many axes are rounding, and where scales differ so much that the last
    principal axes are not these, also to see which.
    """
    columns, scale = _at_one_length(centred, size)
    _, singular, axes = torch.linalg.svd(columns, full_matrices=False)
    rank = int((singular > tau * singular[:1]).sum())
    _, raw, principal = torch.linalg.svd(centred / power_of_two(centred), full_matrices=False)
    if rank == int((raw > tau * raw[:1]).sum()):
        leading: Tensor = principal[:rank].T
        return leading
    spanned = torch.linalg.qr(axes[:rank].T * (scale / power_of_two(scale))[:, None])[0]
    within: Tensor = torch.linalg.svd(centred @ spanned, full_matrices=False)[2]
    found: Tensor = torch.matmul(spanned, within.T)
    return found


def spanned_rank(centred: Tensor, size: Tensor, tau: float) -> int:
    """How many axes :func:`spanned_axes` answers."""
    singular: Tensor = torch.linalg.svdvals(_at_one_length(centred, size)[0])
    return int((singular > tau * singular[:1]).sum())


def _at_one_length(centred: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [R, M] divided by their lengths [M], of which those of constant columns are 0."""
    scale = length(centred, 0)
    live = scale > CONSTANT * size
    return centred / scale.where(live, torch.inf), scale.where(live, 0.0)
