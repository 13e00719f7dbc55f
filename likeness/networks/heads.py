"""Label representations g(y) that are free parameters rather than networks."""

import torch
from torch import Tensor, nn

from likeness.networks.checks import require_positive


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
