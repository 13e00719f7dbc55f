"""The convolutional embeddings."""

import pytest
import torch
from torch import nn

from likeness.networks import CNN, ResNet18


def test_resnet18_is_the_cifar_one() -> None:
    network = ResNet18((3, 32, 32), 10)
    # The count that the CIFAR ResNet-18 with a 3x3 stem is known by, for 10 outputs.
    assert sum(p.numel() for p in network.parameters()) == 11_173_962
    sizes: list[tuple[int, ...]] = []
    network.net.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape)))
    network.eval()
    assert network(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    assert sizes == [(1, 512, 4, 4)]


def test_resnet18_takes_small_grey_images() -> None:
    assert ResNet18((1, 8, 8), 2)(torch.randn(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (2, 1, 1)])
def test_cnn_treats_each_image_by_itself(shape: tuple[int, int, int]) -> None:
    network, x = CNN(shape, 3, width=4), torch.randn(5, *shape)
    torch.testing.assert_close(network(x), torch.cat([network(image.unsqueeze(0)) for image in x]))


@pytest.mark.parametrize("network", [CNN, ResNet18])
def test_sizes_that_do_not_fit_are_named(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"input_shape must hold 3 positive sizes, got \[2\]"):
        network((2,), 3)
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        network((3, 8, 8), 0)
