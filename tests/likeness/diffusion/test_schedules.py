"""Noise schedules: ends, derivatives, increments, and the gradient that minimises the loss's variance."""

from collections.abc import Callable

import pytest
import torch

from likeness.diffusion.schedules import (
    AffineSchedule,
    LinearSchedule,
    MonotoneSchedule,
    NoiseSchedule,
    PolynomialSchedule,
    gamma_grid,
)
from tests.likeness.diffusion.exact_models import Smooth, model_of

SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "linear": LinearSchedule,
    "polynomial": PolynomialSchedule,
    "affine": AffineSchedule,
    "monotone": MonotoneSchedule,
}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    torch.manual_seed(0)
    made = SCHEDULES[request.param]()
    if isinstance(made, MonotoneSchedule):
        bend(made)
    return made


def bend(schedule: MonotoneSchedule) -> None:
    """Far from a line, as training may leave it."""
    torch.nn.init.normal_(schedule.scale, std=4)
    torch.nn.init.normal_(schedule.bias, std=2)
    torch.nn.init.normal_(schedule.height, std=40)


def test_ends_are_exact(schedule: NoiseSchedule) -> None:
    first, last = schedule.ends(torch.empty(()))
    assert (first.item(), last.item()) == pytest.approx((-13.3, 5.0), abs=1e-6)
    t = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(schedule(t), torch.tensor([-13.3, 5.0]), rtol=0, atol=2e-6)


def test_increases(schedule: NoiseSchedule) -> None:
    gamma, slope = schedule.double().with_derivative(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert (gamma.diff() > 0).all()
    assert (slope > 0).all()


def test_derivative_is_that_of_the_schedule(schedule: NoiseSchedule) -> None:
    """Against automatic differentiation, to 1e-10, for times of any shape; also where there is no graph."""
    t = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    gamma = schedule.double()(t)
    (expected,) = torch.autograd.grad(gamma.sum(), t)
    with torch.no_grad():
        found, slope = schedule.with_derivative(t)
    assert torch.equal(found, gamma)
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("num_steps", [1, 10, 1000, 100_000])
def test_increments_keep_their_digits_in_float32(schedule: NoiseSchedule, num_steps: int) -> None:
    """gamma(t) - gamma(t - 1 / T) to 1e-5, where float32's gammas differ by little more than their rounding."""
    step = torch.tensor([1, num_steps // 3 + 1, num_steps], dtype=torch.float64)
    found = schedule.increment((step / num_steps).float(), 1 / num_steps)
    precise = schedule.double()
    expected = precise(step / num_steps) - precise((step - 1) / num_steps)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_schedule_is_exempt_from_autocast(schedule: NoiseSchedule) -> None:
    """bfloat16 would round gamma to 1 / 16."""
    t = torch.linspace(0, 1, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = (*schedule.with_derivative(t), schedule.increment(t, 0.01))
    for found, expected in zip(rounded, (*schedule.with_derivative(t), schedule.increment(t, 0.01)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("low", "high"), [(5.0, -13.3), (1.0, 1.0), (-13.3, float("nan")), (float("-inf"), 5.0)])
def test_limits_that_do_not_increase_are_refused(make: Callable[..., NoiseSchedule], low: float, high: float) -> None:
    with pytest.raises(ValueError, match=rf"gamma_min must be below gamma_max, got gamma_min={low}"):
        make(low, high)


def test_a_polynomial_that_falls_somewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"does not increase everywhere.*gamma_max=-3"):
        PolynomialSchedule(-13.3, -3.0)


def test_width_is_checked() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        MonotoneSchedule(width=0)


def test_monotone_ends_stay_while_its_shape_is_trained() -> None:
    """What Google's code lets drift: gamma(0) and gamma(1) are the limits whatever the parameters are."""
    schedule = MonotoneSchedule(width=8)
    optimizer = torch.optim.SGD(schedule.parameters(), lr=0.1)
    t = torch.linspace(0, 1, 9)
    for _ in range(5):
        optimizer.zero_grad()
        (schedule(t) ** 2).mean().backward()
        optimizer.step()
    ends = schedule(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([-13.3, 5.0]), rtol=0, atol=2e-6)
    assert schedule.limits.grad is None


def test_monotone_ends_learn_when_asked() -> None:
    schedule = MonotoneSchedule(width=8, learn_ends=True)
    assert schedule.learned_ends
    schedule(torch.tensor([1.0])).sum().backward()
    torch.testing.assert_close(schedule.limits.grad, torch.tensor([0.0, 1.0]), rtol=0, atol=1e-6)


def test_affine_gradients() -> None:
    schedule = AffineSchedule()
    gamma, slope = schedule.with_derivative(torch.tensor([0.25]))
    (gamma + 10 * slope).sum().backward()
    assert schedule.b.grad is not None
    assert schedule.w.grad is not None
    assert (schedule.b.grad.item(), schedule.w.grad.item()) == pytest.approx((1.0, 10.25))


@pytest.mark.parametrize("num_steps", [None, 7])
def test_shape_is_trained_on_the_squared_loss(num_steps: int | None) -> None:
    """VDM, appendix I.2: the shape's gradient is that of the mean squared loss, the others' that of the mean loss."""
    torch.manual_seed(0)
    schedule = MonotoneSchedule(width=4, learn_ends=True, minimise_variance=True)
    model = model_of(Smooth(), schedule=schedule, dims=3, num_steps=num_steps)
    x, eps = torch.randn(2, 6, 3, dtype=torch.float64)
    t = torch.rand(6, dtype=torch.float64)

    loss = model.diffusion_loss(x, t, eps)
    schedule.weigh_gradient(loss)
    loss.mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    schedule.minimise_variance = False
    for power in (1, 2):
        model.zero_grad()
        model.diffusion_loss(x, t, eps).pow(power).mean().backward()
        for name, parameter in model.named_parameters():
            of_shape = name.startswith("schedule") and name != "schedule.limits"
            if of_shape == (power == 2):
                torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_forgetting_the_losses_is_an_error() -> None:
    schedule = MonotoneSchedule(width=4, minimise_variance=True)
    with pytest.raises(RuntimeError, match="needs weigh_gradient"):
        schedule(torch.tensor([0.5])).sum().backward()


@pytest.mark.parametrize("spacing", ["t", "gamma"])
def test_grid_runs_from_noise_to_data(schedule: NoiseSchedule, spacing: str) -> None:
    grid = gamma_grid(schedule, 10, spacing)  # type: ignore[arg-type]
    assert grid.shape == (11,)
    assert grid.dtype == torch.float64
    assert (grid.diff() < 0).all()
    assert (grid[0].item(), grid[-1].item()) == pytest.approx((5.0, -13.3), abs=1e-6)
    if spacing == "gamma":
        torch.testing.assert_close(grid.diff(), torch.full((10,), -1.83, dtype=torch.float64), rtol=1e-6, atol=0)
    else:
        t = torch.linspace(1, 0, 11)
        torch.testing.assert_close(grid.float(), schedule(t).detach(), rtol=0, atol=5e-6)


def test_grids_are_checked() -> None:
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        gamma_grid(LinearSchedule(), 0)
    with pytest.raises(ValueError, match="spacing must be one of t, gamma, got 'snr'"):
        gamma_grid(LinearSchedule(), 5, "snr")  # type: ignore[arg-type]
