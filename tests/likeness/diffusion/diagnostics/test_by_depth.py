"""Profiles over depth against formulas and finite differences in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from likeness.diffusion.diagnostics.by_depth import depth_profile, direction_at, mean_at, mean_change
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from tests.likeness.diffusion.exact_models import Smooth, gaussian_model, model_of

IMAGES = torch.randint(0, 256, (400, 3), generator=torch.Generator().manual_seed(0))
TIMES = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)


class Wave(nn.Module):
    """y = x sin(gamma) / 2."""

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return 0.5 * x * gamma.sin()[:, None]

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self(x, gamma), 0.5 * x * gamma.cos()[:, None]


def model_with(encoder: DepthEncoder) -> DiffusionModel:
    torch.manual_seed(0)
    return model_of(Smooth(), encoder, dims=3, counter_term=True)


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_sizes_of_a_trainable_encoder() -> None:
    model = model_with(TrainableEncoder(Wave()))
    profile = depth_profile(model, IMAGES, TIMES, seed=0)
    size = rms(model.scale(IMAGES, torch.float64))
    variance = profile.gamma.sigmoid()
    torch.testing.assert_close(profile.gamma, model.schedule(TIMES))
    torch.testing.assert_close(profile.output, 0.5 * profile.gamma.sin().abs() * size)
    torch.testing.assert_close(profile.derivative, 0.5 * profile.gamma.cos().abs() * size)
    torch.testing.assert_close(profile.shift, variance * (0.5 * profile.gamma.sin() - 1).abs() * size)


def test_the_residual_is_measured_against_the_change_along_lambda() -> None:
    """By central differences in gamma = -lambda of the mean itself."""
    encoder, step = TrainableEncoder(Wave()), 1e-5
    model = model_with(encoder)
    profile = depth_profile(model, IMAGES, TIMES, seed=0)
    x = model.scale(IMAGES, torch.float64)
    for gamma, found in zip(profile.gamma[1:], profile.residual_of_form[1:], strict=True):
        above, below = (encoder(x, (gamma + sign * step).expand(len(x))) for sign in (1, -1))
        change = -(above - below) / (2 * step)
        expected = rms(gamma.sigmoid() * encoder(x, gamma.expand(len(x))) - change) / rms(change)
        assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_counter_term_has_the_parameter_free_encoder_s_form() -> None:
    """dx_t/dlambda = sigma^2 x_t there, so the residual is the relative error of x_hat."""
    profile = depth_profile(model_with(ParameterFreeEncoder()), IMAGES, TIMES, seed=0)
    assert profile.residual_of_form.max() < 1e-12
    assert not profile.output.any()


def test_a_good_prediction_leaves_a_small_residual_only_along_lambda() -> None:
    """Gaussian data, the optimal network, little noise: the other direction is off by twice the change."""
    model = gaussian_model(0.25, 0.0, counter_term=True)
    profile = depth_profile(model, IMAGES[:, :1], torch.tensor([0.2], dtype=torch.float64), seed=0)
    assert profile.residual < 0.05
    assert profile.residual_in_gamma == pytest.approx(2, abs=0.05)


def test_vdm_changes_nothing_and_keeps_its_variance() -> None:
    profile = depth_profile(model_with(IdentityEncoder()), IMAGES, TIMES, seed=0)
    assert not profile.shift.any()
    assert profile.residual.isnan().all()
    torch.testing.assert_close(profile.variance, profile.variance_of_vdm, rtol=0.1, atol=0)  # of 400 samples


def test_the_profile_is_a_function_of_the_seed() -> None:
    model = model_with(ParameterFreeEncoder())
    first, again, other = (depth_profile(model, IMAGES, TIMES, seed=seed).variance for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_means_and_directions() -> None:
    model = model_with(TrainableEncoder(Wave()))
    x, gamma = model.scale(IMAGES, torch.float64), float(model.schedule(TIMES[2]))
    direction = (0.5 * math.sin(gamma) - 1) * x
    torch.testing.assert_close(direction_at(model, IMAGES, 0.7), direction, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        mean_at(model, IMAGES, 0.7), x + direction / (1 + math.exp(-gamma)), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(("s", "t"), [(0.0, 0.1), (0.6, 0.7), (0.9, 1.0)])
def test_the_change_is_the_difference_of_the_means(s: float, t: float) -> None:
    model = model_with(TrainableEncoder(Wave()))
    difference = (mean_at(model, IMAGES, t) - mean_at(model, IMAGES, s)) / (t - s)
    torch.testing.assert_close(mean_change(model, IMAGES, s, t), difference, rtol=1e-6, atol=1e-12)


def test_labels_reach_both_networks() -> None:
    torch.manual_seed(0)
    model = model_of(Smooth(num_labels=4), TrainableEncoder(Smooth(num_labels=4)), dims=3)
    zeros, ones = (torch.full((400,), label) for label in (0, 1))
    first, second = (depth_profile(model, IMAGES, TIMES, seed=0, labels=labels) for labels in (zeros, ones))
    assert not torch.equal(first.output, second.output)
    assert not torch.equal(mean_at(model, IMAGES, 0.7, zeros), mean_at(model, IMAGES, 0.7, ones))
