"""The features f(x) over which a head's logits vary: their covariance, and some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from likeness.files.tensors import read_numpy
from likeness.label_geometry.similarity import moments_of, row_blocks
from likeness.numerics import as_float64
from scripts.inputs import load_data
from scripts.inspect_head.files import NumpyRows
from scripts.inspect_head.heads import Head

MAX_SAMPLE = 256  # features on which equal probabilities are shown


@dataclass(frozen=True)
class Features:
    """The covariance over inputs of the features f(x) [M], and some of them."""

    covariance: Tensor  # [M, M]
    sample: Tensor  # [n, M]
    source: str


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
