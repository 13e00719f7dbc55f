"""The classifier's loss against one that evaluates f again for every label."""

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_modules import SoftmaxClassifier
from likeness.batch import Batch
from likeness.networks import CNN, MLP, LabelNetwork, ResNet18
from likeness.networks.softmax_network import EmbeddingFactory
from scripts.benches.timing import Report, interleaved

# Input shape, f and its batch size; every g is a label network of the same kind.
SETTINGS: dict[str, tuple[tuple[int, ...], EmbeddingFactory, int]] = {
    "mlp": ((2,), functools.partial(MLP, width=128), 128),
    "cnn": ((1, 8, 8), CNN, 128),
    "resnet18": ((3, 32, 32), ResNet18, 32),
}


def loss(
    network: Literal["mlp", "cnn", "resnet18"] = "mlp",
    classes: int = 10,
    repeats: int = 15,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Report:
    """Seconds for a training step with one evaluation of f, and with one for each label.

    Args:
        network: f; the paper's MLP of width 128 on points, a small CNN on 8x8 images or ResNet-18 on 32x32 images.
        classes: K.
        repeats: Rounds that are timed.
        device: Where the model trains.
    """
    input_shape, embedding, batch_size = SETTINGS[network]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, *input_shape, generator=generator).to(device)
    y = torch.randint(classes, (batch_size,), generator=generator).to(device)
    batch = Batch(x, y, torch.arange(batch_size, device=device))
    build = functools.partial(SoftmaxClassifier, input_shape, classes, embedding=embedding, unembedding=LabelNetwork)
    work = {
        "f once per label": _step(build().to(device), per_label_loss, batch),
        "f once": _step(build().to(device), SoftmaxClassifier.loss, batch),
    }
    slow, fast = interleaved(work, repeats, device)
    title = f"loss of a classifier: {network}, inputs {list(input_shape)}, K = {classes}, batch {batch_size}, {device}"
    return Report(title, {"step": (slow, fast)}, required={"step": 5.0})


def per_label_loss(model: SoftmaxClassifier, batch: Batch) -> Tensor:
    """The same mean NLL with f evaluated for each label; g, for comparison's sake, only once."""
    g = model.unembeddings()
    logits = torch.stack([(model.embed(batch.x) * g_y).sum(-1) for g_y in g], dim=-1)
    return (logits.logsumexp(-1) - logits.gather(-1, batch.y.unsqueeze(-1)).squeeze(-1)).mean()


def _step(
    model: SoftmaxClassifier, loss_of: Callable[[SoftmaxClassifier, Batch], Tensor], batch: Batch
) -> Callable[[], None]:
    optimizer = model.configure_optimizers()["optimizer"]

    def step() -> None:
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()

    return step
