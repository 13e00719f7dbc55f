"""Convolutional embeddings for images [B, C, H, W]."""

from collections.abc import Sequence

from torch import Tensor, nn

from likeness.networks.checks import require_positive, require_shape


class CNN(nn.Module):
    """Four 3x3 convolutions, two of them halving the image, the mean over positions, and a linear map to R^M.

    ``input_shape`` is (C, H, W); ``width`` channels at full size, twice as many after the first halving.
    Small enough for digits on a CPU. Raises ValueError for another kind of shape.
    """

    def __init__(self, input_shape: Sequence[int], dim: int, width: int = 32) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=3)
        require_positive(dim=dim, width=width)
        channels = [input_shape[0], width, 2 * width, 2 * width, 2 * width]
        layers: list[nn.Module] = []
        for i, stride in enumerate((1, 2, 1, 2)):
            layers += [nn.Conv2d(channels[i], channels[i + 1], 3, stride, padding=1), nn.LeakyReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.output = nn.Linear(channels[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, M]."""
        return self.output(self.features(x).mean((-2, -1)))  # type: ignore[no-any-return]


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with the CIFAR stem (3x3 convolution, no max-pool) and a last layer Linear(512, M).

    He et al. 2016; the stem and the bias of the last layer as in Nielsen et al. 2025.
    ``input_shape`` is (C, H, W). Raises ValueError for another kind of shape.
    """

    def __init__(self, input_shape: Sequence[int], dim: int) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=3)
        require_positive(dim=dim)
        from torchvision.models import resnet18

        self.net = resnet18(num_classes=dim)
        self.net.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.net.maxpool = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, M]."""
        return self.net(x)  # type: ignore[no-any-return]
