"""Where a head to inspect comes from, and the features over which its logits vary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from likeness.label_geometry.similarity import LabelRows, moments_of, row_blocks
from likeness.numerics import as_float64
from likeness.protocols import SoftmaxModel
from scripts.inputs import load_data, names_a_model
from scripts.inspect_head.files import Labels, NumpyRows, read_head, read_labels, read_numpy

MAX_SAMPLE = 256  # features on which equal probabilities are shown


@dataclass(frozen=True)
class Head:
    """Unembeddings without their biases, and what is known of them."""

    rows: LabelRows  # [K, M]
    bias: Tensor | None  # [K]
    labels: Labels
    source: str
    dtype: str
    tied: bool = False
    model: SoftmaxModel | None = None  # of this project, whose f can be asked


@dataclass(frozen=True)
class Features:
    """The covariance over inputs of the features f(x) [M], and some of them."""

    covariance: Tensor  # [M, M]
    sample: Tensor  # [n, M]
    source: str


def open_head(path: str, key: str | None = None, labels: Path | None = None) -> Head:
    """The head of a run, a checkpoint, a file of weights or a model directory; raises what is wrong with it.

    Of a run of siblings ``PATH#3`` is member 3, and ``PATH`` the first.
    """
    if key is None and names_a_model(path):
        head = _of_model(path)
    else:
        file = read_head(Path(path), key)
        source = f"{path}, {file.key}" if file.key else path
        names = Labels(file.rows.shape[0], file.labels)
        head = Head(file.rows, file.bias, names, source, file.dtype, file.tied)
    if labels is None:
        return head
    return replace(head, labels=Labels(head.labels.count, read_labels(labels, head.labels.count)))


def find_pair(head: Head, first: str, second: str) -> tuple[int, int]:
    """Two labels by name; raises ValueError if one is unknown or they are the same."""
    pair = head.labels.find(first), head.labels.find(second)
    if pair[0] == pair[1]:
        raise ValueError(f"--pair takes two labels, and {first!r} and {second!r} are the same")
    return pair


@torch.no_grad()
def _of_model(path: str) -> Head:
    from lightning_modules.checkpoints import load_softmax_models

    models = load_softmax_models(path)
    name, model = models[0]
    g, bias = model.unembeddings().detach(), None
    if _appends_a_constant(model):
        g, bias = g[:, :-1], g[:, -1]
    source = name if len(models) == 1 else f"{name}, the first of {len(models)} members"
    return Head(g, bias, Labels(len(g)), source, str(g.dtype).removeprefix("torch."), model=model)


def _appends_a_constant(model: SoftmaxModel) -> bool:
    """Whether f's last coordinate is the constant 1 of a head with a bias."""
    shape = getattr(getattr(model, "network", None), "input_shape", None)
    if shape is None:
        return False
    f = model.embed(torch.stack([torch.zeros(*shape), torch.ones(*shape)]))
    return f.shape[1] > 1 and bool((f[:, -1] == 1).all())


def features_of_file(path: Path, dim: int) -> Features:
    """Features [N, M] from a ``.npy`` file, read in blocks; raises ValueError naming a shape that does not fit."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of features {path}")
    array = read_numpy(path)
    if array.ndim != 2 or array.shape[1] != dim or len(array) < 2:
        raise ValueError(f"features for this head are [N, {dim}] with N of at least 2, but {path} is {[*array.shape]}")
    rows = NumpyRows(array)
    return _features((as_float64(rows[block]) for block in row_blocks(rows.shape)), f"rows of {path}")


@torch.no_grad()
def features_of_data(head: Head, config: Path, split: str, device: torch.device) -> Features:
    """f of a split of the data, ``val`` or ``test``; raises ValueError for a head that is no model of this project."""
    if head.model is None:
        raise ValueError(f"--data needs a model that embeds inputs, and {head.source} is weights alone: use --features")
    data = load_data(config)
    data.prepare_data()
    data.setup("validate" if split == "val" else "test")
    model, dim = head.model, head.rows.shape[1]
    if isinstance(model, torch.nn.Module):
        model.to(device)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    embeddings = (as_float64(model.embed(batch.x.to(device)))[:, :dim].cpu() for batch in loader)
    return _features(embeddings, f"inputs of the {split} split of {config}")


def random_features(dim: int, scale: float, count: int) -> Tensor:
    """Standard normal features [n, M] times ``scale``, always the same."""
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _features(blocks: Iterable[Tensor], source: str) -> Features:
    sample: list[Tensor] = []

    def watched() -> Iterator[Tensor]:
        first = 0
        for block in blocks:
            bad = (~block.isfinite()).any(1)
            if bool(bad.any()):
                raise ValueError(f"the features are not finite at {first + int(bad.nonzero()[0])} of the {source}")
            if first < MAX_SAMPLE:
                sample.append(block[: MAX_SAMPLE - first].clone())
            first += len(block)
            yield block

    n, _, scatter = moments_of(watched())
    return Features(scatter / (n - 1), torch.cat(sample), f"{int(n)} {source}")
