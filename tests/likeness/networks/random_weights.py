"""Networks whose zero-initialised layers are not zero."""

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def randomised(network: Network, seed: int = 0, spread: float = 1.0) -> Network:
    """The network in float64 and evaluation mode, with weights of the size that keeps activations of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.double().eval().parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 16
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(spread * noise / fan_in**0.5 + (1 if parameter.dim() == 1 else 0))
    return network
