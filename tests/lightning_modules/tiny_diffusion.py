"""Diffusion modules that are small enough to train in a test."""

from functools import partial
from typing import Any

import torch

from lightning_modules import DiffEnc, VariationalDiffusion
from likeness.batch import Batch
from likeness.diffusion import LinearSchedule
from likeness.networks import EncoderUNet, ScoreUNet

SHAPE, LEVELS = (1, 8, 8), 17
SCORE = partial(ScoreUNet, width=8, depth=1, groups=4, dropout=0.0, fourier_exponents=(2, 3))
ENCODER = partial(EncoderUNet, width=8, depth=1, groups=4, output_groups=4, dropout=0.0)
SCHEDULE = partial(LinearSchedule, gamma_min=-7.9)


def vdm(**options: Any) -> VariationalDiffusion:
    return VariationalDiffusion(SHAPE, LEVELS, **{"network": SCORE, "schedule": SCHEDULE} | options)


def diffenc(**options: Any) -> DiffEnc:
    return DiffEnc(SHAPE, LEVELS, **{"network": SCORE, "encoder": ENCODER, "schedule": SCHEDULE} | options)


def awake(module: VariationalDiffusion, seed: int = 0) -> VariationalDiffusion:
    """With random weights where layers start at zero."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.diffusion.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=source))
    return module


def batch(size: int, first: int = 0) -> Batch:
    source = torch.Generator().manual_seed(first)
    images = torch.randint(LEVELS, (size, *SHAPE), generator=source, dtype=torch.uint8)
    return Batch(images, torch.arange(size) % 10, torch.arange(first, first + size))
