"""Orthonormal bases of images, and the schedule by which one band of coefficients is made before the rest.

White noise is white in each of them, and with the same gamma_0 and gamma_1 for all coefficients decoder and prior are
those of pixels. A wavelet cascade is then nothing but a path of gammas: the low band runs through all of them in t from
1 to 1/2, the others after it, seeing the low band with the noise of gamma_0. That is a bound of the images; cascades
whose second stage sees a clean low band are none unless that is coded too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.checks import require_positive
from likeness.diffusion.model import Basis
from likeness.diffusion.multivariate import MultivariateSchedule
from likeness.diffusion.schedules import GAMMA_MAX, GAMMA_MIN


class Haar(Basis):
    """Haar wavelets: of each block of 2 x 2 pixels a sum and three differences, of the sums again, ``levels`` times.

    They stand where the pixels stood: the sum in the corner of its block, beside it the difference of columns, under it
    that of rows. The low band is the sums that remain, at the places that 2^levels divides.

    Raises ValueError for levels < 1, and later for sides that 2^levels does not divide.
    """

    def __init__(self, levels: int = 1) -> None:
        super().__init__()
        require_positive(levels=levels)
        self.levels = levels

    @override
    def forward(self, x: Tensor) -> Tensor:
        self._require_sides(x.shape)
        for level in range(self.levels):
            x = _at_places(x, 2**level)
        return x

    @override
    def inverse(self, coefficients: Tensor) -> Tensor:
        self._require_sides(coefficients.shape)
        for level in reversed(range(self.levels)):
            coefficients = _at_places(coefficients, 2**level)
        return coefficients

    @override
    def low(self, input_shape: Sequence[int]) -> Tensor:
        self._require_sides(input_shape)
        band, size = torch.zeros(*input_shape, dtype=torch.bool), 2**self.levels
        band[..., ::size, ::size] = True
        return band

    def _require_sides(self, shape: Sequence[int]) -> None:
        if len(shape) < 3 or any(side % 2**self.levels for side in shape[-2:]):
            raise ValueError(
                f"{self.levels} levels of Haar need sides that {2**self.levels} divides, got {list(shape)}"
            )


class OpponentColours(Basis):
    """Grey (1, 1, 1) / sqrt 3, red less blue, and both less green, of three channels; the low band is grey.

    Of independent channels it changes nothing; of photographs it takes most of their correlation, as the cosine
    transform of length 3, which it is.

    Raises ValueError for other numbers of channels.
    """

    axes: Tensor  # [3, 3], orthonormal rows

    def __init__(self) -> None:
        super().__init__()
        axes = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
        self.register_buffer("axes", axes / axes.norm(dim=1, keepdim=True), persistent=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self._mixed(x, self.axes)

    @override
    def inverse(self, coefficients: Tensor) -> Tensor:
        return self._mixed(coefficients, self.axes.T)

    @override
    def low(self, input_shape: Sequence[int]) -> Tensor:
        self._require_colours(input_shape)
        band = torch.zeros(*input_shape, dtype=torch.bool)
        band[0] = True
        return band

    def _mixed(self, x: Tensor, rows: Tensor) -> Tensor:
        """By sums of products: a matrix product autocast would round to bfloat16."""
        self._require_colours(x.shape)
        return (rows.to(x)[..., None, None] * x.unsqueeze(-4)).sum(-3)

    def _require_colours(self, shape: Sequence[int]) -> None:
        if len(shape) < 3 or shape[-3] != 3:
            raise ValueError(f"opponent colours need three channels, got {list(shape)}")


class Composed(Basis):
    """One basis after another; the low band is what is low in all of them."""

    def __init__(self, bases: Sequence[Basis]) -> None:
        super().__init__()
        if not bases:
            raise ValueError("a composed basis needs at least one, got none")
        self.bases = nn.ModuleList(bases)

    @override
    def forward(self, x: Tensor) -> Tensor:
        for basis in self.bases:
            x = basis(x)
        return x

    @override
    def inverse(self, coefficients: Tensor) -> Tensor:
        for basis in reversed(self.bases):
            coefficients = basis.inverse(coefficients)  # type: ignore[operator]
        return coefficients

    @override
    def low(self, input_shape: Sequence[int]) -> Tensor:
        bands = [basis.low(input_shape) for basis in self.bases]  # type: ignore[operator]
        return torch.stack(bands).all(0)


class CascadeSchedule(MultivariateSchedule):
    """gamma_min + (gamma_max - gamma_min) ((1 - f) s(t) + f t), s = 2 t - 1 of the low band and 2 t of the rest.

    s is kept in [0, 1]. Fixed: as t falls from 1 the low band gets rid of its noise until t = 1/2, then the others do.

    Args:
        gamma_min: gamma(0) of every coefficient.
        gamma_max: gamma(1) of every coefficient.
        floor: f, the least dgamma/dt as a share of the line's.

    Raises ValueError for a floor outside [0, 1), and of gamma(t) before :meth:`for_band` has told the low band.
    """

    needs_band = True
    late: Tensor  # 1 of the low band, 0 of the rest

    def __init__(self, gamma_min: float = GAMMA_MIN, gamma_max: float = GAMMA_MAX, floor: float = 0.1) -> None:
        super().__init__(gamma_min, gamma_max)
        self._set_floor(floor)
        self.register_buffer("late", torch.empty(0), persistent=False)

    @override
    def for_band(self, low: Tensor) -> None:
        self.late = low.to(self.late)

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        t = self._over_dimensions(t)
        share = self._of_halves((2 * t).clamp(max=1), (2 * t - 1).clamp(min=0))
        speed = self._of_halves(2 * (t < 0.5).to(t), 2 * (t >= 0.5).to(t))
        return self.gamma_min + self._risen(share, t), self._risen(speed, torch.ones_like(t))

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        t = self._over_dimensions(t)
        first, second = (overlap.clamp(0, width) for overlap in (0.5 - t + width, t - 0.5))
        return self._risen(self._of_halves(2 * first, 2 * second), torch.full_like(t, width))

    def _of_halves(self, first: Tensor, second: Tensor) -> Tensor:
        """What moves in the first half of [0, 1], all but the low band, and what in the second."""
        return torch.where(self.late > 0, second, first)

    def _risen(self, share: Tensor, line: Tensor) -> Tensor:
        return self.clock_rate * ((1 - self.floor) * share + self.floor * line)

    def _over_dimensions(self, t: Tensor) -> Tensor:
        if not self.late.numel():
            raise ValueError("a CascadeSchedule must be told the low band: give the model a basis")
        return t.reshape(*t.shape, *[1] * self.late.dim())


def _at_places(x: Tensor, step: int) -> Tensor:
    """One level of Haar, its own inverse, of every ``step``-th row and column of images [..., H, W]."""
    if step == 1:
        return _blocks(x)
    whole = x.clone()
    whole[..., ::step, ::step] = _blocks(x[..., ::step, ::step])
    return whole


def _blocks(x: Tensor) -> Tensor:
    for dim in (-1, -2):
        first, second = x.unflatten(dim, (-1, 2)).unbind(dim)  # type: ignore[no-untyped-call]
        x = torch.stack([first + second, first - second], dim).flatten(dim - 1, dim)
    return 0.5 * x
