"""Ratios of the variances: where they start, what they learn, and the closed form."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from likeness.diffusion.elbo import step_loss
from likeness.diffusion.fitting import fit_ratio, observe_steps
from likeness.diffusion.process import broadcast
from likeness.diffusion.schedules import MonotoneSchedule, PolynomialSchedule
from likeness.diffusion.variance_ratio import ConstantRatio, FittedRatio, LearnedRatio, VarianceRatio
from tests.likeness.diffusion.exact_models import Smooth, four_signs, gaussian_model, model_of

RATIOS: dict[str, Callable[[], VarianceRatio]] = {
    "constant": ConstantRatio,
    "learned": LearnedRatio,
    "learned, per dimension": lambda: LearnedRatio(dims=(3,)),
    "fitted": lambda: FittedRatio(10),
    "fitted, per dimension": lambda: FittedRatio(10, dims=(3,)),
}


def steps(num_steps: int) -> tuple[Tensor, Tensor]:
    gammas = torch.linspace(-13.3, 5.0, num_steps + 1)
    return gammas[:-1], gammas[1:]


@pytest.mark.parametrize("make", RATIOS.values(), ids=RATIOS)
def test_all_start_at_one(make: Callable[[], VarianceRatio]) -> None:
    """rho = 0, and the loss is the one without a ratio, bit for bit."""
    ratio = make()
    rho = ratio(*steps(10))
    assert rho.shape == ((10, 3) if getattr(ratio, "dims", None) else (10,))
    assert (rho == 0).all()
    torch.manual_seed(0)
    plain = model_of(Smooth(), dims=3, num_steps=10)
    x, eps = torch.randn(2, 8, 3, dtype=torch.float64)
    t = torch.rand(8, dtype=torch.float64)
    expected = plain.diffusion_loss(x, t, eps)
    plain.ratio = ratio.double()
    assert torch.equal(plain.diffusion_loss(x, t, eps), expected)


@pytest.mark.parametrize("make", [ConstantRatio, LearnedRatio, lambda: LearnedRatio(dims=(1,))])
def test_learned_ratios_find_the_best(make: Callable[[], VarianceRatio]) -> None:
    """Gradient descent on Gaussian data lowers the bound by most of what the closed form does, never by more."""
    torch.manual_seed(0)
    num_steps, (x, eps) = 10, four_signs(1.0)
    model = gaussian_model(1.0, num_steps=num_steps)
    t = (torch.arange(num_steps, dtype=torch.float64) + 0.5) / num_steps
    arguments = x.repeat(num_steps, 1), t.repeat_interleave(4), eps.repeat(num_steps, 1)
    plain = model.diffusion_loss(*arguments).mean().item()
    best = FittedRatio(num_steps)
    observe_steps(model, best, x, eps)
    model.ratio = best
    lowest = model.diffusion_loss(*arguments).mean().item()
    model.ratio = make().double()
    optimizer = torch.optim.Adam(model.ratio.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.diffusion_loss(*arguments).mean()
        loss.backward()
        optimizer.step()
    gained = (plain - loss.item()) / (plain - lowest)
    assert gained <= 1 + 1e-9
    assert gained > (0.7 if isinstance(model.ratio, ConstantRatio) else 0.97)


@pytest.mark.parametrize("theta", [0.0, 1.0])
def test_theta_interpolates_the_known_variances(theta: float) -> None:
    """theta = 0: sigma_s^2 r, the posterior's; theta = 1: sigma_t^2 r, that of the forward step."""
    ratio = LearnedRatio().double()
    torch.nn.init.constant_(ratio.head.bias, theta)
    gamma_s, gamma_t = (gamma.double() for gamma in steps(10))
    variance = torch.sigmoid(gamma_s) * torch.exp(ratio(gamma_s, gamma_t))
    torch.testing.assert_close(variance, torch.sigmoid(gamma_t if theta else gamma_s), rtol=1e-10, atol=0)


def test_theta_is_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    ratio = LearnedRatio()
    torch.nn.init.normal_(ratio.head.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ratio(*steps(10))
    assert torch.equal(found, ratio(*steps(10)))


def test_only_theta_is_good_for_other_steps() -> None:
    assert {name: make().any_steps for name, make in RATIOS.items()} == {
        "constant": False,
        "learned": True,
        "learned, per dimension": True,
        "fitted": False,
        "fitted, per dimension": False,
    }


def test_fitted_ratio_is_the_closed_form() -> None:
    """log(1 + 2 q) of the mean q a dimension in each bin, over calls; bins without data keep ratio 1."""
    ratio = FittedRatio(2, gamma_min=0.0, gamma_max=2.0)
    low, high = torch.tensor([0.0, 0.2]), torch.tensor([0.5, 0.9])
    ratio.observe(low, high, torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    ratio.observe(low, high, torch.tensor([[5.0, 5.0], [5.0, 5.0]]))
    rho = ratio(torch.tensor([0.1, 1.1]), torch.tensor([0.4, 1.4]))
    torch.testing.assert_close(rho, torch.tensor([math.log(1 + 2 * 3.5), 0.0]))


def test_fitted_ratio_of_each_dimension() -> None:
    ratio = FittedRatio(1, dims=(2,), gamma_min=0.0, gamma_max=2.0)
    ratio.observe(torch.zeros(2), torch.ones(2), torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    torch.testing.assert_close(ratio(torch.zeros(1), torch.ones(1)), torch.log1p(2 * torch.tensor([[1.5, 2.5]])))


@pytest.mark.parametrize("schedule", [PolynomialSchedule, MonotoneSchedule])
@pytest.mark.parametrize("dims", [None, (3,)])
def test_fitting_on_batches_is_the_mean_over_all_samples(
    schedule: type[PolynomialSchedule], dims: tuple[int, ...] | None
) -> None:
    """Each step has its own bin for any schedule; the answer is rho* = log(1 + 2 E[q] / d) and minimises the loss."""
    torch.manual_seed(0)
    model = model_of(Smooth(), schedule=schedule(), dims=3, num_steps=5)
    images = torch.randint(0, 256, (40, 3), generator=torch.Generator().manual_seed(0))
    batches = [(part, None) for part in images.split(15)]
    ratio = fit_ratio(model, batches, torch.Generator().manual_seed(1), dims)

    source = torch.Generator().manual_seed(1)
    eps = torch.cat([torch.randn(len(part), 3, generator=source, dtype=torch.float64) for part, _ in batches])
    x, losses, rhos = model.scale(images, torch.float64), [], []
    for number in range(5):
        step = model.step_error(x, torch.full((40,), (number + 0.5) / 5, dtype=torch.float64), eps)
        q = 0.5 * torch.expm1(broadcast(step.dgamma, x)) * step.error.square()
        expected = torch.log1p(2 * (q.mean() if dims is None else q.mean(0)))
        rho = ratio(step.gamma_s, step.gamma_t)
        torch.testing.assert_close(rho, expected.expand(rho.shape), rtol=1e-10, atol=0)
        losses.append(step_loss(step.error, step.dgamma, rho).mean())
        rhos.append(rho)
    assert all((rho >= 0).all() for rho in rhos)
    better = torch.stack(losses).sum().item()
    t = ((torch.arange(5, dtype=torch.float64) + 0.5) / 5).repeat_interleave(40)
    plain = model.diffusion_loss(x.repeat(5, 1), t, eps.repeat(5, 1)).mean().item()
    assert better < plain


def test_fitted_ratio_survives_a_state_dict() -> None:
    model = model_of(Smooth(), schedule=PolynomialSchedule(), dims=3, num_steps=4)
    images = torch.randint(0, 256, (8, 3), generator=torch.Generator().manual_seed(0))
    ratio = fit_ratio(model, [(images, None)], torch.Generator().manual_seed(0))
    copy = FittedRatio(4)
    copy.load_state_dict(ratio.state_dict())
    gammas = model.schedule(torch.linspace(0, 1, 5, dtype=torch.float64))
    assert torch.equal(copy(gammas[:-1], gammas[1:]), ratio(gammas[:-1], gammas[1:]))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        FittedRatio(0)
    with pytest.raises(ValueError, match="needs finite depth, got num_steps=None"):
        fit_ratio(model_of(Smooth(), dims=3), [], torch.Generator())
    with pytest.raises(ValueError, match="at least one batch"):
        fit_ratio(model_of(Smooth(), dims=3, num_steps=4), [], torch.Generator())
