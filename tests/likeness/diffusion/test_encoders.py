"""Encoders of the mean: x_t and its derivative with respect to gamma."""

import pytest
import torch
from torch import Tensor, nn

from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from tests.likeness.diffusion.exact_models import Proportional, Smooth, model_of

ENCODERS = {
    "identity": IdentityEncoder,
    "parameter-free": ParameterFreeEncoder,
    "trainable": lambda: TrainableEncoder(Smooth()),
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> DepthEncoder:
    torch.manual_seed(0)
    return ENCODERS[request.param]().double()


def data(size: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(size, 3, generator=generator, dtype=torch.float64) * 2 - 1
    return x.to(dtype), torch.linspace(-13.3, 5.0, size, dtype=torch.float64).to(dtype)


def test_means_are_those_of_the_papers() -> None:
    x, gamma = data()
    variance, network = torch.sigmoid(gamma)[:, None], Smooth().double()
    assert torch.equal(IdentityEncoder()(x, gamma), x)
    torch.testing.assert_close(ParameterFreeEncoder()(x, gamma), torch.sigmoid(-gamma)[:, None] * x)
    expected = (1 - variance) * x + variance * network(x, gamma)
    torch.testing.assert_close(TrainableEncoder(network)(x, gamma), expected, rtol=1e-12, atol=1e-15)


def test_derivative_is_the_spec_s(encoder: DepthEncoder) -> None:
    """O7, to 1e-12: D x_t = sigma^2 (y - x_t + D y)."""
    x, gamma = data()
    x_t, derivative = encoder.with_derivative(x, gamma)
    direction, of_direction = encoder.direction_with_derivative(x, gamma, None)
    y = x + direction
    expected = torch.sigmoid(gamma)[:, None] * (y - x_t + of_direction)
    torch.testing.assert_close(derivative, expected, rtol=1e-12, atol=1e-16)
    assert torch.equal(x_t, encoder(x, gamma))


def test_derivative_is_that_of_the_mean(encoder: DepthEncoder) -> None:
    """Automatic differentiation of the whole mean, to 1e-10."""
    x, gamma = data()
    x_t, derivative = encoder.with_derivative(x, gamma)
    expected, tangent = torch.autograd.functional.jvp(lambda at: encoder(x, at), gamma, torch.ones_like(gamma))
    torch.testing.assert_close(x_t, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(derivative, tangent, rtol=1e-10, atol=1e-15)


def test_derivative_against_central_differences(encoder: DepthEncoder) -> None:
    """O7: h = 1e-5 in float64, to 1e-6 of the largest; the float32 derivative to 1e-4."""
    x, gamma = data()
    h = 1e-5
    difference = (encoder(x, gamma + h) - encoder(x, gamma - h)) / (2 * h)
    scale = difference.abs().max().item()
    torch.testing.assert_close(encoder.with_derivative(x, gamma)[1], difference, rtol=0, atol=1e-6 * scale + 1e-10)
    single = encoder.float().with_derivative(x.float(), gamma.float())[1].double()
    torch.testing.assert_close(single, difference, rtol=0, atol=1e-4 * scale + 1e-10)


def test_derivative_of_a_batch_is_that_of_its_samples(encoder: DepthEncoder) -> None:
    """O25: batched against one by one."""
    x, gamma = data()
    together = encoder.with_derivative(x, gamma)[1]
    apart = [encoder.with_derivative(x[i : i + 1], gamma[i : i + 1])[1] for i in range(len(x))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-12, atol=1e-15)


def test_trainable_encoder_with_a_zero_network_is_the_parameter_free_one() -> None:
    """O5: exactly, mean, derivative and loss."""
    x, gamma = data()
    network = Smooth().double()
    nn.init.zeros_(network.last.weight)
    nn.init.zeros_(network.last.bias)
    pairs = TrainableEncoder(network), ParameterFreeEncoder()
    for found, expected in zip(*(encoder.with_derivative(x, gamma) for encoder in pairs), strict=True):
        assert torch.equal(found, expected)
    score = Smooth()
    for num_steps in (None, 10):
        models = [model_of(score, encoder, dims=3, counter_term=True, num_steps=num_steps) for encoder in pairs]
        losses = [model.diffusion_loss(x, torch.linspace(0, 1, 6, dtype=torch.float64), x.flip(0)) for model in models]
        assert torch.equal(*losses)


def test_labels_reach_the_network() -> None:
    x, gamma = data()
    network = Smooth(num_labels=2).double()
    encoder = TrainableEncoder(network)
    labels = torch.tensor([0, 1] * 3)
    y, _ = network.with_derivative(x, gamma, labels)
    torch.testing.assert_close(encoder.direction(x, gamma, labels), y - x)
    assert not torch.equal(encoder(x, gamma, labels), encoder(x, gamma, 1 - labels))
    assert torch.equal(encoder.with_derivative(x, gamma, labels)[0], encoder(x, gamma, labels))


@pytest.mark.parametrize("make", [IdentityEncoder, ParameterFreeEncoder])
def test_factor_is_that_of_the_mean(make: type[DepthEncoder]) -> None:
    x, gamma = data()
    m, rate = make().factor(gamma)
    x_t, derivative = make().with_derivative(x, gamma)
    torch.testing.assert_close(m[:, None] * x, x_t)
    torch.testing.assert_close(rate[:, None] * x_t, derivative)


def test_a_trained_encoder_has_no_factor() -> None:
    with pytest.raises(ValueError, match=r"probability flow of TrainableEncoder is unknown.*ParameterFreeEncoder"):
        TrainableEncoder(Proportional(0.5)).factor(torch.zeros(()))
