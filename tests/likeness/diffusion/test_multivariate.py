"""A polynomial schedule for each dimension: ends, derivatives, increments, and what it starts from."""

import pytest
import torch
from torch import Tensor

from likeness.diffusion.multivariate import MultivariatePolynomial
from likeness.diffusion.schedules import LinearSchedule, gamma_grid

SHAPE = (2, 3, 4)


def bent(shape: tuple[int, ...] = SHAPE, seed: int = 0, **options: float) -> MultivariatePolynomial:
    """Far from a line, and different in each dimension, as training may leave it."""
    schedule = MultivariatePolynomial(dims=shape, **options)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.add_(2 * torch.randn(shape, generator=source))
    return schedule


def path(schedule: MultivariatePolynomial, t: Tensor) -> Tensor:
    """gamma by MuLAN's antiderivative of (a t^2 + b t + k)^2, in float64."""
    a, b, raw = (value.detach().double() for value in (schedule.a, schedule.b, schedule.raw))
    k = 1e-3 + torch.log1p(raw.exp())

    def risen(at: Tensor) -> Tensor:
        terms = (a**2 * at**5 / 5, a * b * at**4 / 2, (b**2 + 2 * a * k) * at**3 / 3, b * k * at**2, k**2 * at)
        return sum(terms, torch.zeros_like(at))

    t = t[:, None, None, None]
    share = (1 - schedule.floor) * risen(t) / risen(torch.ones_like(t)) + schedule.floor * t
    return schedule.gamma_min + (schedule.gamma_max - schedule.gamma_min) * share


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_gamma_is_the_published_polynomial(floor: float) -> None:
    """L3: with a floor mixed in; to 1e-12, and in float32 to 1e-5, of gammas down to -13."""
    t = torch.linspace(0, 1, 33, dtype=torch.float64)  # which float32 has exactly
    expected = path(bent(floor=floor), t)
    assert expected.std(dim=(1, 2, 3)).max() > 2
    torch.testing.assert_close(bent(floor=floor).double()(t), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(bent(floor=floor)(t.float()).double(), expected, rtol=0, atol=1e-5)


def test_derivative_is_the_slope() -> None:
    """L3: dgamma/dt by central differences, to 1e-6; at least the floor's share of the line's slope."""
    schedule, t = bent().double(), torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    gamma, slope = schedule.with_derivative(t)
    torch.testing.assert_close(slope, (schedule(t + 1e-5) - schedule(t - 1e-5)) / 2e-5, rtol=1e-6, atol=1e-6)
    assert gamma.shape == slope.shape == (50, *SHAPE)
    assert slope.min() >= 0.1 * 18.3
    assert bent(floor=0.0).with_derivative(torch.linspace(0, 1, 500))[1].min() >= 0


@pytest.mark.parametrize("num_steps", [1, 10, 1000])
def test_increments_keep_their_digits(num_steps: int) -> None:
    """L3: the nodes' sum is the difference of the antiderivatives to 1e-12, in float32 to 1e-6 relative; all of T
    steps are gamma_max - gamma_min."""
    t = torch.arange(1, num_steps + 1, dtype=torch.float64) / num_steps
    expected = path(bent(), t) - path(bent(), t - 1 / num_steps)
    found = bent().double().increment(t, 1 / num_steps)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    single = bent().increment(t.float(), 1 / num_steps)
    torch.testing.assert_close(single.double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(found.sum(0), torch.full(SHAPE, 18.3, dtype=torch.float64), rtol=1e-12, atol=0)


def test_ends_stay() -> None:
    """Scalars, and those of every dimension."""
    schedule = bent()
    assert [end.item() for end in schedule.ends(torch.empty(()))] == pytest.approx([-13.3, 5.0], abs=1e-6)
    for t, end in ((0.0, -13.3), (1.0, 5.0)):
        torch.testing.assert_close(schedule(torch.tensor([t])), torch.full((1, *SHAPE), end), rtol=0, atol=1e-6)


def test_it_starts_as_a_line() -> None:
    """L3, in float32: gamma, its derivative and its increments, for times of any shape."""
    line, schedule, t = LinearSchedule(), MultivariatePolynomial(dims=(3,)), torch.linspace(0, 1, 12).reshape(4, 3)
    for found, expected in zip(schedule.with_derivative(t), line.with_derivative(t), strict=True):
        torch.testing.assert_close(found, expected[..., None].expand(4, 3, 3), rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(schedule.increment(t, 0.01), torch.full((4, 3, 3), 0.183), rtol=1e-6, atol=0)


def test_a_grid_is_of_maps() -> None:
    """In equal steps of t; steps equal in gamma there are none."""
    schedule = bent().double()
    grid = gamma_grid(schedule, 4)
    torch.testing.assert_close(grid, path(schedule, torch.linspace(1, 0, 5, dtype=torch.float64)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="spacing 'gamma' needs one gamma for all dimensions, MultivariatePolynomial"):
        gamma_grid(schedule, 4, "gamma")


def test_autocast_leaves_it_alone() -> None:
    """bfloat16 would round gamma to 1 / 16."""
    schedule, t = bent(), torch.linspace(0, 1, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = (*schedule.with_derivative(t), schedule.increment(t, 0.01))
    for a, b in zip(rounded, (*schedule.with_derivative(t), schedule.increment(t, 0.01)), strict=True):
        assert torch.equal(a, b)


def test_bad_input() -> None:
    for floor in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"floor must lie in \[0, 1\), got {floor}"):
            MultivariatePolynomial(floor=floor)
    with pytest.raises(ValueError, match=r"the schedule's dims are \[3\], the samples \[2, 2\]"):
        MultivariatePolynomial(dims=(3,)).for_samples((2, 2))
