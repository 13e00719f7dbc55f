"""Siblings in lock-step against the same models one after another."""

import functools
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from datamodules import Radial
from lightning_modules import SiblingClassifiers, SoftmaxClassifier
from likeness.batch import Batch
from likeness.networks import MLP, LabelNetwork
from scripts.bench.timing import Contestant, Ratios, interleaved

STEPS = 10  # of every model in one repeat
WHOLE_STEPS = 60
Classifier = SoftmaxClassifier | SiblingClassifiers


def siblings(
    members: int = 20,
    width: int = 64,
    classes: int = 6,
    batch_size: int = 128,
    repeats: int = 15,
    device: Literal["cpu", "cuda"] = "cpu",
    whole: bool = True,
) -> Ratios:
    """Seconds for one training step of all members on radial data, in lock-step and one after another.

    Args:
        members: Classifiers that differ in their seed.
        width: Hidden units of f and g, MLPs with three hidden layers.
        classes: Labels of the radial data.
        batch_size: Points in a member's batch.
        repeats: Rounds that are timed.
        device: Where the models train.
        whole: Also time Lightning's whole loop, with data loading and logging.
    """
    data = Radial(num_classes=classes, batch_size=batch_size)
    data.setup("fit")
    build = functools.partial(_models, members, width, classes)
    comparisons = {"step": _steps(*build(), data, repeats, device)}
    if whole:
        comparisons["step in Lightning's loop"] = _whole_steps(*build(), data, device)
    title = f"{members} siblings: MLP width {width}, radial data, K = {classes}, batch {batch_size}, Adam, {device}"
    return Ratios(title, comparisons, required={"step": 6.0})


def _models(members: int, width: int, classes: int) -> tuple[SiblingClassifiers, list[SoftmaxClassifier]]:
    common: dict[str, Any] = {
        "input_shape": (2,),
        "num_classes": classes,
        "embedding": functools.partial(MLP, width=width),
        "unembedding": functools.partial(LabelNetwork, width=width),
    }
    alone = [SoftmaxClassifier(seed=i, **common) for i in range(members)]
    return SiblingClassifiers(num_members=members, **common), alone


def _steps(
    together: SiblingClassifiers, alone: list[SoftmaxClassifier], data: Radial, repeats: int, device: str
) -> tuple[Contestant, Contestant]:
    """Forward, backward and optimiser, on batches that are ready."""
    split = data.splits["train"].to(device)
    ids = torch.randperm(len(split), device=split.y.device)[: STEPS * data.batch_size]
    own = [[split[ids.roll(7 * i).view(STEPS, -1)[step]] for i in range(len(alone))] for step in range(STEPS)]
    joint = [[Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))] for batches in own]
    work = {"one after another": _training(alone, own, device), "in lock-step": _training([together], joint, device)}
    slow, fast = interleaved(work, repeats, device)
    return slow.per(STEPS), fast.per(STEPS)


def _training(models: Sequence[Classifier], steps: list[list[Batch]], device: str) -> Callable[[], None]:
    optimizers = [model.to(device).configure_optimizers()["optimizer"] for model in models]

    def train() -> None:
        for batches in steps:
            for model, optimizer, batch in zip(models, optimizers, batches, strict=True):
                optimizer.zero_grad()
                _loss(model, batch).backward()
                optimizer.step()

    return train


def _loss(model: Classifier, batch: Batch) -> Tensor:
    return model.losses(batch).sum() if isinstance(model, SiblingClassifiers) else model.loss(batch)


def _whole_steps(
    together: SiblingClassifiers, alone: list[SoftmaxClassifier], data: Radial, device: str
) -> tuple[Contestant, Contestant]:
    """Lightning's loop: loading, transfer, hooks and logged metrics; validation and checkpoints are off."""
    each = [_fit(model, data, device) for model in alone]
    sums = [sum(durations) for durations in zip(*each, strict=True)]
    return Contestant("one after another", sums), Contestant("in lock-step", _fit(together, data, device))


def _fit(model: Classifier, data: Radial, device: str) -> list[float]:
    timer = StepTimer()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the number of workers and the missing logger
        pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            max_steps=WHOLE_STEPS,
            callbacks=[timer],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        ).fit(model, datamodule=data)
    return timer.durations


class StepTimer(Callback):
    """Seconds from the end of one training batch to the end of the next; the first ten are warm-up."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @property
    def durations(self) -> list[float]:
        return [after - before for before, after in zip(self.ends[10:-1], self.ends[11:], strict=True)]

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.ends.append(time.perf_counter())
