"""What the diffusion networks are told besides the image: the time, and a class where there are classes."""

import math

import torch
from torch import Tensor, nn

from likeness.networks.dual import Dual, affine, concat, swish
from likeness.networks.initialisation import dense
from likeness.networks.label_vectors import LabelVectors


class NetworkTime:
    """t = (gamma - gamma_min) / (gamma_max - gamma_min), the same whatever schedule produced gamma.

    Raises ValueError for limits that are not increasing.
    """

    def __init__(self, gamma_min: float, gamma_max: float) -> None:
        if not gamma_min < gamma_max:
            raise ValueError(f"gamma_min must be below gamma_max, got gamma_min={gamma_min}, gamma_max={gamma_max}")
        self.gamma_min = gamma_min
        self.gamma_max = gamma_max

    def __call__(self, gamma: Dual) -> Dual:
        """t [B] for gamma [B]."""
        length = self.gamma_max - self.gamma_min
        return Dual((gamma.value - self.gamma_min) / length, None if gamma.tangent is None else gamma.tangent / length)


class TimeEmbedding(nn.Module):
    """gamma [B] -> a conditioning vector [B, 4 width], by two layers with swish over sines and cosines of the time.

    After the sines and cosines stands one conditioning number, always 0 here and in the published models. With
    ``num_labels`` each class adds a learned vector to the first layer. Kingma et al. 2021 and their code.
    Raises ValueError for an odd width or one below 4.
    """

    def __init__(self, width: int, time: NetworkTime, num_labels: int | None = None) -> None:
        super().__init__()
        if width < 4 or width % 2:
            raise ValueError(f"width must be even and at least 4, got {width}")
        self.width = width
        self.time = time
        self.dense0 = dense(width + 1, 4 * width)
        self.dense1 = dense(4 * width, 4 * width)
        self.labels = LabelVectors(num_labels, 4 * width)

    def forward(self, gamma: Dual, labels: Tensor | None = None) -> Dual:
        """The conditioning vectors [B, 4 width]. Raises ValueError where labels are missing, or not expected."""
        conditioning = Dual(torch.zeros_like(gamma.value).unsqueeze(1))
        h = affine(self.dense0, concat([sinusoids(self.time(gamma), self.width), conditioning]))
        h = Dual(self.labels(h.value, labels), h.tangent)
        return swish(affine(self.dense1, swish(h)))


def sinusoids(t: Dual, width: int) -> Dual:
    """[B] -> [B, width]: sines, then cosines, of 1000 t at frequencies from 1 down to 1e-4."""
    half = width // 2
    steps = torch.arange(half, dtype=t.value.dtype, device=t.value.device)
    frequencies = torch.exp(steps * (-math.log(10_000) / (half - 1)))
    angles = (1000 * t.value).unsqueeze(1) * frequencies
    sin, cos = angles.sin(), angles.cos()
    value = torch.cat([sin, cos], dim=1)
    if t.tangent is None:
        return Dual(value)
    rates = (1000 * t.tangent).unsqueeze(1) * frequencies
    return Dual(value, torch.cat([cos * rates, -sin * rates], dim=1))
