"""Features in which samples are compared with data: Inception's, a model's of this project, anybody's, or pixels."""

import importlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from lightning_modules.checkpoints import load_module, softmax_models, split_member
from likeness.diffusion.decoder import scaled
from likeness.protocols import Embedder

INCEPTION, PIXELS = "inception", "pixels"
Features = Callable[[Tensor], Tensor]
"""From grey levels [B, ...], as the datamodule stores them, to [B, M]."""


def open_features(name: str, levels: int, device: torch.device) -> Features:
    """The features that ``--features`` names; see the door's help.

    Raises ValueError for a name that is none of them, FileNotFoundError and CheckpointError as ``load_module`` does,
    and ModuleNotFoundError where Inception is asked for without the package torch-fidelity.
    """
    if name == INCEPTION:
        return _Inception(levels, device)
    if name == PIXELS:
        return lambda images: scaled(images.flatten(1), levels)
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
