"""Optimisers, schedulers and groups of parameters as Lightning takes them, and the seed of a training step."""

import math
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.cli import LRSchedulerCallable
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import ParamsT

from likeness.checks import require_positive
from likeness.seeding import mix

MONITOR = "val/nll"


class DiffusionAdamW(AdamW):
    """AdamW as VDM and DiffEnc were trained with it: a default that a configuration can name."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


class SentenceAdamW(AdamW):
    """AdamW as sentence-transformers trains with it: a default that a configuration can name."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


class LanguageAdamW(AdamW):
    """AdamW as GPT-3 and nanoGPT were trained with it: a default that a configuration can name."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 6e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


class LinearWarmup(LRScheduler):
    """From 0 at the first step to the optimiser's learning rate at step ``steps``, constant from there."""

    def __init__(self, optimizer: Optimizer, steps: int = 100, last_epoch: int = -1) -> None:
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        self.steps = steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        factor = min(1.0, self.last_epoch / self.steps) if self.steps else 1.0
        return [base * factor for base in self.base_lrs]


class WarmupThenDecay(LRScheduler):
    """Linearly from 0 to the optimiser's learning rate, and linearly back to 0 at step ``steps``, the last.

    ``warmup`` is the share of the steps that the way up takes, rounded up to a whole step.
    Raises ValueError for ``steps`` below 1 or a share outside [0, 1].
    """

    def __init__(self, optimizer: Optimizer, steps: int, warmup: float = 0.1, last_epoch: int = -1) -> None:
        require_positive(steps=steps)
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup must lie in [0, 1], got {warmup}")
        self.steps = steps
        self.warmup_steps = math.ceil(steps * warmup)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        up = self.last_epoch / max(1, self.warmup_steps)
        left = (self.steps - self.last_epoch) / max(1, self.steps - self.warmup_steps)
        factor = up if self.last_epoch < self.warmup_steps else self.decayed(max(0.0, left))
        return [base * factor for base in self.base_lrs]

    def decayed(self, left: float) -> float:
        """The factor of the learning rate where the share ``left`` of the way down is still to go."""
        return left


class WarmupThenCosine(WarmupThenDecay):
    """Linearly from 0 to the optimiser's learning rate, and by half a cosine to ``lowest`` times it at ``steps``.

    Loshchilov & Hutter 2017 (arXiv 1608.03983), without restarts; ``lowest`` is as in nanoGPT by default.
    Raises ValueError as ``WarmupThenDecay``, and for ``lowest`` outside [0, 1].
    """

    def __init__(
        self, optimizer: Optimizer, steps: int, warmup: float = 0.1, lowest: float = 0.1, last_epoch: int = -1
    ) -> None:
        if not 0 <= lowest <= 1:
            raise ValueError(f"lowest must lie in [0, 1], got {lowest}")
        self.lowest = lowest
        super().__init__(optimizer, steps, warmup, last_epoch)

    def decayed(self, left: float) -> float:
        return self.lowest + (1 - self.lowest) * (1 - math.cos(math.pi * left)) / 2


def optimization(optimizer: Optimizer, scheduler: LRSchedulerCallable | None, monitor: str = MONITOR) -> dict[str, Any]:
    """The answer of ``configure_optimizers``: schedulers step with the optimiser, so their lengths are in steps.

    ReduceLROnPlateau steps at an epoch's end with the metric it names as ``monitor``, or with this one.
    """
    if scheduler is None:
        return {"optimizer": optimizer}
    schedule = scheduler(optimizer)
    if isinstance(schedule, ReduceLROnPlateau):
        monitor = getattr(schedule, "monitor", monitor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": monitor}}
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def without_decay_of_biases(module: nn.Module, apart: Iterable[tuple[nn.Module, float]] = ()) -> list[dict[str, Any]]:
    """Parameters in groups: those that weight decay shrinks, biases, and each module kept ``apart``, which it does not.

    The latter have a learning rate of their own. As in VDM's and DiffEnc's code, where the scales of normalisation and
    of a learned schedule do decay.
    """
    parts = [([p for p in part.parameters() if p.requires_grad], rate) for part, rate in apart]
    aside = {id(parameter) for parameters, _ in parts for parameter in parameters}
    decayed: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in aside:
            (biases if name.rpartition(".")[2] == "bias" else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": biases, "weight_decay": 0.0}]
    groups += [{"params": parameters, "weight_decay": 0.0, "lr": rate} for parameters, rate in parts]
    return [group for group in groups if group["params"]]


def without_decay_of_vectors(module: nn.Module, stacked: bool = False) -> list[dict[str, Any]]:
    """Parameters in two groups: those that weight decay shrinks, and biases and scales of normalisation, kept from it.

    As in BERT's fine-tuning; the latter are the parameters with a single dimension, or with one more where those of
    siblings are stacked.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices, vectors = ([p for p in trained if (p.ndim > 1 + stacked) == wanted] for wanted in (True, False))
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def step_seed(module: pl.LightningModule, seed: int, rank: int | None = None) -> int:
    """A seed for this step, from ``seed``, the number of this batch in the whole run and the rank (this process's).

    Not from the epoch: ``current_epoch`` is one too high after Lightning resumes from the end
    of an epoch with max_steps set, or from one that max_steps cut short.
    """
    return mix(seed, module.trainer.fit_loop.total_batch_idx, module.global_rank if rank is None else rank)
