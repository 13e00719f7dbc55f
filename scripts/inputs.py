"""What the commands' options name: models, data and devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentError, ArgumentParser

from scripts.cli.configurations import located, read_configuration
from scripts.cli.entry_point import UsageError

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

    from likeness.protocols import SoftmaxModel

NamedModels = list[tuple[str, "SoftmaxModel"]]


def load_models(paths: Sequence[str]) -> NamedModels:
    """The models of all runs and checkpoints under short names; raises ValueError for fewer than two."""
    from lightning_modules.checkpoints import short_names

    models = [named for path in paths for named in load_classifiers(path)]
    if len(models) < 2:
        raise ValueError(f"comparing takes at least two models, and {paths[0]} is one")
    names = short_names([name for name, _ in models])
    return [(name, model) for name, (_, model) in zip(names, models, strict=True)]


def load_classifiers(path: str) -> NamedModels:
    """The classifiers of a run or checkpoint, or one of a library by name, such as ``timm:resnet18?weights=FILE``."""
    from lightning_modules.checkpoints import load_softmax_models

    if not names_a_library_model(path):
        return load_softmax_models(path)
    from likeness.adapters.libraries import LibraryClassifier, ModelName

    name = ModelName.of(path)
    assert name is not None
    return [(name.name, LibraryClassifier(name))]


def names_a_library_model(path: str) -> bool:
    """Whether a text is ``library:model`` and no path that exists."""
    if ":" not in path or Path(path).exists():
        return False
    from likeness.adapters.libraries import ModelName

    return ModelName.of(path) is not None


def names_a_model(path: str) -> bool:
    """Whether a path is that of a run directory, a checkpoint or exported weights, or ``PATH#3``, a member's.

    Or it is no path and names a model of a library.
    """
    if names_a_library_model(path):
        return True
    location = Path(path if Path(path).exists() else path.rpartition("#")[0] or path)
    if location.suffix == ".safetensors" and location.is_file():
        return _names_its_class(location)
    return location.suffix == ".ckpt" or (location / "checkpoints").is_dir()


def _names_its_class(path: Path) -> bool:
    """Whether a safetensors file tells of the module it is of, as ``weights.safetensors`` of a run does."""
    from likeness.files.tensors import open_safetensors

    try:
        return "hyper_parameters" in (open_safetensors(path).metadata() or {})
    except ValueError:
        return False


def default_data(path: str) -> Path:
    """The configuration of the run that a run directory, checkpoint or member belongs to."""
    location = Path(path)
    location = location if location.exists() else Path(path.rpartition("#")[0])
    weights = location.suffix == ".safetensors"  # beside the configuration; checkpoints have a folder of their own
    run = location if location.is_dir() else location.parent if weights else location.parent.parent
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"name the data with --data: there is no {run / 'config.yaml'} to take them from")
    return run / "config.yaml"


def load_data(path: Path) -> pl.LightningDataModule:
    """The datamodule of a YAML file with a ``data`` section; raises naming the file and the key that is wrong."""
    from pytorch_lightning import LightningDataModule

    path = located(path)
    content = read_configuration(path)
    if "data" not in content:
        raise UsageError(f"data config {path} has no key 'data'")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    try:
        data: pl.LightningDataModule = parser.instantiate(parser.parse_object({"data": content["data"]})).data
    except (ArgumentError, ValueError, TypeError) as error:
        raise UsageError(f"data config {path}: {error}") from error
    return data


def choose_device(name: str) -> torch.device:
    """The device of this name, ``auto`` being a GPU where there is one; raises ValueError where it is missing."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError("device cuda was asked for, but torch sees no CUDA device")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
