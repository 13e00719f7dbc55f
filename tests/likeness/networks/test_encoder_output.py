"""What y goes through, against numpy as the published code writes it, and the derivatives against differences."""

from typing import Any

import numpy as np
import pytest
import torch

from likeness.networks.dual import Dual
from likeness.networks.encoder_networks import EncoderOutput

OPTIONS: list[dict[str, Any]] = [
    {},
    {"tanh": False},
    {"vanish_at_zero": True},
    {"vanish_at_one": True},
    {"vanish_after_half": True},
    {"factor": 0.3},
    {"max_variance": 0.1},
    {"max_variance": 0.4, "min_variance": 0.2},
    {"tanh": False, "max_variance": 0.4, "min_variance": 0.2, "factor": 0.2},
    {"tanh": False, "cap_by_input_variance": True},
    {"identity_at_zero": True},
    {"tanh": False, "identity_at_zero": True},
    {"vanish_at_zero": True, "vanish_at_one": True, "factor": 2.0, "max_variance": 0.05, "identity_at_zero": True},
    {"min_variance": 0.5},  # takes effect after a maximum only
]


def published(h: np.ndarray, x: np.ndarray, t: np.ndarray, options: dict[str, Any]) -> np.ndarray:
    """The published encoder's order and formulas for one image at a time, with the maximum that is meant there."""
    images = []
    for y, image, time in zip(h, x, t, strict=True):
        y = y * time if options.get("vanish_at_zero") else y
        y = y * (1 - time) if options.get("vanish_at_one") else y
        y = y * max(0.5 * time - time**2, 0) if options.get("vanish_after_half") else y
        y = np.tanh(y) if options.get("tanh", True) else y
        y = options.get("factor", 1.0) * y
        if options.get("max_variance", 0) > 0:
            y = y * np.sqrt(options["max_variance"] / max(y.var(), options["max_variance"]))
            if options.get("min_variance", 0) > 0:
                y = y * np.sqrt(options["min_variance"] / min(max(y.var(), 0.001), options["min_variance"]))
        elif options.get("cap_by_input_variance"):
            y = y * np.sqrt(image.var() / max(y.var(), image.var()))
        if options.get("identity_at_zero"):
            y = image + y
            y = y / max(1, np.abs(y).max()) if options.get("tanh", True) else y
        images.append(y)
    return np.stack(images)


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(4, 3, 2, 2, generator=generator, dtype=torch.float64)
    h = h * torch.tensor([0.1, 0.5, 1.0, 3.0], dtype=torch.float64).view(-1, 1, 1, 1)
    x = 2 * torch.rand(4, 3, 2, 2, generator=generator, dtype=torch.float64) - 1
    return h, x, torch.tensor([-0.1, 0.3, 0.45, 0.9], dtype=torch.float64)  # a learned schedule may leave [0, 1]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_is_the_published_function(options: dict[str, Any]) -> None:
    h, x, t = example()
    y = EncoderOutput(**options)(Dual(h), x, Dual(t)).value
    np.testing.assert_allclose(y.numpy(), published(h.numpy(), x.numpy(), t.numpy(), options), rtol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_derivative_is_that_of_differences(options: dict[str, Any]) -> None:
    h, x, t = example()
    dh, dt, step = torch.randn_like(h), torch.full_like(t, 0.3), 1e-6
    output = EncoderOutput(**options)
    value, tangent = output(Dual(h, dh), x, Dual(t, dt))
    torch.testing.assert_close(value, output(Dual(h), x, Dual(t)).value)
    ahead, behind = (output(Dual(h + s * dh), x, Dual(t + s * dt)).value for s in (step, -step))
    torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_points_are_shaped_as_images_are() -> None:
    h, x, t = example()
    options: dict[str, Any] = {"max_variance": 0.1, "identity_at_zero": True}
    images, points = (
        EncoderOutput(**options)(Dual(a), b, Dual(t)).value for a, b in ((h, x), (h.flatten(1), x.flatten(1)))
    )
    torch.testing.assert_close(images.flatten(1), points)


def test_negative_variances_are_named() -> None:
    with pytest.raises(ValueError, match=r"max_variance must not be negative, got -0\.1"):
        EncoderOutput(max_variance=-0.1)
