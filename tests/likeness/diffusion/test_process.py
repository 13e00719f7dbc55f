"""The forward process and its posteriors against Gaussian conditioning in plain formulas."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from likeness.diffusion.process import alpha, broadcast, diffuse, posterior, sigma, snr

GAMMAS = st.lists(st.floats(-13.3, 5.0), min_size=2, max_size=2, unique=True).filter(lambda g: abs(g[0] - g[1]) > 1e-6)


def pair(gammas: list[float]) -> tuple[Tensor, Tensor]:
    gamma_s, gamma_t = torch.tensor(sorted(gammas), dtype=torch.float64)
    return gamma_s, gamma_t


@given(gammas=GAMMAS)
def test_signal_and_noise_add_to_one(gammas: list[float]) -> None:
    """O1, to 1e-12: variances sum to 1; SNR(s) r is the difference of the SNRs, and SNR(t) expm1(dgamma)."""
    gamma_s, gamma_t = pair(gammas)
    torch.testing.assert_close(alpha(gamma_t) ** 2 + sigma(gamma_t) ** 2, torch.ones_like(gamma_t), rtol=1e-12, atol=0)
    torch.testing.assert_close(snr(gamma_t), alpha(gamma_t) ** 2 / sigma(gamma_t) ** 2, rtol=1e-12, atol=0)
    kept = -torch.expm1(gamma_s - gamma_t)
    difference = snr(gamma_t) * torch.expm1(gamma_t - gamma_s)
    torch.testing.assert_close(snr(gamma_s) * kept, difference, rtol=1e-12, atol=0)
    cancelled = 1e-12 * snr(gamma_s).item()
    torch.testing.assert_close(snr(gamma_s) - snr(gamma_t), difference, rtol=1e-12, atol=cancelled)


@given(gammas=GAMMAS, values=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_posterior_is_gaussian_conditioning(gammas: list[float], values: list[float]) -> None:
    """O2, to 1e-12: q(z_s | x) times q(z_t | z_s, x), for means that change between the depths."""
    gamma_s, gamma_t = pair(gammas)
    z_t, x_s, x_t = torch.tensor(values, dtype=torch.float64).reshape(3, 1, 1)
    ratio = alpha(gamma_t) / alpha(gamma_s)
    # sigma_t^2 - ratio^2 sigma_s^2, as a product that does not cancel
    spread = torch.sigmoid(gamma_t) * -torch.expm1(gamma_s - gamma_t)
    precision = 1 / torch.sigmoid(gamma_s) + ratio**2 / spread
    prior = alpha(gamma_s) * x_s / torch.sigmoid(gamma_s)
    evidence = ratio * (z_t - alpha(gamma_t) * (x_t - x_s)) / spread
    found = posterior(z_t, x_s, x_t, gamma_s[None], gamma_t[None])
    deviation = found.variance.sqrt().item()
    torch.testing.assert_close(found.variance.squeeze(), 1 / precision, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.mean, (prior + evidence) / precision, rtol=1e-12, atol=1e-12 * deviation)


def test_posterior_by_sampling_the_forward_process() -> None:
    """Monte-Carlo of q(z_s, z_t | x): the residual z_s - mean has the posterior's variance and ignores z_t."""
    generator = torch.Generator().manual_seed(0)
    gamma_s, gamma_t = torch.tensor([-1.0, 1.5], dtype=torch.float64)
    x_s, x_t = 0.4, -0.7
    eps, eta = torch.randn(2, 200_000, 1, generator=generator, dtype=torch.float64)
    z_s = alpha(gamma_s) * x_s + sigma(gamma_s) * eps
    ratio = alpha(gamma_t) / alpha(gamma_s)
    spread = torch.sigmoid(gamma_t) - ratio**2 * torch.sigmoid(gamma_s)
    z_t = ratio * z_s + alpha(gamma_t) * (x_t - x_s) + spread.sqrt() * eta
    mean, variance = posterior(z_t, torch.full_like(z_t, x_s), torch.full_like(z_t, x_t), gamma_s, gamma_t)
    residual = z_s - mean
    assert residual.mean().item() == pytest.approx(0, abs=4 * (variance / len(eps)).sqrt().item())
    assert residual.var().item() == pytest.approx(variance.item(), rel=4 * (2 / len(eps)) ** 0.5)
    assert torch.corrcoef(torch.cat([residual, z_t], dim=1).T)[0, 1].abs() < 4 / len(eps) ** 0.5


def test_alpha_keeps_its_digits_in_float32() -> None:
    gamma = torch.tensor([-13.3, -5.0, 0.0, 5.0, 20.0])
    for function in (alpha, sigma, snr):
        torch.testing.assert_close(function(gamma), function(gamma.double()).float(), rtol=5e-6, atol=0)


def test_gammas_broadcast_over_what_follows_the_batch() -> None:
    x = torch.zeros(2, 3, 4, 4)
    assert broadcast(torch.zeros(2), x).shape == (2, 1, 1, 1)
    assert broadcast(torch.zeros(()), x).shape == ()
    gamma, eps = torch.tensor([-2.0, 1.0]), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    rows = [diffuse(eps[i], gamma[i], 2 * eps[i]) for i in range(2)]
    torch.testing.assert_close(diffuse(eps, gamma, 2 * eps), torch.stack(rows))
