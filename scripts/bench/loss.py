"""The classifier's loss against one that evaluates f again for every label."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_modules import SoftmaxClassifier
from likeness.batch import Batch
from likeness.networks import CNN, MLP, ResNet18
from likeness.networks.softmax_network import EmbeddingFactory
from scripts.bench.timing import Contestant, Ratios, interleaved


class Setting(NamedTuple):
    """A classifier to train; g is the paper's label network in each."""

    title: str
    input_shape: tuple[int, ...]
    embedding: EmbeddingFactory
    batch_size: int
    steps: int  # in one repeat
    required: float | None


SETTINGS = {
    "resnet18": Setting("ResNet-18, 32x32 images, batch 32", (3, 32, 32), ResNet18, 32, 1, 5.0),
    "cnn": Setting("small CNN, 8x8 images, batch 128", (1, 8, 8), CNN, 128, 3, 5.0),
    # f is so cheap that g and the optimiser, the same on both sides, are most of the fast step.
    "mlp": Setting("MLP width 128, points, batch 128", (2,), functools.partial(MLP, width=128), 128, 20, None),
}


def loss(
    network: Literal["all", "resnet18", "cnn", "mlp"] = "all",
    classes: int = 10,
    repeats: int = 5,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Ratios:
    """Seconds for a training step with f evaluated once, and with f evaluated once for each label.

    Args:
        network: The network f.
        classes: Classes K.
        repeats: Rounds that are timed.
        device: Where the model trains.
    """
    settings = list(SETTINGS.values()) if network == "all" else [SETTINGS[network]]
    comparisons = {setting.title: _compare(setting, classes, repeats, device) for setting in settings}
    required = {setting.title: setting.required for setting in settings if setting.required is not None}
    return Ratios(f"training step of a classifier with K = {classes}, Adam, {device}", comparisons, required)


def per_label_loss(model: SoftmaxClassifier, batch: Batch) -> Tensor:
    """The same mean NLL with f evaluated for each label; g is evaluated once here too."""
    logits = torch.stack([(model.embed(batch.x) * g_y).sum(-1) for g_y in model.unembeddings()], dim=-1)
    return (logits.logsumexp(-1) - logits.gather(-1, batch.y.unsqueeze(-1)).squeeze(-1)).mean()


def _compare(setting: Setting, classes: int, repeats: int, device: str) -> tuple[Contestant, Contestant]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(setting.batch_size, *setting.input_shape, generator=generator)
    y = torch.randint(classes, (setting.batch_size,), generator=generator)
    batch = Batch(x.to(device), y.to(device), torch.arange(setting.batch_size))

    def work(loss_of: Callable[[SoftmaxClassifier, Batch], Tensor]) -> Callable[[], None]:
        model = SoftmaxClassifier(setting.input_shape, classes, embedding=setting.embedding).to(device)
        return functools.partial(
            _train, model, model.configure_optimizers()["optimizer"], loss_of, batch, setting.steps
        )

    contestants = {"f once per label": work(per_label_loss), "f once": work(SoftmaxClassifier.loss)}
    slow, fast = interleaved(contestants, repeats, device)
    return slow.per(setting.steps), fast.per(setting.steps)


def _train(
    model: SoftmaxClassifier,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[SoftmaxClassifier, Batch], Tensor],
    batch: Batch,
    steps: int,
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
