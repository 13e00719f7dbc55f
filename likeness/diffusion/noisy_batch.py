"""Samples together with the noise with which a bound looks at them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from likeness.diffusion.elbo import ElboTerms
from likeness.diffusion.model import DiffusionModel, StepError
from likeness.diffusion.noise import Noise, evaluation_noise


class NoisyBatch(NamedTuple):
    """Grey levels with noise, and with labels for class-conditional models."""

    images: Tensor  # [B, ...]
    noise: Noise
    labels: Tensor | None  # [B]

    @property
    def dims(self) -> int:
        """d of a sample."""
        return self.images[0].numel()

    def terms(self, model: DiffusionModel) -> ElboTerms:
        """The bound's terms in nats, [B] each."""
        return model.elbo_terms(self.images, **self.noise._asdict(), labels=self.labels)

    def rate_error(self, model: DiffusionModel) -> tuple[Tensor, Tensor]:
        """Of the model in infinite depth: see :meth:`DiffusionModel.rate_error`."""
        return model.rate_error(self._scaled(model), self.noise.t, self.noise.eps, self.labels)

    def step_error(self, model: DiffusionModel) -> StepError:
        """Of the model's step that contains each time: see :meth:`DiffusionModel.step_error`."""
        return model.step_error(self._scaled(model), self.noise.t, self.noise.eps, self.labels)

    def _scaled(self, model: DiffusionModel) -> Tensor:
        return model.scale(self.images, self.noise.eps.dtype)


def noisy_batches(
    model: DiffusionModel, images: Tensor, ids: Tensor, labels: Tensor | None, seed: int, draw: int, size: int
) -> Iterator[NoisyBatch]:
    """Grey levels [N, ...] in batches of ``size``, with the noise with which their ids are evaluated in this draw."""
    for start in range(0, len(images), size):
        own = slice(start, start + size)
        like = torch.empty(images[own].shape, dtype=model.dtype, device=images.device)
        noise = evaluation_noise(like, ids[own], seed, draw)
        yield NoisyBatch(images[own], noise, None if labels is None else labels[own])
