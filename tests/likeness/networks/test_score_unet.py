"""The score networks, against what the authors' code answers and against what must hold of any of them."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_modules.published.flax_weights import states_from_flax
from likeness.networks import PyramidScoreUNet, ScoreUNet
from tests.diffenc_reference import NAMES, arrays, needs_diffenc, parameters
from tests.likeness.networks.random_weights import randomised

SMALL: dict[str, Any] = {"width": 8, "groups": 4}


def small(**options: Any) -> ScoreUNet:
    return randomised(ScoreUNet((3, 4, 4), depth=1, **SMALL, **options))


def batch(size: int = 3, shape: tuple[int, ...] = (3, 4, 4)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(size, *shape, generator=generator, dtype=torch.float64)
    return z, torch.linspace(-13.3, 5, size, dtype=torch.float64)


@needs_diffenc
@pytest.mark.parametrize("name", NAMES)
def test_answers_what_the_authors_network_does(name: str) -> None:
    data = arrays(name)
    network = ScoreUNet(data["images"].shape[1:], width=32, depth=2).eval()
    params = {path: value for path, value in parameters(name).items() if path.startswith("score_model/")}
    network.load_state_dict(states_from_flax(params, {"score_model": network})["score_model"])
    with torch.no_grad():
        out = network(data["score_in_z"], data["gamma_t"])
    error = torch.linalg.vector_norm(out - data["score_out"]) / torch.linalg.vector_norm(data["score_out"])
    assert error < 1e-5
    torch.testing.assert_close(out, data["score_out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "size", "width", "depth", "count"),
    [
        (3, 32, 128, 8, 8_905_219),
        (3, 32, 128, 32, 30_578_179),
        (3, 32, 256, 32, 122_137_603),
        (1, 28, 128, 8, 8_891_393),
    ],
)
def test_published_sizes(channels: int, size: int, width: int, depth: int, count: int) -> None:
    """Oracle O24."""
    with torch.device("meta"):
        network = ScoreUNet((channels, size, size), width=width, depth=depth)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("network", [ScoreUNet, PyramidScoreUNet])
@pytest.mark.parametrize("options", [{}, {"num_labels": 3}, {"fourier_exponents": ()}])
def test_is_the_identity_at_the_start(network: type[ScoreUNet], options: dict[str, Any]) -> None:
    z, gamma = batch(shape=(3, 8, 8))
    labels = torch.tensor([0, 2, 1]) if "num_labels" in options else None
    torch.testing.assert_close(network((3, 8, 8), **SMALL, **options).double()(z, gamma, labels), z)


@pytest.mark.parametrize(
    "network",
    [
        ScoreUNet((3, 4, 4), depth=2, attention=True, **SMALL),
        PyramidScoreUNet((3, 4, 4), levels=2, attention_levels=(1,), **SMALL),
        PyramidScoreUNet((3, 4, 4), levels=1, downsampling="convolution", output_groups=2, **SMALL),
        PyramidScoreUNet((3, 4, 4), levels=2, downsampling="none", **SMALL),
        PyramidScoreUNet((3, 4, 4), levels=2, doubling=False, **SMALL),
    ],
    ids=["constant", "pyramid", "convolution", "no halving", "one width"],
)
def test_treats_each_image_by_itself(network: ScoreUNet) -> None:
    z, gamma = batch()
    randomised(network)
    one_by_one = [network(z[i : i + 1], gamma[i : i + 1]) for i in range(len(z))]
    torch.testing.assert_close(network(z, gamma), torch.cat(one_by_one))
    assert not torch.allclose(network(z, gamma), network(z, gamma.flip(0)))


@given(height=st.integers(1, 3), width=st.integers(1, 3))
def test_takes_images_of_any_size_that_it_can_halve(height: int, width: int) -> None:
    network = randomised(PyramidScoreUNet((1, 4, 4), levels=2, **SMALL))
    z, gamma = batch(2, (1, 4 * height, 4 * width))
    assert network(z, gamma).shape == z.shape


def test_layout_changes_nothing() -> None:
    network, (z, gamma) = small(), batch()
    expected = network(z, gamma)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(z.to(memory_format=torch.channels_last), gamma), expected)


def test_sees_noise_of_the_last_step() -> None:
    """z differs by 1e-3 between the end of time and the data; without Fourier features the network hardly can."""
    z, gamma = batch()
    moves = [torch.linalg.vector_norm(f(z + 1e-3, gamma) - f(z, gamma)) for f in (small(), small(fourier_exponents=()))]
    assert moves[0] > 20 * moves[1]


def test_the_schedule_may_leave_the_limits_of_the_networks_time() -> None:
    """Only (gamma - gamma_min) / (gamma_max - gamma_min) counts."""
    z, gamma = batch()
    wide = small(gamma_min=-20.0, gamma_max=10.0)
    same_time = -20 + 30 * (gamma + 13.3) / 18.3
    torch.testing.assert_close(wide(z, same_time), small()(z, gamma))


def test_features_are_the_middle_averaged_over_positions() -> None:
    network, (z, gamma) = small(), batch()
    seen: list[Tensor] = []
    network.body.middle.register_forward_hook(lambda module, inputs, output: seen.append(output.value))
    network(z, gamma)
    features = network.features(z, gamma)
    torch.testing.assert_close(features, seen[0].mean((2, 3)))
    assert features.shape == (3, 8)


def test_labels_change_the_answer_of_their_own_images() -> None:
    network, (z, gamma) = small(num_labels=2), batch()
    zeros = network(z, gamma, torch.tensor([0, 0, 0]))
    mixed = network(z, gamma, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(zeros[[0, 2]], mixed[[0, 2]])
    assert not torch.allclose(zeros[1], mixed[1])


def test_bfloat16_stays_close() -> None:
    """Oracle O25, for the score network."""
    network = randomised(ScoreUNet((3, 8, 8), width=16, depth=1, groups=8)).float()
    z, gamma = (part.float() for part in batch(shape=(3, 8, 8)))
    expected = network(z, gamma)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(z, gamma)
    assert out.dtype == torch.float32
    assert torch.linalg.vector_norm(out - expected) < 3e-2 * torch.linalg.vector_norm(expected)


def test_gradients_reach_every_parameter_and_both_inputs() -> None:
    network, (z, gamma) = small(attention=True), batch()
    z.requires_grad_()
    gamma.requires_grad_()
    network(z, gamma).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [*network.parameters(), z, gamma])


def test_what_does_not_fit_is_named() -> None:
    network, (z, gamma) = small(), batch()
    with pytest.raises(ValueError, match=r"z has shape \[3, 1, 4, 4\], the network takes \[B, 3, H, W\]"):
        network(z[:, :1], gamma)
    with pytest.raises(ValueError, match=r"gamma has shape \[2\], not \[3\] for a batch of 3"):
        network(z, gamma[:2])
    with pytest.raises(ValueError, match=r"labels of shape \[3\] for a network without classes"):
        network(z, gamma, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"num_labels=2 takes labels \[3\], got None"):
        small(num_labels=2)(z, gamma)
    with pytest.raises(ValueError, match=r"label 2 lies outside 0\.\.1"):
        small(num_labels=2)(z, gamma, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 48}, "got 32 groups for 48 channels"),
        ({"width": 32, "groups": 0}, "got 0 groups"),
        ({"width": 7, "groups": 7}, "width must be even and at least 4, got 7"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"gamma_min": 5.0, "gamma_max": 5.0}, "gamma_min=5.0, gamma_max=5.0"),
        ({"num_labels": 0}, "num_labels must be at least 1, got 0"),
        ({"input_shape": (32, 32)}, r"input_shape must hold 3 positive sizes, got \[32, 32\]"),
    ],
)
def test_sizes_that_no_network_has(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoreUNet(**({"input_shape": (3, 32, 32)} | options))


def test_images_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="images of 28x30 cannot be halved 2 times"):
        PyramidScoreUNet((1, 28, 30), levels=2)
    network = PyramidScoreUNet((1, 28, 28), levels=2, **SMALL)
    with pytest.raises(ValueError, match="images of 14x14 cannot be halved 2 times"):
        network(torch.zeros(1, 1, 14, 14), torch.zeros(1))
    with pytest.raises(ValueError, match=r"attention_levels must lie in 0\.\.1, got \[2\]"):
        PyramidScoreUNet((1, 28, 28), levels=2, attention_levels=[2])
    with pytest.raises(ValueError, match="downsampling must be max_pool, convolution or none, got 'mean'"):
        PyramidScoreUNet((1, 28, 28), levels=2, downsampling="mean")
