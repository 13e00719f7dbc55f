"""FID and KID of generated samples against a split of data, by torchmetrics."""

import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likeness.seeding import mix, seeded
from scripts.evaluation_data import EvaluatedSplit
from scripts.feature_extractors import Features
from scripts.progress import tracked
from scripts.report import Row

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # Binkowski et al. 2018 (arXiv 1801.01401)


@dataclass(frozen=True)
class GeneratedSamples:
    """Grey levels [N, ...], 0 .. levels - 1, of a file that scripts.sample wrote."""

    path: Path
    images: Tensor
    levels: int


def read_samples(path: Path) -> GeneratedSamples:
    """The samples of an ``.npz`` file; raises naming the file where it is missing, damaged or of another kind."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of samples {path}")
    try:
        with np.load(path, allow_pickle=False) as content:
            images, levels = content["samples"], int(content["levels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file of samples: it needs arrays samples [N, ...] and levels") from error
    if not np.issubdtype(images.dtype, np.integer) or images.ndim < 2 or len(images) < 2:
        raise ValueError(f"{path}: samples must be two or more of integers, got {images.shape} of {images.dtype}")
    return GeneratedSamples(path, torch.from_numpy(images), levels)


def require_fit(samples: GeneratedSamples, split: EvaluatedSplit) -> None:
    """Raise ValueError naming both where samples and data have other grey levels or shapes."""
    data = split.data
    own = f"{samples.levels} grey levels of shape {list(samples.images.shape[1:])}"
    given = f"{data.levels} grey levels of shape {list(data.input_shape)}"
    if own != given:
        raise ValueError(f"{samples.path} holds {own}, but {data.dataset_name} has {given}")


@torch.no_grad()
def evaluate_samples(samples: GeneratedSamples, split: EvaluatedSplit, features: Features, seed: int) -> Row:
    """FID, and KID with its standard deviation over subsets; the number of samples stands in their names.

    KID draws up to 1,000 of each side in each of 100 subsets, as the seed says.
    """
    real = _features(features, (batch.x for batch in split.batches("features of the data")))
    chunks = samples.images.split(split.batch_size)
    generated = _features(features, (chunk.to(split.device) for chunk in tracked(chunks, "features of the samples")))
    kid, spread = _kid(real, generated, seed)
    n = len(generated)
    return {f"fid_{n}": _fid(real, generated), f"kid_{n}": kid, f"kid_{n}_std": spread}


def _features(features: Features, batches: Iterator[Tensor]) -> Tensor:
    return torch.cat([features(images).cpu() for images in batches])


def _fid(real: Tensor, generated: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_given(real))
    return float(_compute(metric, real.double(), generated.double()))


def _kid(real: Tensor, generated: Tensor, seed: int) -> tuple[float, float]:
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(KID_SUBSET_SIZE, len(real), len(generated))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(feature=_given(real), subsets=KID_SUBSETS, subset_size=size)
    with seeded(mix(seed)):  # it draws from torch's global generator
        mean, spread = _compute(metric, real, generated)
    return float(mean), float(spread)


def _given(features: Tensor) -> nn.Module:
    """For metrics that want a network: the features are there already, and both metrics share them."""
    network = nn.Identity()
    network.num_features = features.shape[1]  # type: ignore[assignment]
    return network


def _compute(metric: Any, real: Tensor, generated: Tensor) -> Any:
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute()
