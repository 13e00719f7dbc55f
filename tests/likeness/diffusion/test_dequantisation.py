"""Noise in the cell of grey levels: its density, its support, how it is learned, and what that is worth."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from likeness.diffusion.dequantisation import (
    CutNormal,
    LearnedDequantisation,
    centred,
    fit_dequantisation,
    pathwise_loss,
    truncation,
)
from likeness.diffusion.process import alpha, diffuse, nearest_level
from likeness.diffusion.schedules import LinearSchedule
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, gaussian_model, legendre
from tests.likeness.diffusion.source_models import BLUNT, SOURCES, cell_bits, random_dequantisation, source_model

TAUS = st.floats(0.1, 4)
SHIFTS = st.floats(-8, 8)
LOG_SCALES = st.floats(-2, 2)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@settings(max_examples=40)
@given(TAUS, SHIFTS, LOG_SCALES)
def test_density_and_entropy(tau: float, shift: float, log_scale: float) -> None:
    """The density integrates to 1 and is SciPy's, and the entropy is the density's by the same quadrature; to 1e-9."""
    shift, scale = max(-tau - 4, min(tau + 4, shift)), math.exp(log_scale)
    noise = CutNormal(tensor(tau), tensor(shift), tensor(scale))
    u, weights = legendre(200)
    cut = tau * (2 * u - 1)
    log_q = noise.log_density(cut)
    expected = stats.truncnorm((-tau - shift) / scale, (tau - shift) / scale, shift, scale).logpdf(cut.numpy())
    torch.testing.assert_close(log_q, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)
    q = 2 * tau * weights * log_q.exp()
    assert q.sum().item() == pytest.approx(1, abs=1e-9)
    assert noise.entropy().item() == pytest.approx(-(q @ log_q).item(), abs=1e-9)


@settings(max_examples=40)
@given(TAUS, SHIFTS, LOG_SCALES)
def test_noise_has_the_quantiles_of_the_distribution(tau: float, shift: float, log_scale: float) -> None:
    """Against SciPy's inverse, of standard normal noise out to 8 standard deviations."""
    shift, scale = max(-tau - 4, min(tau + 4, shift)), math.exp(log_scale)
    eps = torch.tensor([-8.0, -3.0, -1.0, 0.0, 0.5, 2.0, 8.0], dtype=torch.float64)
    cut = CutNormal(tensor(tau), tensor(shift), tensor(scale)).cut(eps)
    known = stats.truncnorm((-tau - shift) / scale, (tau - shift) / scale, shift, scale)
    quantiles = torch.from_numpy(known.ppf(stats.norm.cdf(eps[1:-1].numpy())))
    torch.testing.assert_close(cut[1:-1], quantiles, rtol=1e-6, atol=1e-6)
    assert cut.abs().max() <= tau
    assert (cut.diff() >= 0).all()


@pytest.mark.parametrize("gamma_0", [GAMMA_0, BLUNT])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_z_0_stays_in_its_cell(gamma_0: float, shape: tuple[int, ...]) -> None:
    """Whatever the network says, of noise out to ten standard deviations: the nearest grey level is the data's."""
    gamma = tensor(gamma_0)
    images = torch.randint(0, 256, (40, *shape), generator=torch.Generator().manual_seed(0))
    model = gaussian_model(1.0, schedule=LinearSchedule(gamma_0, GAMMA_1))
    x = model.scale(images, torch.float64)
    for size in (0.3, 3.0, 100.0):
        noise = random_dequantisation(shape, size)(x, truncation(model, gamma))
        assert noise.shift.shape == noise.scale.shape == images.shape
        eps = 5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        cut = noise.cut(eps.clamp(-10, 10))
        v = diffuse(x, gamma, cut) / alpha(gamma)
        assert (v - x).abs().max() <= 1 / 256 + 1e-12
        inside = cut.abs() < (1 - 1e-9) * noise.tau  # the ends of a cell are shared
        assert torch.equal(nearest_level(v, 256)[inside], images[inside])
        assert noise.log_density(cut).isfinite().all()


def test_it_starts_as_the_truncated_normal() -> None:
    eps = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learned, plain = (each(eps[0], tensor(0.7)) for each in (LearnedDequantisation((3,)).double(), centred))
    cut = plain.cut(eps)
    assert torch.equal(learned.cut(eps), cut)
    assert torch.equal(learned.log_density(cut), plain.log_density(cut))
    assert torch.equal(learned.entropy(), plain.entropy().expand(2, 3))


def test_the_pathwise_gradient() -> None:
    """That of E_q[log q - log p] by quadrature over the cell, of Gaussian data, whose p is known; to 1e-4."""
    variance, gamma = 0.02, tensor(BLUNT)
    model = gaussian_model(variance, schedule=LinearSchedule(BLUNT, GAMMA_1))
    x, tau = model.scale(torch.tensor([[200]]), torch.float64), truncation(model, gamma)
    p = torch.distributions.Normal(0.0, (variance * torch.sigmoid(-gamma) + torch.sigmoid(gamma)).sqrt().item())
    shift, scale = (torch.full((1, 1), value, dtype=torch.float64, requires_grad=True) for value in (0.2, 0.4))
    u, weights = legendre(60)
    cut = tau * (2 * u - 1)
    log_q = CutNormal(tau, shift, scale).log_density(cut)[0]
    divergence = (2 * tau * weights * log_q.exp() * (log_q - p.log_prob(diffuse(x, gamma, cut))[0])).sum()
    expected = torch.autograd.grad(divergence, (shift, scale))
    quantiles = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    eps = torch.special.ndtri(quantiles)[:, None]
    loss = pathwise_loss(model, lambda _, tau: CutNormal(tau, shift, scale), x.expand(4000, 1), eps)
    found = torch.autograd.grad(loss.mean(), (shift, scale))
    assert min(abs(value.item()) for value in expected) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_where_the_density_slopes_it_is_learned() -> None:
    """Two levels side by side, noise of 1.7: the bound comes from .0016 bits above the mass in the cell to 3e-5."""
    levels = torch.tensor([127, 128])
    model = source_model(levels, BLUNT)
    batches = [(levels[:, None].repeat(32, 1), None)]
    learned = fit_dequantisation(model, batches, torch.Generator().manual_seed(0), 120, learning_rate=0.02)
    tau = truncation(model, tensor(BLUNT)).item()
    mass = sum(stats.norm.cdf(tau, at) - stats.norm.cdf(-tau, at) for at in (0, 2 * tau)) / 2
    before, after = (cell_bits(levels, BLUNT, each) for each in (centred, learned))
    assert before == pytest.approx(-math.log2(mass) + 0.0016485, abs=1e-5)
    assert after == pytest.approx(-math.log2(mass), abs=3e-5)


def test_what_is_best_has_no_gradient() -> None:
    """Of levels far apart the truncated normal is the density in the cell: none of any draw, not only in the mean."""
    levels = SOURCES["two levels"]
    model, learned = source_model(levels, GAMMA_0), LearnedDequantisation((1,)).double()
    eps = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = model.scale(levels.repeat(25)[:, None])
    for loss in pathwise_loss(model, learned, x, eps):
        (gradient,) = torch.autograd.grad(loss, learned.out.bias, retain_graph=True)
        assert gradient.abs().max() < 1e-9


def test_the_fit_is_a_function_of_the_generator() -> None:
    levels = SOURCES["sixteen"]
    model, batches = source_model(levels, BLUNT), [(levels[:, None], None)]
    torch.manual_seed(5)
    first, again, other = (
        fit_dequantisation(model, batches, torch.Generator().manual_seed(seed), 2).hidden[0].weight
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="needs at least one batch"):
        fit_dequantisation(gaussian_model(1.0), [], torch.Generator())
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        fit_dequantisation(gaussian_model(1.0), [], torch.Generator(), 0)
    with pytest.raises(ValueError, match=r"samples \[D\] or \[C, H, W\], got \[2, 2\]"):
        LearnedDequantisation((2, 2))
