"""The pair of networks for points [B, D]: a score network and an inner encoder, with the interfaces of the U-Nets."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.networks.checks import require_batch, require_positive, require_shape
from likeness.networks.dual import Dual, affine, concat, swish
from likeness.networks.encoder_output import EncoderOutput
from likeness.networks.fourier_features import fourier_features
from likeness.networks.initialisation import dense
from likeness.networks.label_vectors import LabelVectors
from likeness.networks.time_embedding import NetworkTime, TimeEmbedding

POINT_EXPONENTS = range(8)


class ScoreMLP(nn.Module):
    """o(z, gamma) = MLP(z, 2 t - 1, Fourier features of both) + z for points; swish; z at the start.

    The network of the VDM authors' two-dimensional example, with t = (gamma - gamma_min) / (gamma_max - gamma_min) and
    octaves 0 to 7: 51 inputs for D = 2. With ``num_labels`` each class adds a learned vector to the first layer.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 512,
        hidden_layers: int = 2,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=1)
        require_positive(width=width, hidden_layers=hidden_layers)
        self.input_shape = tuple(input_shape)
        self.time = NetworkTime(gamma_min, gamma_max)
        inputs = (input_shape[0] + 1) * (1 + 2 * len(POINT_EXPONENTS))
        sizes = [inputs, *[width] * hidden_layers]
        self.hidden = nn.ModuleList(dense(a, b) for a, b in pairwise(sizes))
        self.out = dense(width, input_shape[0], zero=True)
        self.labels = LabelVectors(num_labels, width)

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """z [B, D], gamma [B] and, with ``num_labels``, labels [B] -> o [B, D]."""
        return self.out(self.features(z, gamma, labels)) + z  # type: ignore[no-any-return]

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """The last hidden layer, [B, width]."""
        require_batch("z", z, gamma, self.input_shape)
        t = self.time(Dual(gamma)).value.unsqueeze(1)
        point = torch.cat([z, 2 * t - 1], dim=1)
        h = self.hidden[0](torch.cat([point, fourier_features(point, POINT_EXPONENTS)], dim=1))
        h = F.silu(self.labels(h, labels))
        for layer in self.hidden[1:]:
            h = F.silu(layer(h))
        return h


class EncoderMLP(nn.Module):
    """y(x, gamma) for points, an MLP of x and the time embedding, with its derivative in gamma; 0 at the start.

    The time embedding is that of the U-Nets, ``4 time_width`` numbers. ``output`` shapes y; see ``EncoderOutput``.
    Raises ValueError for sizes that do not fit, naming them.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        num_labels: int | None = None,
        width: int = 128,
        hidden_layers: int = 2,
        time_width: int = 32,
        output: EncoderOutput | None = None,
    ) -> None:
        super().__init__()
        require_shape("input_shape", input_shape, length=1)
        require_positive(width=width, hidden_layers=hidden_layers)
        self.input_shape = tuple(input_shape)
        self.time_embedding = TimeEmbedding(time_width, NetworkTime(gamma_min, gamma_max), num_labels)
        sizes = [input_shape[0] + 4 * time_width, *[width] * hidden_layers]
        self.hidden = nn.ModuleList(dense(a, b) for a, b in pairwise(sizes))
        self.out = dense(width, input_shape[0], zero=True)
        self.output = output or EncoderOutput()

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        """x [B, D], gamma [B] and, with ``num_labels``, labels [B] -> y [B, D]."""
        return self._pass(x, Dual(gamma), labels).value

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and dy/dgamma in one pass; both can be differentiated."""
        y, dy = self._pass(x, Dual(gamma, torch.ones_like(gamma)), labels)
        return y, torch.zeros_like(y) if dy is None else dy

    def _pass(self, x: Tensor, gamma: Dual, labels: Tensor | None) -> Dual:
        require_batch("x", x, gamma.value, self.input_shape)
        with torch.autocast(x.device.type, enabled=False):
            h = concat([Dual(x), self.time_embedding(gamma, labels)])
            for layer in self.hidden:
                h = swish(affine(layer, h))  # type: ignore[arg-type]
            return self.output(affine(self.out, h), x, self.time_embedding.time(gamma))
