"""Fourier features, sines of the time and first weights, against numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from likeness.networks.dual import Dual
from likeness.networks.unet_blocks import (
    NetworkTime,
    TimeEmbedding,
    convolution,
    dense,
    fourier_features,
    sinusoids,
    transposed_convolution,
)


@given(channels=st.integers(1, 3), exponents=st.lists(st.integers(-1, 7), min_size=1, max_size=3))
def test_fourier_features_stand_channel_by_channel_sines_first(channels: int, exponents: list[int]) -> None:
    z = torch.randn(2, channels, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [
        wave(2.0**n * 2 * np.pi * z[:, c].numpy())
        for wave in (np.sin, np.cos)
        for c in range(channels)
        for n in exponents
    ]
    np.testing.assert_allclose(fourier_features(z, exponents).numpy(), np.stack(rows, axis=1), rtol=1e-9, atol=1e-9)


def test_sines_of_the_time_are_those_of_the_transformer() -> None:
    t = np.array([0.0, 0.3, 1.0])
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    angles = 1000 * t[:, None] * frequencies
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(sinusoids(Dual(torch.from_numpy(t)), 8).value.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_derivative_of_the_embedding() -> None:
    embedding = TimeEmbedding(8, NetworkTime(-13.3, 5.0)).double()
    gamma, step = torch.tensor([-13.3, -4.0, 5.0], dtype=torch.float64), 1e-6
    tangent = embedding(Dual(gamma, torch.ones_like(gamma))).tangent
    difference = (embedding(Dual(gamma + step)).value - embedding(Dual(gamma - step)).value) / (2 * step)
    torch.testing.assert_close(tangent, difference, rtol=1e-5, atol=1e-7)


def test_limits_that_are_reversed() -> None:
    with pytest.raises(ValueError, match=r"gamma_min=5.0, gamma_max=-13.3"):
        NetworkTime(5.0, -13.3)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (convolution(50, 60), 450),
        (convolution(50, 60, size=2, stride=2), 200),
        (transposed_convolution(60, 50), 240),
        (dense(200, 300), 200),
    ],
    ids=["convolution", "strided", "transposed", "dense"],
)
def test_first_weights_are_truncated_normals_of_variance_one_over_fan_in(layer: nn.Linear, fan_in: int) -> None:
    """Flax's lecun_normal: the variance after truncation is 1 / fan_in, and nothing lies beyond two of the original."""
    scaled = layer.weight.detach() * fan_in**0.5
    assert abs(scaled.std().item() - 1) < 0.03
    assert 2.2 < scaled.abs().max().item() <= 2 / 0.87962566103423978 + 1e-5
    assert layer.bias.abs().max() == 0


def test_zero_layers_are_zero() -> None:
    assert not any(
        p.any() for layer in (convolution(2, 3, zero=True), dense(2, 3, zero=True)) for p in layer.parameters()
    )
