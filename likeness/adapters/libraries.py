"""Models of torchvision, timm and transformers by name, with the preprocessing that they were trained with.

``timm:resnet18``, ``torchvision:resnet18?weights=FILE``, ``hf:FOLDER_OR_NAME``, ``package.module:factory``. No code
that comes with a model is run, and weights in files are read as tensors alone.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode

import torch
from torch import Tensor, nn

from likeness.adapters.batches import as_inputs
from likeness.adapters.hub_models import hub_model
from likeness.adapters.modules import ModelError, ModuleModel
from likeness.adapters.preprocessing import Preprocessing
from likeness.adapters.unnoticed import unnoticed

LIBRARIES = ("torchvision", "timm", "hf")
EXTRA = 'pip install -e ".[vision]"'
OPTIONS = ("weights", "num_classes", "size")
# How torchvision builds those of its models that are others where weights are named.
WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


class ModelName(NamedTuple):
    """``library:name?option=value&...`` taken apart."""

    library: str
    name: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> ModelName | None:
        """The parts; None for a text of another form. Raises ModelError for an unknown option."""
        head, _, query = text.partition("?")
        library, _, name = head.partition(":")
        if not name or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", library):
            return None
        options = dict(parse_qsl(query, keep_blank_values=True))
        for option in options:
            if option not in OPTIONS:
                raise ModelError(f"{text}: there is no option {option!r}, only {', '.join(OPTIONS)}")
        return cls(library, name, options)

    def __str__(self) -> str:
        options = urlencode(sorted(self.options.items()))
        return f"{self.library}:{self.name}{'?' if options else ''}{options}"


class LibraryModel(NamedTuple):
    """A model with what its inputs go through first."""

    module: nn.Module
    transform: Callable[[Any], Any] | None


def library_model(name: ModelName, trained: bool = True, architecture: Mapping[str, Any] | None = None) -> LibraryModel:
    """Build a model, with its weights where ``weights`` names them: a file, or the library's own by name.

    With ``trained`` false the weights are random ones that a checkpoint replaces, and no file of them is read; of a
    model of ``hf`` nothing is read where ``architecture`` says what it is
    (:func:`likeness.adapters.hub_models.hub_architecture`).

    Raises ModelError in one line for a model, weights or library that is not there.
    """
    if name.library not in LIBRARIES:
        return LibraryModel(_from_factory(name), None)
    try:
        if name.library == "hf":
            return LibraryModel(*hub_model(name.name, name.options.get("size"), architecture))
        return (_torchvision if name.library == "torchvision" else _timm)(name, trained)
    except ImportError as error:
        package = "transformers" if name.library == "hf" else name.library
        raise ModelError(f"{name.library}:{name.name} needs the package {package}: {EXTRA}") from error
    except ModelError:
        raise
    except Exception as error:  # each library, its hub and its network raise their own
        first, *others = (str(error).strip() or type(error).__name__).splitlines()
        reason = " ".join([first, *(line.strip() for line in others[: first.endswith(":")])])
        raise ModelError(f"there is no model {name.library}:{name.name} that can be loaded: {reason}") from error


class LibraryClassifier(nn.Module):
    """A vision classifier of a library as a :class:`likeness.protocols.SoftmaxModel`, ready to be evaluated.

    Inputs are images as datamodules store them, uint8, and go through the model's own preprocessing. Raises ModelError
    for a model that is no softmax of f(x) . g(y).
    """

    def __init__(self, name: ModelName) -> None:
        super().__init__()
        self.module, transform = library_model(name)
        size = getattr(transform, "crop", None) or int(name.options.get("size", 224))
        self.model = ModuleModel(self.module, name.name, transform=transform)
        self.eval().requires_grad_(False)
        with unnoticed([self]):
            self.model.prepare(as_inputs(torch.zeros(1, 3, size, size)))
        if self.model.head is None:
            raise ModelError(f"{name.library}:{name.name} has no label vectors: {self.model.why_no_head}")

    def embed(self, x: Tensor) -> Tensor:
        """f(x), [N, M], with a constant last coordinate where the head has a bias."""
        return self.model.embed(as_inputs(x))

    def unembeddings(self) -> Tensor:
        """g(y), [K, M]."""
        return cast(Tensor, self.model.unembeddings())

    def forward(self, x: Tensor) -> Tensor:
        """Logits f(x) . g(y), [N, K]."""
        return self.embed(x) @ self.unembeddings().mT

    @property
    def has_bias(self) -> bool:
        """Whether the last coordinate of f carries the bias of the head."""
        return self.model.head is not None and self.model.head.layer.bias is not None


def _torchvision(name: ModelName, trained: bool) -> LibraryModel:
    from torchvision import models

    known = models.get_model_weights(name.name)
    weights, file = name.options.get("weights"), _file_of(name) if trained else None
    chosen = known.__members__.get(weights) if file is None else None
    if trained and weights and file is None and chosen is None:
        given = ", ".join(known.__members__)
        raise ModelError(f"torchvision:{name.name}: weights are a file or one of {given}, got {weights!r}")
    preset = getattr(chosen or next(iter(known), None), "transforms", lambda: None)()
    options = _num_classes(name, file)
    if chosen is not None and not trained:
        options |= WITH_WEIGHTS.get(name.name, {})
    module = models.get_model(name.name, weights=chosen if trained else None, **options)
    _load(module, file)
    if preset is None:
        return LibraryModel(module, Preprocessing(256, 224).at(name.options.get("size")))
    own = Preprocessing(
        preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )
    return LibraryModel(module, own.at(name.options.get("size")))


def _timm(name: ModelName, trained: bool) -> LibraryModel:
    import timm

    data: Any = importlib.import_module("timm.data")

    weights, file = name.options.get("weights") if trained else None, _file_of(name) if trained else None
    if weights and file is None and weights != "pretrained":
        raise ModelError(f"timm:{name.name}: weights are a file or 'pretrained', got {weights!r}")
    pretrained = weights is not None and file is None
    module = timm.create_model(name.name, pretrained=pretrained, **_num_classes(name, file))
    _load(module, file)
    config = data.resolve_model_data_config(module)
    size = config["input_size"][-1]
    own = Preprocessing(round(size / config["crop_pct"]), size, config["mean"], config["std"], config["interpolation"])
    return LibraryModel(module, own.at(name.options.get("size")))


def _from_factory(name: ModelName) -> nn.Module:
    """What ``package.module:factory`` answers when called without arguments."""
    try:
        module = importlib.import_module(name.library)
    except ImportError as error:
        raise ModelError(f"{name.library}:{name.name}: {error}; the libraries are {', '.join(LIBRARIES)}") from error
    factory = getattr(module, name.name, None)
    model = factory() if callable(factory) else factory
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name.library}:{name.name} gives a {type(model).__name__}, not a torch module")
    return model


def _file_of(name: ModelName) -> Path | None:
    """The file of weights, where ``weights`` names one."""
    weights = name.options.get("weights")
    path = Path(weights).expanduser() if weights else None
    if path is None or path.is_file():
        return path
    if path.suffix or os.path.sep in str(path):
        raise ModelError(f"{name.library}:{name.name}: there is no file of weights {weights}")
    return None


def _num_classes(name: ModelName, file: Path | None) -> dict[str, Any]:
    """As many as asked for, or as the last matrix in the file of weights has rows."""
    if "num_classes" in name.options:
        return {"num_classes": int(name.options["num_classes"])}
    matrices = [] if file is None else [tensor for tensor in _tensors(file).values() if tensor.ndim == 2]
    return {"num_classes": len(matrices[-1])} if matrices else {}


def _load(module: nn.Module, file: Path | None) -> None:
    if file is not None:
        module.load_state_dict({key.removeprefix("module."): tensor for key, tensor in _tensors(file).items()})


def _tensors(file: Path) -> dict[str, Tensor]:
    from likeness.files.tensors import open_safetensors, read_state_dict

    if file.suffix != ".safetensors":
        return read_state_dict(file)
    opened = open_safetensors(file)
    return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
