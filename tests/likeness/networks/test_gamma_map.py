"""Score networks that are told the gamma of each dimension."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from likeness.networks import PyramidScoreUNet, ScoreMLP, ScoreUNet
from tests.likeness.networks.random_weights import randomised

U_NET = {"width": 8, "groups": 4, "dropout": 0.0, "fourier_exponents": (2, 3)}
NETWORKS = {
    "U-Net": (partial(ScoreUNet, (2, 4, 4), depth=1, **U_NET), (2, 4, 4)),
    "pyramid": (partial(PyramidScoreUNet, (2, 4, 4), levels=1, blocks=1, **U_NET), (2, 4, 4)),
    "MLP": (partial(ScoreMLP, (3,), width=8), (3,)),
}
EACH = pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS)


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """z, and a gamma for each of its dimensions."""
    source = torch.Generator().manual_seed(0)
    z = torch.randn(4, *shape, generator=source, dtype=torch.float64)
    return z, torch.rand(z.shape, generator=source, dtype=torch.float64) * 18.3 - 13.3


@EACH
def test_without_the_map_the_mean_is_all_that_is_known(build: partial[nn.Module], shape: tuple[int, ...]) -> None:
    network, (z, gamma) = randomised(build()), batch(shape)
    torch.testing.assert_close(network(z, gamma), network(z, gamma.flatten(1).mean(1)), rtol=1e-9, atol=1e-9)


@EACH
def test_the_map_is_read_between_minus_one_and_one(build: partial[nn.Module], shape: tuple[int, ...]) -> None:
    """Behind all else that the first layer reads: as many channels as the data have."""
    network, (z, gamma) = randomised(build(gamma_map=True)), batch(shape)
    first, seen = getattr(network, "conv_in", None) or network.hidden[0], []
    first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network(z, gamma)
    torch.testing.assert_close(seen[0][:, -shape[0] :], 2 * (gamma + 13.3) / 18.3 - 1, rtol=1e-12, atol=1e-12)
    assert seen[0].shape[1] == first.weight.shape[1]


@EACH
def test_it_tells_dimensions_apart(build: partial[nn.Module], shape: tuple[int, ...]) -> None:
    """Maps of the same mean have other answers and features; one gamma for all is a constant map."""
    network, (z, gamma) = randomised(build(gamma_map=True)), batch(shape)
    assert (network(z, gamma) - network(z, gamma.flip(-1))).abs().max() > 1e-3
    assert (network.features(z, gamma) - network.features(z, gamma.flip(-1))).abs().max() > 1e-3
    one = gamma.flatten(1)[:, 0]
    constant = one.reshape(-1, *[1] * len(shape)).expand_as(z)
    torch.testing.assert_close(network(z, one), network(z, constant), rtol=1e-9, atol=1e-9)


@EACH
def test_maps_of_other_shapes_are_refused(build: partial[nn.Module], shape: tuple[int, ...]) -> None:
    z, gamma = batch(shape)
    with pytest.raises(ValueError, match=r"gamma has shape \[1, .*, not \[4\]"):
        build().double()(z, gamma[:1])
