"""Everything that can be measured, by what it is given as: modules, arrays, files, names and runs."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from likeness.adapters.activations import Pooling
from likeness.adapters.arrays import SUFFIXES, ArrayModel
from likeness.adapters.libraries import ModelName, library_model
from likeness.adapters.modules import EmbedderModel, Measurable, ModelError, ModuleModel
from likeness.files.tensors import open_safetensors
from likeness.protocols import Embedder, Siblings

# Who reads a run or checkpoint: not a part of this library, which stands below it, and there where runs are made.
RUNS = "lightning_modules.checkpoints:load_embedders"


def adapted(
    models: Iterable[Any],
    names: Sequence[str] | None = None,
    heads: Sequence[str | bool] | None = None,
    pooling: Pooling | Callable[[Tensor], Tensor] = "mean",
) -> list[Measurable]:
    """Models of any kind as models that can be measured, under names that tell them apart.

    Siblings and runs of siblings give all their members. Raises ModelError naming what is no model, and what the
    readers of files and runs raise.
    """
    models = list(models)
    heads = list(heads) if heads is not None else [True] * len(models)
    if len(heads) != len(models):
        raise ModelError(f"there are {len(models)} models and {len(heads)} heads: name one for each, or one for all")
    found = [one for model, head in zip(models, heads, strict=True) for one in _adapted(model, head, pooling)]
    if names is not None and len(names) != len(found):
        raise ModelError(f"there are {len(found)} models and {len(names)} names")
    for model, name in zip(found, names or distinct_names([model.name for model in found]), strict=True):
        model.name = name
    return found


def _adapted(model: Any, head: str | bool, pooling: Any) -> list[Measurable]:
    if isinstance(model, Measurable):
        return [model]
    if isinstance(model, str | Path):
        return _of_name(str(model), head, pooling)
    if isinstance(model, Tensor | np.ndarray):
        return [ArrayModel(model, name="array")]
    if isinstance(model, tuple) and any(isinstance(part, nn.Module) for part in model):
        raise ModelError("a tuple is the arrays (f, g) of one model: give several models as a list")
    if isinstance(model, tuple) and len(model) == 2:
        return [ArrayModel(*model, name="arrays")]
    if isinstance(model, Siblings):
        return [
            EmbedderModel(cast(Embedder, model.member(i)), f"{type(model).__name__}#{i}")
            for i in range(model.num_members)
        ]
    if isinstance(model, Embedder):
        return [EmbedderModel(model, type(model).__name__)]
    if isinstance(model, nn.Module):
        return [ModuleModel(model, type(model).__name__, head, pooling)]
    raise ModelError(
        f"a model is a torch module, a SoftmaxModel, arrays (f, g), a file of embeddings or a name, got {model!r:.80}"
    )


def _of_name(name: str, head: str | bool, pooling: Any) -> list[Measurable]:
    """A file of embeddings, a run or checkpoint, or a model that :mod:`likeness.adapters.libraries` knows by name."""
    path = Path(name).expanduser()
    if path.suffix in SUFFIXES and path.is_file() and not _is_weights(path):
        return [ArrayModel.of_file(path, path.name)]
    if (runs := runs_of(name)) is not None:
        return [EmbedderModel(model, own) for own, model in runs]
    parts = ModelName.of(name)
    if parts is None:
        raise ModelError(
            f"there is no model {name}: it is no run, checkpoint or file of embeddings, and no model of a library, as "
            "timm:resnet18 is"
        )
    module, transform = library_model(parts)
    return [ModuleModel(module, parts.name, head, pooling, transform)]


def _is_weights(path: Path) -> bool:
    """Whether a safetensors file is a module's exported weights, which name the class they are of."""
    return (
        path.suffix == ".safetensors"
        and path.is_file()
        and "hyper_parameters" in (open_safetensors(path).metadata() or {})
    )


def runs_of(name: str) -> list[tuple[str, Embedder]] | None:
    """The models of a run or checkpoint of Likeness, by their names; None for what is none."""
    path = Path(name).expanduser()
    if path.suffix == ".ckpt" or (path / "checkpoints").is_dir() or _is_weights(path) or "#" in path.name:
        return _read_runs(str(path))
    return None


def _read_runs(path: str) -> list[tuple[str, Embedder]]:
    module, _, function = RUNS.partition(":")
    try:
        read = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{path} is a run of Likeness: reading it needs its package {module.partition('.')[0]}"
        ) from error
    found: list[tuple[str, Embedder]] = read(path)
    return found


def distinct_names(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that occur again."""
    seen: Counter[str] = Counter()
    answer = []
    for name in names:
        seen[name] += 1
        answer.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return answer
