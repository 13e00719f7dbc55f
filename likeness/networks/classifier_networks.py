"""The networks of classifiers: embeddings f of points and images, and label representations g.

g is a network of the label's code, a table of free vectors, or the last layer of an ordinary classifier.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.checks import require_positive, require_probability, require_shape


class MLP(nn.Module):
    """Linear layers ``l1 .. l{h+1}``: h hidden ones with LeakyReLU(0.01), then a linear map to R^M without bias.

    Nielsen et al. 2025 use ``hidden_layers=3`` for f and g; the layers carry the names of their checkpoints.
    ``input_shape`` has no batch dimension and is flattened; ``dim`` is M. Dropout follows each hidden layer.
    Every dimension before ``input_shape`` is a batch dimension: [..., *input_shape] -> [..., M].
    Raises ValueError for sizes that are not positive and for a dropout outside [0, 1).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        dim: int,
        width: int = 64,
        hidden_layers: int = 3,
        dropout: float = 0.0,
        output_bias: bool = False,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape)
        require_positive(dim=dim, width=width)
        if hidden_layers < 0:
            raise ValueError(f"hidden_layers must be at least 0, got {hidden_layers}")
        require_probability("dropout", dropout)
        self.input_dims = len(input_shape)
        self.depth = hidden_layers + 1
        sizes = [math.prod(input_shape), *[width] * hidden_layers, dim]
        for i in range(1, self.depth + 1):
            self.add_module(f"l{i}", nn.Linear(sizes[i - 1], sizes[i], bias=i < self.depth or output_bias))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., *input_shape] to [..., M]."""
        h = x.flatten(-self.input_dims)
        for i in range(1, self.depth):
            h = self.dropout(F.leaky_relu(self.get_submodule(f"l{i}")(h), inplace=True))
        return self.get_submodule(f"l{self.depth}")(h)  # type: ignore[no-any-return]


class LabelNetwork(nn.Module):
    """g(y) of Nielsen et al. 2025: an MLP of the one-hot label without its last entry (K - 1 inputs).

    The last label is the zero vector. Raises ValueError for fewer than two classes.
    """

    codes: Tensor

    def __init__(
        self,
        num_classes: int,
        dim: int,
        width: int = 64,
        hidden_layers: int = 3,
        dropout: float = 0.0,
        output_bias: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.mlp = MLP((num_classes - 1,), dim, width, hidden_layers, dropout, output_bias)
        self.register_buffer("codes", torch.eye(num_classes)[:, :-1].contiguous(), persistent=False)

    def forward(self) -> Tensor:
        """The label vectors [K, M]."""
        return self.mlp(self.codes)  # type: ignore[no-any-return]


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
        """Map [B, C, H, W] to [B, M]; in training the last batch norm needs two positions or samples."""
        positions = math.ceil(x.shape[-2] / 8) * math.ceil(x.shape[-1] / 8)  # behind three strides of 2
        if self.training and len(x) * positions < 2:
            size = "x".join(map(str, x.shape[-2:]))
            raise ValueError(f"batch norm has no variance over batch_size 1 of images {size}: take larger batches")
        return self.net(x)  # type: ignore[no-any-return]


class LabelTable(nn.Module):
    """A free vector for each label, [K, M], standard normal at the start."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, dim=dim)
        self.weight = nn.Parameter(torch.randn(num_classes, dim))

    def forward(self) -> Tensor:
        """The label vectors [K, M]."""
        return self.weight


class LinearHead(nn.Module):
    """The last layer of an ordinary classifier, ``torch.nn.Linear(M, K)``, seen as label vectors.

    With ``bias`` the logits are f(x) . g(y) + b(y); whoever uses the head appends the constant coordinate.
    """

    def __init__(self, num_classes: int, dim: int, bias: bool = True) -> None:
        super().__init__()
        require_positive(num_classes=num_classes, dim=dim)
        linear = nn.Linear(dim, num_classes, bias)
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self) -> Tensor:
        """The label vectors [K, M], without the bias."""
        return self.weight
