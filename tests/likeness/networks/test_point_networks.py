"""The networks for points."""

import pytest
import torch
from torch import Tensor

from likeness.networks import EncoderMLP, EncoderOutput, ScoreMLP
from tests.likeness.networks.random_weights import randomised

# torch scripts some of its forward-mode derivatives at their first use, and warns of that itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")


def batch(size: int = 4) -> tuple[Tensor, Tensor]:
    points = torch.randn(size, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return points, torch.linspace(-13.3, 5, size, dtype=torch.float64)


def test_score_network_is_that_of_the_example() -> None:
    network = ScoreMLP((2,))
    shapes = [tuple(layer.weight.shape) for layer in (*network.hidden, network.out)]
    assert shapes == [(512, 51), (512, 512), (2, 512)]


def test_score_network_reads_the_time_between_minus_one_and_one() -> None:
    network, (z, gamma) = randomised(ScoreMLP((2,), width=8)), batch()
    seen: list[Tensor] = []
    network.hidden[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(z, gamma)
    torch.testing.assert_close(seen[0][:, :2], z)
    torch.testing.assert_close(seen[0][:, 2], torch.linspace(-1, 1, 4, dtype=torch.float64))
    torch.testing.assert_close(network(z, gamma) - z, network.out(network.features(z, gamma)))


def test_both_start_from_nothing() -> None:
    z, gamma = batch()
    torch.testing.assert_close(ScoreMLP((2,), num_labels=2).double()(z, gamma, torch.tensor([0, 1, 0, 1])), z)
    for part in EncoderMLP((2,)).double().with_derivative(z, gamma):
        torch.testing.assert_close(part, torch.zeros_like(z))


@pytest.mark.parametrize("output", [None, EncoderOutput(tanh=False)])
def test_encoder_answers_value_and_derivative(output: EncoderOutput | None) -> None:
    network, (x, gamma) = randomised(EncoderMLP((2,), width=16, output=output)), batch()
    y, derivative = network.with_derivative(x, gamma)
    value, tangent = torch.func.jvp(lambda gamma: network(x, gamma), (gamma,), (torch.ones_like(gamma),))
    torch.testing.assert_close(y, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative, tangent, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", [ScoreMLP((2,), width=8), EncoderMLP((2,), width=8)])
def test_what_does_not_fit_is_named(network: ScoreMLP) -> None:
    z, gamma = batch()
    with pytest.raises(ValueError, match=r"has shape \[4, 1\], the network takes \[B, 2\]"):
        network(z[:, :1], gamma)
    with pytest.raises(ValueError, match=r"gamma has shape \[4, 1\], not \[4\]"):
        network(z, gamma.unsqueeze(1))
    with pytest.raises(ValueError, match=r"input_shape must hold 1 positive sizes, got \[3, 8, 8\]"):
        type(network)((3, 8, 8))
