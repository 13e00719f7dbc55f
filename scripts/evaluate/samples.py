"""FID and KID of generated samples against a split of data, in features: Inception's, a model's, or pixels."""

import importlib
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.checkpoints import load_module, softmax_models, split_member
from likeness.diffusion.process import scaled
from likeness.numerics import triangle
from likeness.progress import tracked
from likeness.protocols import Embedder
from likeness.seeding import generator
from scripts.evaluate.data import EvaluatedSplit
from scripts.reporting import Row

INCEPTION, PIXELS = "inception", "pixels"
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # Binkowski et al. 2018 (arXiv 1801.01401)
Features = Callable[[Tensor], Tensor]
"""From grey levels [B, ...], as the datamodule stores them, to [B, M]."""


def open_features(name: str, levels: int, device: torch.device) -> Features:
    """The features that ``--features`` names; see the command's help.

    Raises ValueError for a name that is none of them, FileNotFoundError and CheckpointError as ``load_module`` does,
    and ModuleNotFoundError where Inception is asked for without the package torch-fidelity.
    """
    if name == INCEPTION:
        return _Inception(levels, device)
    if name == PIXELS:
        return lambda images: scaled(images.flatten(1), levels, torch.float64)
    location, _ = split_member(name)
    if Path(location).exists() or location.endswith(".ckpt"):
        return _of_checkpoint(name, device)
    network = _of_class(name).to(device).eval().requires_grad_(False)
    return lambda images: _matrix(network(images), name)


class _Inception:
    """The 2,048 pooled features of Inception v3 that FID is defined by; grey images become RGB of equal channels."""

    def __init__(self, levels: int, device: torch.device) -> None:
        from torchmetrics.image.fid import FrechetInceptionDistance

        self.levels = levels
        try:
            self.network = FrechetInceptionDistance(feature=2048).inception.to(device).requires_grad_(False)
        except ModuleNotFoundError as error:
            other = "pip install torch-fidelity, or name other --features, such as pixels or a checkpoint"
            raise ModuleNotFoundError(f"Inception's features need the package torch-fidelity: {other}") from error
        except URLError as error:
            raise OSError(f"Inception's weights could not be downloaded: {error.reason}") from error

    def __call__(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Inception's features are of images [B, 1 or 3, H, W], got {list(images.shape)}")
        to_bytes = (images.double() * (255 / (self.levels - 1))).round().to(torch.uint8)
        return self.network(to_bytes.expand(-1, 3, -1, -1))


def _of_checkpoint(name: str, device: torch.device) -> Features:
    location, index = split_member(name)
    loaded = load_module(location)
    module: object = loaded if index is None else softmax_models(loaded, location, index)[0][1]
    if not (isinstance(module, nn.Module) and isinstance(module, Embedder)):
        raise ValueError(f"--features {name}: a {type(module).__name__} has no embed(x)")
    module.to(device).eval().requires_grad_(False)
    return lambda images: _matrix(module.embed(images), name)


def _of_class(name: str) -> nn.Module:
    module_path, _, class_name = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_path), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        choices = f"{INCEPTION}, {PIXELS}, a run or checkpoint, or the class path of an nn.Module"
        raise ValueError(f"--features must be {choices}, got {name!r}") from error
    network = cls()
    if not isinstance(network, nn.Module):
        raise ValueError(f"--features {name} is no nn.Module")
    return network


def _matrix(features: Tensor, name: str) -> Tensor:
    if features.dim() != 2:
        raise ValueError(f"--features {name} answers {list(features.shape)}, but features are [B, M]")
    return features


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

    KID draws ``kid_subset`` of each side, as the seed says: 1,000, or as many as the smaller side has. Where that is
    all of both, there is one such draw and no standard deviation. KID is unbiased, so it may be below 0.
    Raises ValueError for fewer than two samples on either side.
    """
    real = _features(features, (batch.x for batch in split.batches("features of the data")))
    chunks = samples.images.split(split.batch_size)
    generated = _features(features, (chunk.to(split.device) for chunk in tracked(chunks, "features of the samples")))
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"FID and KID need two samples or more, got {len(generated)} and {len(real)} of {split}")
    subsets = squared_mmds(real, generated, seed)
    n, size = len(generated), min(KID_SUBSET_SIZE, len(real), len(generated))
    row: Row = {f"fid_{n}": frechet_distance(real, generated), f"kid_{n}": float(subsets.mean())}
    return row | {f"kid_{n}_std": float(subsets.std()) if len(subsets) > 1 else None, "kid_subset": size}


def _features(features: Features, batches: Iterator[Tensor]) -> Tensor:
    """[N, M] in float64 on the CPU."""
    return torch.cat([features(images).double().cpu() for images in batches])


def frechet_distance(f: Tensor, g: Tensor) -> float:
    """The squared Fréchet distance of Gaussians fitted to the rows of f [N, M] and of g [N', M]; Heusel et al. 2017.

    |mean f - mean g|^2 + tr(S + S') - 2 tr (S S')^(1/2), with S = A A^T and S' = B B^T. The traces are the least
    |A - B U|^2 over rotations U (Bhatia et al. 2019, arXiv 1712.01504). A sum of squares keeps its digits for sets
    that are nearly the same, and is never below 0, as the difference of traces is by its rounding.
    """
    rows = max(min(f.shape), min(g.shape))
    a, b = (_factor(x, rows) for x in (f, g))
    left, _, right = torch.linalg.svd(b.T @ a)  # the best U is left @ right
    return float((f.mean(0) - g.mean(0)).square().sum() + (a - b @ (left @ right)).square().sum())


def _factor(x: Tensor, columns: int) -> Tensor:
    """A [M, columns] with A A^T the covariance of the rows of x [N, M]; zeros fill it up."""
    factor = triangle(x - x.mean(0)) / math.sqrt(len(x) - 1)
    return nn.functional.pad(factor.T, (0, columns - len(factor)))


def squared_mmds(f: Tensor, g: Tensor, seed: int) -> Tensor:
    """Unbiased estimates of the squared MMD of f [N, M] from g [N', M] on random subsets, one for each.

    The kernel is (x . y / M + 1)^3; Binkowski et al. 2018 (arXiv 1801.01401).
    """
    size = min(KID_SUBSET_SIZE, len(f), len(g))
    if size == len(f) == len(g):
        return _squared_mmd(f, g)[None]
    source = generator(seed)
    draws = ([x[torch.randperm(len(x), generator=source)[:size]] for x in (f, g)] for _ in range(KID_SUBSETS))
    return torch.stack([_squared_mmd(*both) for both in draws])


def _squared_mmd(f: Tensor, g: Tensor) -> Tensor:
    """Of as many rows of either: the mean of k(f_i, f_j) + k(g_i, g_j) over i != j, less twice that of k(f_i, g_j)."""
    size, dim = f.shape
    within = torch.zeros((), dtype=f.dtype)
    for x in (f, g):
        kernel = (x @ x.T / dim + 1) ** 3
        within += (kernel.sum() - kernel.trace()) / (size * (size - 1))
    return within - 2 * ((f @ g.T / dim + 1) ** 3).mean()
