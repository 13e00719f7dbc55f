"""The terms of the ELBO against the papers' formulas, torch.distributions and each other."""

import math
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from likeness.diffusion.elbo import (
    Estimate,
    bits_per_dim,
    continuous_error,
    continuous_loss,
    estimate,
    latent_loss,
    rate_shift,
    step_error,
    step_loss,
    step_shift,
    variance_cost,
    x_hat,
)
from likeness.diffusion.process import alpha, diffuse, posterior, sigma

SEEDS = st.integers(0, 10_000)
SHAPE = (5, 2, 3)


def normal(seed: int, count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gammas(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    uniform = torch.rand(SHAPE[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (-13.3 + 18.3 * uniform).to(dtype)


def half_squares(values: Tensor) -> Tensor:
    return 0.5 * values.square().flatten(1).sum(1)


def column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1)


def rate_of(
    found: Estimate, direction: Tensor, derivative: Tensor, gamma: Tensor, c: float, kappa: Tensor | None = None
) -> Tensor:
    return continuous_error(found.noise_error, rate_shift(found, direction, derivative, gamma, c), kappa)


def error_of_step(
    found: Estimate,
    directions: tuple[Tensor, Tensor],
    gammas: tuple[Tensor, Tensor],
    dgamma: Tensor,
    c: float,
    kappa: Tensor | None = None,
) -> Tensor:
    return step_error(found.noise_error, step_shift(found, directions, gammas, dgamma, c), dgamma, kappa)


@given(seed=SEEDS)
def test_predictions_of_the_same_data_cost_the_same(seed: int) -> None:
    """O23, to 1e-12: eps-, v- and x-prediction of one x_hat; their x_hat and their losses agree."""
    x_t, eps, guess = normal(seed, 3)
    gamma = gammas(seed)
    a, s = column(alpha(gamma)), column(sigma(gamma))
    z = diffuse(x_t, gamma, eps)
    outputs = {"x": guess, "eps": (z - a * guess) / s, "v": (a * z - guess) / s}
    found = {name: estimate(output, z, x_t, eps, gamma, name) for name, output in outputs.items()}  # type: ignore[arg-type]
    for name, output in outputs.items():
        scale = (1 / a).max().item()
        torch.testing.assert_close(found[name].x, guess, rtol=1e-10, atol=1e-13 * scale)
        torch.testing.assert_close(x_hat(output, z, gamma, name), found[name].x)  # type: ignore[arg-type]
        torch.testing.assert_close(found[name].noise_error, found["x"].noise_error, rtol=1e-12, atol=1e-12 * scale)


@given(seed=SEEDS)
def test_continuous_losses_are_vdm_s(seed: int) -> None:
    """The three forms of VDM's loss: g' / 2 times |eps - eps_hat|^2, alpha^2 |v - v_hat|^2 or SNR |x - x_hat|^2."""
    x, eps, output = normal(seed, 3)
    gamma, slope = gammas(seed), torch.full(SHAPE[:1], 18.3, dtype=torch.float64)
    z, a, s = diffuse(x, gamma, eps), column(alpha(gamma)), column(sigma(gamma))
    expected = {
        "eps": slope * half_squares(eps - output),
        "v": slope * half_squares(a * (a * eps - s * x - output)),
        "x": slope * half_squares(a / s * (x - output)),
    }
    zero = torch.zeros_like(x)
    for name, loss in expected.items():
        found = estimate(output, z, x, eps, gamma, name)  # type: ignore[arg-type]
        error = rate_of(found, zero, zero, gamma, 0.0)
        torch.testing.assert_close(continuous_loss(error, slope), loss, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@given(seed=SEEDS)
def test_trainable_form_is_the_generic_one(dtype: torch.dtype, digits: float, seed: int) -> None:
    """O4: |v - v_hat + sigma (x_hat - x_t + y + D y)|^2 alpha^2 equals the generic form, in exact arithmetic."""
    x, eps, output, y, derivative = normal(seed, 5)
    gamma = gammas(seed)
    variance, a, s = column(torch.sigmoid(gamma)), column(alpha(gamma)), column(sigma(gamma))
    x_t = x + variance * (y - x)
    z = diffuse(x_t, gamma, eps)
    guess = a * z - s * output
    as_coded = a * (a * eps - s * x_t - output + s * (guess - x_t + y + derivative))
    generic = torch.exp(-0.5 * column(gamma)) * ((1 + variance) * guess - x_t + variance * (y - x_t + derivative))
    torch.testing.assert_close(half_squares(as_coded), half_squares(generic), rtol=1e-9, atol=0)
    cast = [value.to(dtype) for value in (output, z, x_t, eps, y - x, derivative, gamma)]
    output, z, x_t, eps, direction, derivative, gamma = cast
    found = rate_of(estimate(output, z, x_t, eps, gamma, "v"), direction, derivative, gamma, 1.0)
    torch.testing.assert_close(half_squares(found).double(), half_squares(as_coded), rtol=digits, atol=0)


@given(seed=SEEDS)
def test_parameter_free_form(seed: int) -> None:
    """O4, to 1e-12: with u = -x the loss is alpha^2 (1 + sigma^2)^2 |v - v_hat|^2."""
    x, eps, output = normal(seed, 3)
    gamma = gammas(seed)
    variance, a, s = column(torch.sigmoid(gamma)), column(alpha(gamma)), column(sigma(gamma))
    x_t = (1 - variance) * x
    z = diffuse(x_t, gamma, eps)
    found = rate_of(estimate(output, z, x_t, eps, gamma, "v"), -x, torch.zeros_like(x), gamma, 1.0)
    expected = half_squares(a * (1 + variance) * (a * eps - s * x_t - output))
    torch.testing.assert_close(half_squares(found), expected, rtol=1e-12, atol=0)


@given(seed=SEEDS)
def test_identity_encoder_with_the_counter_term(seed: int) -> None:
    """O6, to 1e-12: y = x with x_hat / (1 + sigma^2) costs what VDM's x_hat costs; the same v_hat does not."""
    x, eps, guess = normal(seed, 3)
    gamma = gammas(seed)
    z, zero = diffuse(x, gamma, eps), torch.zeros_like(x)
    vdm = rate_of(estimate(guess, z, x, eps, gamma, "x"), zero, zero, gamma, 0.0)
    shrunk = estimate(guess / (1 + column(torch.sigmoid(gamma))), z, x, eps, gamma, "x")
    with_counter = rate_of(shrunk, zero, zero, gamma, 1.0)
    scale = torch.exp(-0.5 * gamma).max().item()
    torch.testing.assert_close(with_counter, vdm, rtol=1e-12, atol=1e-12 * scale)
    same_output = rate_of(estimate(guess, z, x, eps, gamma, "x"), zero, zero, gamma, 1.0)
    assert not torch.allclose(same_output, vdm)


@given(
    seed=SEEDS,
    dgamma=st.floats(1e-3, 8),
    c=st.sampled_from([0.0, 1.0]),
    volatility=st.sampled_from([None, (5,), (1, 2, 3)]),
)
def test_a_step_is_the_divergence_of_two_gaussians(
    seed: int, dgamma: float, c: float, volatility: tuple[int, ...] | None
) -> None:
    """O3, to 1e-10: KL(q(z_s | z_t, x) || p(z_s | z_t)) by torch.distributions, at equal and at other variances.

    And at volatilities: 1, one a sample, one a dimension.
    """
    kappa = None
    if volatility is not None:
        kappa = torch.exp(torch.randn(volatility, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    x, eps, output, u_s, u_t = normal(seed, 5)
    gamma_t = gammas(seed)
    width = torch.full_like(gamma_t, dgamma)
    gamma_s = gamma_t - width
    rho = 0.7 * torch.rand(*SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x_s, x_t = (x + column(torch.sigmoid(gamma)) * u for gamma, u in ((gamma_s, u_s), (gamma_t, u_t)))
    z = diffuse(x_t, gamma_t, eps)
    found = estimate(output, z, x_t, eps, gamma_t, "v")
    q = posterior(z, x_s, x_t, gamma_s, gamma_t, kappa)
    moved = found.x * (1 + c * column(width * torch.sigmoid(gamma_t)))
    p_mean = posterior(z, moved, found.x, gamma_s, gamma_t, kappa).mean
    error = error_of_step(found, (u_s, u_t), (gamma_s, gamma_t), width, c, kappa)
    for spread in (None, rho[:, 0, 0], rho):
        wider = torch.zeros(()) if spread is None else spread if spread.dim() == 3 else column(spread)
        p = Normal(p_mean, (q.variance * torch.exp(wider)).sqrt())
        expected = kl_divergence(Normal(q.mean, q.variance.sqrt().expand_as(q.mean)), p).flatten(1).sum(1)
        torch.testing.assert_close(step_loss(error, width, spread), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("c", [0.0, 1.0])
@pytest.mark.parametrize("kappa", [None, 0.3, 2.5])
def test_short_steps_tend_to_the_rate(c: float, kappa: float | None) -> None:
    """O8, L9: the step's loss over dgamma against the continuous rate; the gap falls tenfold with the step, to 5 %."""
    volatility = None if kappa is None else torch.full(SHAPE[:1], kappa, dtype=torch.float64)
    x, eps, output, y, slope = normal(3, 5)
    gamma = torch.linspace(-6, 4, SHAPE[0], dtype=torch.float64)

    def direction(at: Tensor) -> tuple[Tensor, Tensor]:
        phase = slope * column(at)
        return (torch.sin(phase) * y - x), slope * torch.cos(phase) * y

    u_t, derivative = direction(gamma)
    x_t = x + column(torch.sigmoid(gamma)) * u_t
    found = estimate(output, diffuse(x_t, gamma, eps), x_t, eps, gamma, "v")
    rate = half_squares(rate_of(found, u_t, derivative, gamma, c, volatility))
    gaps = []
    for width in (0.1, 0.01, 0.001, 0.0001):
        dgamma = torch.full_like(gamma, width)
        error = error_of_step(
            found, (direction(gamma - dgamma)[0], u_t), (gamma - dgamma, gamma), dgamma, c, volatility
        )
        gaps.append((step_loss(error, dgamma) / width / rate - 1).abs().max().item())
    slopes = [math.log10(wide / narrow) for wide, narrow in pairwise(gaps[1:])]
    assert slopes == pytest.approx([1, 1], abs=0.05)
    assert gaps[-1] < 1e-3


def test_ratio_one_is_the_standard_loss_bit_for_bit() -> None:
    """O9: rho = 0."""
    error, dgamma = normal(0, 1)[0], torch.full(SHAPE[:1], 0.3, dtype=torch.float64)
    for rho in (torch.zeros(SHAPE[0]), torch.zeros(1, *SHAPE[1:])):
        assert torch.equal(step_loss(error, dgamma, rho.double()), step_loss(error, dgamma))


def test_the_best_ratio_is_where_the_paper_says() -> None:
    """O9: dKL/drho = 0 at exp(rho) = 1 + 2 q / d, to 1e-10; convex there, with value d / 2 log(1 + 2 q / d)."""
    error, dgamma = normal(0, 1)[0][:1], torch.tensor([0.3], dtype=torch.float64)
    dims, q = error[0].numel(), step_loss(error, dgamma)
    rho = torch.log1p(2 * q / dims).requires_grad_()
    loss = step_loss(error, dgamma, rho)
    (first,) = torch.autograd.grad(loss.sum(), rho, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), rho)
    assert first.abs().item() < 1e-10
    assert second.item() > 0
    torch.testing.assert_close(loss, dims / 2 * rho, rtol=1e-12, atol=0)


def test_unequal_variances_cost_infinity_in_the_limit() -> None:
    """O9: of w = .99 and .9 over 1000 steps .036 and 3.87 bits a dimension, growing linearly with the steps."""
    for w, bits in ((0.99, 0.036), (0.9, 3.87)):
        cost = 0.5 * variance_cost(torch.tensor(-math.log(w), dtype=torch.float64)).item()
        assert cost == pytest.approx(0.5 * (w - 1 - math.log(w)), rel=1e-10)
        assert 1000 * cost / math.log(2) == pytest.approx(bits, rel=0.01)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 2e-5), (torch.float64, 1e-9)])
def test_variance_cost_keeps_its_digits(dtype: torch.dtype, digits: float) -> None:
    """exp(-rho) - 1 + rho from 1e-6 to 10, either sign, against its series in many terms."""
    rho = torch.logspace(-6, 1, 200, dtype=torch.float64)
    rho = torch.cat([rho, -rho])
    expected = torch.stack([(-rho) ** n / float(math.factorial(n)) for n in range(2, 80)]).sum(0)
    torch.testing.assert_close(variance_cost(rho.to(dtype)).double(), expected, rtol=digits, atol=0)
    at = torch.tensor([0.0, 0.02, -0.02], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(variance_cost(at).sum(), at)
    torch.testing.assert_close(slope, -torch.expm1(-at).detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("square", [0.0, 0.3, 1.0])
def test_latent_loss_is_the_papers_number(square: float) -> None:
    """O17, to 1e-6: (1.62286e-5 + 4.827871e-3 E[x_1^2]) bits a dimension; and torch.distributions' divergence."""
    gamma_1 = torch.tensor(5.0, dtype=torch.float64)
    x_1 = torch.full((2, 3, 4, 4), math.sqrt(square), dtype=torch.float64)
    found = bits_per_dim(latent_loss(x_1, gamma_1), 48)
    torch.testing.assert_close(found, torch.full_like(found, 1.62286e-5 + 4.827871e-3 * square), rtol=0, atol=1e-8)
    q = Normal(alpha(gamma_1) * x_1, sigma(gamma_1))
    expected = kl_divergence(q, Normal(torch.zeros_like(x_1), 1)).flatten(1).sum(1)
    torch.testing.assert_close(latent_loss(x_1, gamma_1), expected, rtol=1e-9, atol=0)
