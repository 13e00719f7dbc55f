"""A diffusion model small enough to train in a test, and checkpoints of it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from datamodules import Digits
from lightning_modules.diffusion import DiffEnc, VariationalDiffusion
from tests.lightning_modules.points import trainer

DIGITS = "data:\n  class_path: datamodules.Digits\n  init_args: {eval_batch_size: 100}\n"


class TinyScore(nn.Module):
    """One hidden layer on all values, the time and the label; any number of values a sample, but a fixed one."""

    def __init__(
        self, input_shape: Sequence[int], gamma_min: float, gamma_max: float, num_labels: int | None, width: int = 32
    ) -> None:
        super().__init__()
        self.limits, self.num_labels = (gamma_min, gamma_max), num_labels
        dims = torch.Size(input_shape).numel()
        self.hidden = nn.Linear(dims + 1 + (num_labels or 0), width)
        self.out = nn.Linear(width, dims)

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.out(self._hidden(z, gamma, labels)).reshape(z.shape) + z

    def features(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._hidden(z, gamma, labels)

    def _hidden(self, z: Tensor, gamma: Tensor, labels: Tensor | None) -> Tensor:
        time = (gamma - self.limits[0]) / (self.limits[1] - self.limits[0])
        parts = [z.flatten(1), time[:, None]]
        if self.num_labels is not None:
            assert labels is not None
            parts.append(nn.functional.one_hot(labels, self.num_labels).to(z))
        return torch.tanh(self.hidden(torch.cat(parts, dim=1)))


class TinyEncoder(nn.Module):
    """y = w tanh(x) gamma / 10 with one weight."""

    def __init__(self, input_shape: Sequence[int], gamma_min: float, gamma_max: float, num_labels: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.with_derivative(x, gamma)[0]

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        derivative = self.weight * torch.tanh(x) / 10
        return derivative * gamma.reshape(-1, *[1] * (x.dim() - 1)), derivative


OPTIONS: dict[str, Any] = {
    "network": TinyScore,
    "optimizer": partial(torch.optim.AdamW, lr=3e-3),
    "scheduler": None,
}


def tiny(input_shape: Sequence[int] = (1, 8, 8), levels: int = 17, **options: Any) -> VariationalDiffusion:
    return VariationalDiffusion(input_shape, levels, **OPTIONS, **options)


def tiny_diffenc(**options: Any) -> DiffEnc:
    return DiffEnc((1, 8, 8), 17, encoder=TinyEncoder, **OPTIONS, **options)


def trained(callbacks: Sequence[pl.Callback], epochs: int = 2) -> None:
    """Train a tiny model on the digits; the callbacks keep what comes of it."""
    training = trainer(max_epochs=epochs, callbacks=list(callbacks), limit_val_batches=0, enable_checkpointing=True)
    training.fit(tiny(), datamodule=Digits(batch_size=64))
