"""Class conditioning: a learned vector for each class."""

import torch
from torch import Tensor, nn

from likeness.networks.checks import require_labels, require_positive


class LabelVectors(nn.Module):
    """Adds vector y of [K, dim], zero at the start, to a sample of class y; adds nothing where K is None.

    So a network with classes starts as the one without.
    """

    def __init__(self, num_labels: int | None, dim: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        if num_labels is not None:
            require_positive(num_labels=num_labels)
        self.weight = None if num_labels is None else nn.Parameter(torch.zeros(num_labels, dim))

    def forward(self, h: Tensor, labels: Tensor | None) -> Tensor:
        """h [B, dim] and labels [B] -> [B, dim]. Raises ValueError for labels missing, extra or out of range."""
        if self.weight is None:
            if labels is not None:
                raise ValueError(
                    f"labels of shape {list(labels.shape)} for a network without classes (num_labels=None)"
                )
            return h
        if labels is None or labels.shape != h.shape[:1]:
            got = None if labels is None else f"labels of shape {list(labels.shape)}"
            raise ValueError(f"a network with num_labels={self.num_labels} takes labels [{len(h)}], got {got}")
        require_labels(labels, len(self.weight), wait=False)
        return h + self.weight[labels]
