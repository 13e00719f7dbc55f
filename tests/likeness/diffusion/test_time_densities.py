"""Densities of the times: their inverses, that they change no expectation, and what they do to the variance."""

import math
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from likeness.diffusion.multivariate import MultivariatePolynomial
from likeness.diffusion.process import Noise, stratified
from likeness.diffusion.schedules import LinearSchedule, NoiseSchedule, PolynomialSchedule
from likeness.diffusion.times import DECAY, MINIMUM, AdaptiveDensity, SignalDensity, TimeDensity
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, four_signs, gaussian_model, legendre

MEAN = 13.293286326  # L1: the integral of alpha^2 over gamma, of white data
MEAN_SQUARE = 12.299980851  # and that of alpha^4


def learned(num_bins: int = 8, floor: float = 0.2) -> AdaptiveDensity:
    """A density that has seen losses of a deviation of 2 - t."""
    density = AdaptiveDensity(num_bins, floor)
    source = torch.Generator().manual_seed(0)
    for _ in range(60):
        t = torch.rand(200, generator=source, dtype=torch.float64)
        density.observe(t, 5 + (2 - t) * torch.randn(200, generator=source, dtype=torch.float64))
    return density


def along(schedule: NoiseSchedule) -> SignalDensity:
    """Alpha^2 along the path of a schedule."""
    density = SignalDensity()
    density.for_schedule(schedule)
    return density


def paths() -> MultivariatePolynomial:
    """Of six dimensions, far from each other: at t = 1/2 their gammas differ by up to 8."""
    schedule = MultivariatePolynomial(dims=[2, 3]).double()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (schedule.a, schedule.b, schedule.raw):
            parameter.copy_(3 * torch.randn(2, 3, generator=source, dtype=torch.float64))
    return schedule


MAKE: dict[str, Callable[[], TimeDensity]] = {
    "signal": SignalDensity,
    "signal of small data": lambda: SignalDensity(0.1),
    "signal along a curve": lambda: along(PolynomialSchedule().double()),
    "signal along many": lambda: along(paths()),
    "adaptive, new": AdaptiveDensity,
    "adaptive": learned,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_exact(dtype: torch.dtype) -> None:
    """L2: gamma(0) = -13.3 and gamma(1) = 5, in float32 too; in between to 4e-6 in gamma."""
    density, schedule = SignalDensity(), LinearSchedule()
    u = torch.tensor([0.0, 1.0], dtype=dtype)
    gamma = schedule(density(u).t)
    assert gamma.tolist() == pytest.approx([-13.3, 5.0], abs=2e-6 if dtype == torch.float32 else 1e-12)
    near = 1 - torch.tensor([1e-2, 1e-4, 1e-6], dtype=dtype)
    exact = schedule(density(near.double()).t)
    assert (schedule(density(near).t) - exact).abs().max() < 4e-6


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_the_inverse_belongs_to_the_weight(make: Callable[[], TimeDensity]) -> None:
    """L2: dt/du is the weight 1 / p(t), by autograd; t increases from 0 to 1, so its area is 1."""
    density = make()
    u = ((torch.arange(997, dtype=torch.float64) + 0.5) / 997).requires_grad_()
    t, weight = density(u)
    (slope,) = torch.autograd.grad(t.sum(), u)
    torch.testing.assert_close(weight.detach(), slope, rtol=1e-9, atol=0)
    assert (t.detach().diff() > 0).all()
    assert density(torch.tensor([0.0, 1 - 1e-12], dtype=torch.float64)).t.tolist() == pytest.approx([0, 1], abs=1e-9)


@given(seed=st.integers(0, 1000), floor=st.floats(0.05, 1))
def test_adaptive_densities_have_mean_one_and_bounded_weights(seed: int, floor: float) -> None:
    """L2, to 1e-12: of any losses; no weight is above 1 / floor."""
    density, source = AdaptiveDensity(6, floor), torch.Generator().manual_seed(seed)
    t = torch.rand(600, generator=source, dtype=torch.float64)
    density.observe(t, torch.exp(3 * torch.randn(600, generator=source, dtype=torch.float64)) * t)
    assert density.density.mean().item() == pytest.approx(1, abs=1e-12)
    assert density(torch.rand(100, dtype=torch.float64)).weight.max() <= 1 / floor + 1e-9


def test_adaptive_density_is_proportional_to_the_deviation() -> None:
    """What it was shown, 2 - t, between the floor and within 10 %."""
    middle = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    expected = 0.8 * (2 - middle) / (2 - middle).mean() + 0.2
    torch.testing.assert_close(learned().density, expected, rtol=0.1, atol=0)


def test_it_is_uniform_until_every_bin_is_known() -> None:
    density = AdaptiveDensity(4)
    full = torch.arange(4 * (MINIMUM - 1), dtype=torch.float64) % 4 / 4 + 0.1
    density.observe(full, full.square())
    assert (density.density == 1).all()
    density.observe(torch.tensor([0.1, 0.3, 0.6]).double(), torch.ones(3).double())
    assert (density.density == 1).all()  # the last bin lacks one
    density.observe(torch.tensor([0.9]).double(), torch.ones(1).double())
    assert not (density.density == 1).any()
    same = AdaptiveDensity(2)
    same.observe(torch.linspace(0, 0.99, 100).double(), torch.ones(100).double())
    assert (same.density == 1).all()  # losses without spread say nothing


def test_what_a_bin_remembers_decays_with_each_observation() -> None:
    density = AdaptiveDensity(2)
    density.observe(torch.tensor([0.1, 0.2, 0.9]).double(), torch.tensor([1.0, 3.0, 7.0]).double())
    density.observe(torch.tensor([0.3]).double(), torch.tensor([5.0]).double())
    expected = torch.tensor([[2 * DECAY + 1, 1], [4 * DECAY + 5, 7], [10 * DECAY + 25, 49]]).double()
    torch.testing.assert_close(density.sums, expected)
    assert density.seen.tolist() == [3, 1]


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("num_steps", [None, 24])
def test_no_density_changes_the_expectation(make: Callable[[], TimeDensity], num_steps: int | None) -> None:
    """Of the diffusion term, integrated over u; in finite depth too. To 1e-4: quadrature over the steps' edges."""
    model, density = gaussian_model(1.0, 0.0, True, num_steps=num_steps), make()
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x, eps = four_signs(1.0)

    def term(of: TimeDensity | None) -> float:
        noise = Noise(u, u, u).at_times_of(of)
        loss = model.diffusion_loss(x.repeat(20_000, 1), noise.t.repeat_interleave(4), eps.repeat(20_000, 1))
        weight = torch.ones_like(u) if noise.weight is None else noise.weight
        return (weight * loss.reshape(-1, 4).mean(1)).mean().item()

    assert term(density) == pytest.approx(term(None), rel=1e-4)


def relative_variance(variance: float, density: TimeDensity | None, dims: int) -> float:
    """Of one independent time's estimate, over its squared mean: rates are alpha^2 chi^2 / 2, of ``dims`` dimensions.

    In closed form but for the integral over u.
    """
    u, weights = legendre(200)
    t, weight = (u, torch.ones_like(u)) if density is None else density(u)
    gamma = LinearSchedule()(t)
    mean = 0.5 * (GAMMA_1 - GAMMA_0) * weight * torch.sigmoid(math.log(variance) - gamma)
    return ((weights * mean.square()).sum() * (1 + 2 / dims) / (weights * mean).sum().square()).item() - 1


@pytest.mark.parametrize(
    ("variance", "density", "dims", "expected"),
    [
        (1.0, None, 64, 0.31357468),
        (1.0, None, 3072, 0.27459866),
        (1.0, SignalDensity(), 64, 0.03125),
        (1.0, SignalDensity(), 3072, 0.00065104),
        (0.25, None, 64, 0.45149739),
        (0.25, SignalDensity(), 64, 0.07849277),
        (0.25, SignalDensity(0.25), 64, 0.03125),
    ],
)
def test_variance_of_independent_times(
    variance: float, density: TimeDensity | None, dims: int, expected: float
) -> None:
    """L1, to 1e-7: uniform, alpha^2 and the density for the data's variance, which is the best."""
    assert relative_variance(variance, density, dims) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("density", "expected"), [(None, 2 / 64 * 1.27377), (SignalDensity(), 2 / 64)])
def test_variance_of_stratified_times(density: TimeDensity | None, expected: float) -> None:
    """L1 by the model itself: 64 dimensions, 128 times; within four standard errors, and uniform's jump at the ends."""
    model, rounds, size = gaussian_model(1.0), 600, 128
    source = torch.Generator().manual_seed(0)
    means = []
    for _ in range(rounds):
        offset = torch.rand((), generator=source, dtype=torch.float64)
        noise = Noise(stratified(offset, size), offset, offset).at_times_of(density)
        x, eps = torch.randn(2, size, 64, generator=source, dtype=torch.float64)
        loss = model.diffusion_loss(x, noise.t, eps)
        means.append((loss if noise.weight is None else noise.weight * loss).mean())
    found = size * torch.stack(means).var().item() / (64 * MEAN / 2) ** 2
    wrap = 0.00123 if density is None else 0.0
    assert found == pytest.approx(expected + wrap, rel=4 * math.sqrt(2 / rounds))


def test_the_moments_of_the_oracle() -> None:
    """L1's P and the integral of alpha^4, by which the variances above are known."""
    gamma = torch.linspace(GAMMA_0, GAMMA_1, 200_001, dtype=torch.float64)
    precision = torch.sigmoid(-gamma)
    assert torch.trapezoid(precision, gamma).item() == pytest.approx(MEAN, abs=1e-8)
    assert torch.trapezoid(precision.square(), gamma).item() == pytest.approx(MEAN_SQUARE, abs=1e-8)


def test_the_line_runs_between_the_schedule_s_limits() -> None:
    """gamma(u) at both ends of the digits' schedule."""
    density, schedule = SignalDensity(), LinearSchedule(-7.9, 5.0)
    density.for_schedule(schedule)
    gamma = schedule(density(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).t)
    assert gamma[0].item() == pytest.approx(-7.9, abs=1e-9)
    assert gamma[2].item() == pytest.approx(5.0, abs=1e-9)
    below = torch.sigmoid(-torch.linspace(-7.9, gamma[1].item(), 10_001, dtype=torch.float64))
    above = torch.sigmoid(-torch.linspace(gamma[1].item(), 5.0, 10_001, dtype=torch.float64))
    assert (below.mean() * (gamma[1] + 7.9)).item() == pytest.approx((above.mean() * (5 - gamma[1])).item(), rel=1e-3)


def test_along_many_paths_white_data_lose_the_same_at_all_times() -> None:
    """p(t) is their rate, sum_i alpha_i^2 dgamma_i/dt / 2, but for the hundredth that is uniform: 3 % in a bin."""
    schedule = paths()
    middle = schedule(torch.tensor([0.5]).double()).detach()
    assert float(middle.max() - middle.min()) > 8
    t, weight = along(schedule)((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    gamma, speed = (part.detach() for part in schedule.with_derivative(t))
    rate = (torch.sigmoid(-gamma) * speed).flatten(1).mean(1) / 2
    weighted = weight * rate
    assert weighted.mean().item() == pytest.approx(MEAN / 2, rel=1e-3)
    assert float(weighted.std() / weighted.mean()) < 0.03
    of_line = SignalDensity()((torch.arange(4000, dtype=torch.float64) + 0.5) / 4000)
    gamma, speed = (part.detach() for part in schedule.with_derivative(of_line.t))
    as_before = of_line.weight * (torch.sigmoid(-gamma) * speed).flatten(1).mean(1) / 2
    assert float(as_before.std() / as_before.mean()) > 2  # the density of a line is none of these paths


def test_what_a_schedule_has_learned_is_followed_and_saved_once() -> None:
    schedule = MultivariatePolynomial(dims=[3])
    density = along(schedule)
    u = torch.rand(50, generator=torch.Generator().manual_seed(0))
    line = SignalDensity()(u)
    torch.testing.assert_close(density(u).t, line.t, rtol=0, atol=1 / 128)  # at first it is one
    with torch.no_grad():
        schedule.a.fill_(2.0)
    assert (density(u).t - line.t).abs().max() > 0.05
    assert density.state_dict() == {}
    assert not any(part.requires_grad for part in density(u))


def test_casts_leave_the_sums_alone_and_losses_that_are_no_numbers_are_left_out() -> None:
    density = learned().to(torch.bfloat16)
    assert density.sums.dtype == torch.float64
    assert torch.equal(density.sums, learned().sums)
    density.observe(torch.tensor([0.1, 0.6]), torch.tensor([math.nan, math.inf]))
    assert torch.equal(density.sums, learned().sums)


def test_it_survives_a_state_dict() -> None:
    density, copy = learned(), AdaptiveDensity(8)
    copy.load_state_dict(density.state_dict())
    u = torch.rand(10)
    assert all(torch.equal(a, b) for a, b in zip(density(u), copy(u), strict=True))


def test_no_density_leaves_noise_alone() -> None:
    noise = Noise(torch.rand(3), torch.rand(3, 2), torch.rand(3, 2))
    assert noise.at_times_of(None) is noise


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SignalDensity(0.0), "variance must be a positive number, got 0.0"),
        (lambda: SignalDensity(math.nan), "variance must be a positive number, got nan"),
        (lambda: AdaptiveDensity(0), "num_bins must be at least 1, got 0"),
        (lambda: AdaptiveDensity(floor=0.0), r"floor must lie in \(0, 1\], got 0.0"),
    ],
)
def test_bad_input(build: Callable[[], TimeDensity], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
