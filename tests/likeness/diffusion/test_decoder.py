"""The decoder of grey levels: a softmax over the levels, of which only the near ones are computed."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from likeness.diffusion.process import log_likelihood, nearest_level, neighbours_within_reach, sample_level, scaled
from tests.likeness.diffusion.exact_models import normal_grid

LEVELS = pytest.mark.parametrize("levels", [256, 17, 2])
GAMMAS = pytest.mark.parametrize("gamma", [-13.3, -10.0, -4.0, 0.0])


def brute_force(images: Tensor, z: Tensor, gamma: float, levels: int) -> Tensor:
    """The log-softmax in which the square of z is dropped, in float64."""
    values = scaled(torch.arange(levels), levels, torch.float64)
    logits = (z.double()[..., None] * values - 0.5 * values.square()) * math.exp(-gamma)
    return logits.log_softmax(-1).gather(-1, images[..., None]).squeeze(-1)


def noisy(levels: int, gamma: float, size: int = 400) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, levels, (size, 3), generator=generator)
    noise = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    return images, scaled(images, levels, torch.float64) + math.exp(0.5 * gamma) * noise


@LEVELS
@GAMMAS
def test_is_the_log_softmax_without_the_square_of_z(levels: int, gamma: float) -> None:
    """O18, to 1e-9: over all levels and over the near ones."""
    images, z = noisy(levels, gamma)
    expected = brute_force(images, z, gamma, levels)
    at = torch.tensor(gamma, dtype=torch.float64)
    for reach in (None, neighbours_within_reach(gamma, levels)):
        found = log_likelihood(images, z, at, levels, reach)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@LEVELS
def test_probabilities_of_all_levels_sum_to_one(levels: int) -> None:
    """O18, to 1e-6 in float32, also for z far outside of the data."""
    z = torch.tensor([-30.0, -1.0, -0.3, 0.0, 0.77, 1.0, 4.0])
    images = torch.arange(levels)[:, None].expand(-1, len(z))
    for reach in (None, neighbours_within_reach(-13.3, levels)):
        found = log_likelihood(images, z.expand(levels, -1), torch.tensor(-13.3), levels, reach)
        torch.testing.assert_close(found.logsumexp(0), torch.zeros(len(z)), rtol=0, atol=1e-6)


@LEVELS
@GAMMAS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_levels_are_enough(levels: int, gamma: float, dtype: torch.dtype) -> None:
    """What is left out weighs less than float64's rounding."""
    images, z = noisy(levels, gamma)
    at, z = torch.tensor(gamma, dtype=dtype), z.to(dtype)
    near = log_likelihood(images, z, at, levels, neighbours_within_reach(gamma, levels))
    everything = log_likelihood(images, z, at, levels)
    digits = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(near, everything, rtol=digits, atol=digits)


def test_two_neighbours_reach_at_the_papers_noise() -> None:
    assert neighbours_within_reach(-13.3, 256) == 2
    assert neighbours_within_reach(-13.3, 17) == 1
    assert neighbours_within_reach(5.0, 256) == 255


@pytest.mark.parametrize("z", [-300.0, -1.5, 1.2, 40.0])
def test_far_outside_float32_keeps_its_digits(z: float) -> None:
    """A difference of squares of size 1e10 would leave errors of many nats."""
    images, at = torch.arange(256), torch.tensor(z)
    found = log_likelihood(images, at.expand(256), torch.tensor(-13.3), 256)
    expected = brute_force(images, at.expand(256), -13.3, 256)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-5)


@LEVELS
@pytest.mark.parametrize("gamma", [-13.3, -6.0])
def test_gradients(levels: int, gamma: float) -> None:
    """With respect to z and gamma_0, near levels and all, against those of the log-softmax."""
    images, z = noisy(levels, gamma, 20)
    values = scaled(torch.arange(levels), levels, torch.float64)

    def softmax(z: Tensor, gamma: Tensor) -> Tensor:
        logits = -0.5 * (z[..., None] - values).square() * torch.exp(-gamma)
        return logits.log_softmax(-1).gather(-1, images[..., None]).squeeze(-1)

    at = torch.tensor(gamma, dtype=torch.float64)
    _, of_softmax = torch.func.vjp(softmax, z, at)
    for reach in (None, neighbours_within_reach(gamma, levels)):
        _, of_decoder = torch.func.vjp(lambda z, g, r=reach: log_likelihood(images, z, g, levels, r), z, at)
        for found, expected in zip(of_decoder(torch.ones_like(z)), of_softmax(torch.ones_like(z)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("gamma", "level", "bits"),
    [
        (-13.3, 128, 0.0104531880),
        (-13.3, 0, 0.0052265940),
        (-13.3, 255, 0.0052265940),
        (-12.8, 128, 0.0740380),
        (-10.0, 128, 1.83362),
    ],
)
def test_reconstruction_of_vdm_is_a_constant(gamma: float, level: int, bits: float) -> None:
    """O16: expectation over the noise by quadrature, to the digits given."""
    eps, weights = normal_grid(0.02)
    images = torch.full((len(eps),), level)
    z = scaled(images, 256, torch.float64) + math.exp(0.5 * gamma) * eps
    nats = -log_likelihood(images, z, torch.tensor(gamma, dtype=torch.float64), 256)
    digits = 1e-10 if gamma == -13.3 else 1e-5 if gamma == -10 else 1e-7
    assert ((weights * nats).sum() / math.log(2)).item() == pytest.approx(bits, abs=digits)


def test_the_likeliest_level_is_right_within_three_deviations() -> None:
    """O16: half the spacing is 3.01869 deviations, so P(right) = erf(3.01869 / sqrt 2) = .99746."""
    border = math.exp(13.3 / 2) / 256
    assert border == pytest.approx(3.01869, abs=1e-5)
    assert math.erf(border / math.sqrt(2)) == pytest.approx(0.99746, abs=1e-5)
    images = torch.arange(1, 255)
    x = scaled(images, 256, torch.float64)
    for side in (-1, 1):
        inside, outside = (x + side * math.exp(-13.3 / 2) * border * factor for factor in (0.999, 1.001))
        assert torch.equal(nearest_level(inside, 256), images)
        assert torch.equal(nearest_level(outside, 256), images + side)


@given(level=st.integers(0, 255), levels=st.integers(2, 256))
def test_scaling_and_back(level: int, levels: int) -> None:
    image = torch.tensor([level % levels])
    x = scaled(image, levels)
    assert x.abs() <= 1 - 1 / levels + 1e-6
    assert torch.equal(nearest_level(x, levels), image)


def test_scaled_pixels_are_the_papers() -> None:
    x = scaled(torch.tensor([0, 255], dtype=torch.uint8), 256)
    assert x.tolist() == [-255 / 256, 255 / 256]


def test_levels_stay_in_range() -> None:
    assert nearest_level(torch.tensor([-7.0, 7.0]), 17).tolist() == [0, 16]


@LEVELS
def test_draws_follow_the_probabilities(levels: int) -> None:
    """Frequencies of 20000 draws within 4.5 standard errors, and reproducible from the generator."""
    gamma = torch.tensor(2 * math.log(2 / levels))  # a deviation of one level
    z = torch.full((20_000,), 0.3)
    draws = sample_level(z, gamma, levels, torch.Generator().manual_seed(0))
    assert torch.equal(draws, sample_level(z, gamma, levels, torch.Generator().manual_seed(0)))
    chances = log_likelihood(torch.arange(levels), z[:levels], gamma, levels).exp()
    frequencies = torch.bincount(draws, minlength=levels) / len(z)
    assert ((frequencies - chances).abs() <= 4.5 * (chances / len(z)).sqrt() + 1e-9).all()


def test_draws_keep_the_shape() -> None:
    z = torch.zeros(2, 3, 4, 4)
    assert sample_level(z, torch.tensor(-5.0), 17, torch.Generator().manual_seed(0)).shape == z.shape
