"""Models of torchvision, timm and transformers by name, with the preprocessing that they were trained with.

``timm:resnet18``, ``torchvision:resnet18?weights=FILE``, ``hf:FOLDER_OR_NAME``, ``package.module:factory``. No code
that comes with a model is run, and weights in files are read as tensors alone.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from likeness.adapters.batches import as_inputs
from likeness.adapters.modules import ModelError, ModuleModel
from likeness.adapters.unnoticed import unnoticed

LIBRARIES = ("torchvision", "timm", "hf")
EXTRA = 'pip install -e ".[vision]"'
OPTIONS = ("weights", "num_classes", "size")
# Where torchvision and timm say nothing: the statistics of ImageNet, on which nearly all of their models were trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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


@dataclass(frozen=True)
class Preprocessing:
    """Images as a model takes them: the shorter side resized, the middle cut out, values normalised.

    Takes uint8 images [N, C, H, W], lists of pictures of PIL, and single-channel images, which are repeated. Float
    images pass unchanged: they are taken to be preprocessed. ``crop`` None keeps the size, and so does ``resize`` None.
    """

    resize: int | None
    crop: int | None
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    interpolation: str = "bilinear"

    def __call__(self, images: Any) -> Any:
        """[N, 3, crop, crop] float32."""
        if isinstance(images, Tensor):
            return self.normalised(self.sized(images).float() / 255) if images.dtype == torch.uint8 else images
        if isinstance(images, list) and images and hasattr(images[0], "convert"):
            return torch.cat([self(_pixels(image)) for image in images])
        return images

    def sized(self, images: Tensor) -> Tensor:
        """Resized and cropped, in the type that they came in."""
        from torchvision.transforms import InterpolationMode, functional  # as the presets of its models, bit for bit

        if self.resize is not None and min(images.shape[-2:]) != self.resize:
            mode = InterpolationMode(self.interpolation)
            images = functional.resize(images, [self.resize], interpolation=mode, antialias=True)
        if self.crop is not None and images.shape[-2:] != (self.crop, self.crop):
            images = functional.center_crop(images, [self.crop, self.crop])
        return images

    def normalised(self, images: Tensor) -> Tensor:
        """Of images in [0, 1], [N, C, H, W]."""
        if images.shape[1] == 1 and len(self.mean) == 3:
            images = images.expand(-1, 3, -1, -1)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


class LibraryModel(NamedTuple):
    """A model with what its inputs go through first."""

    module: nn.Module
    transform: Callable[[Any], Any] | None


def library_model(name: ModelName) -> LibraryModel:
    """Build a model, with its weights where ``weights`` names them: a file, or the library's own by name.

    Raises ModelError in one line for a model, weights or library that is not there.
    """
    if name.library not in LIBRARIES:
        return LibraryModel(_from_factory(name), None)
    try:
        return {"torchvision": _torchvision, "timm": _timm, "hf": _transformers}[name.library](name)
    except ImportError as error:
        package = "transformers" if name.library == "hf" else name.library
        raise ModelError(f"{name.library}:{name.name} needs the package {package}: {EXTRA}") from error
    except ModelError:
        raise
    except Exception as error:  # each library, its hub and its network raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
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

    @property
    def has_bias(self) -> bool:
        """Whether the last coordinate of f carries the bias of the head."""
        return self.model.head is not None and self.model.head.layer.bias is not None


def _torchvision(name: ModelName) -> LibraryModel:
    from torchvision import models

    known = models.get_model_weights(name.name)
    weights, file = name.options.get("weights"), _file_of(name)
    chosen = known[weights] if weights and file is None else None
    preset = getattr(chosen or next(iter(known), None), "transforms", lambda: None)()
    options = _num_classes(name, file)
    module = models.get_model(name.name, weights=chosen, **options)
    _load(module, file)
    if preset is None:
        return LibraryModel(module, _preprocessing(name, Preprocessing(256, 224)))
    own = Preprocessing(
        preset.resize_size[0], preset.crop_size[0], tuple(preset.mean), tuple(preset.std), preset.interpolation.value
    )
    return LibraryModel(module, _preprocessing(name, own))


def _timm(name: ModelName) -> LibraryModel:
    import timm

    data: Any = importlib.import_module("timm.data")

    weights, file = name.options.get("weights"), _file_of(name)
    if weights and file is None and weights != "pretrained":
        raise ModelError(f"timm:{name.name}: weights are a file or 'pretrained', got {weights!r}")
    pretrained = weights is not None and file is None
    module = timm.create_model(name.name, pretrained=pretrained, **_num_classes(name, file))
    _load(module, file)
    config = data.resolve_model_data_config(module)
    size = config["input_size"][-1]
    own = Preprocessing(round(size / config["crop_pct"]), size, config["mean"], config["std"], config["interpolation"])
    return LibraryModel(module, _preprocessing(name, own))


def _transformers(name: ModelName) -> LibraryModel:
    """By the class that config.json names; a folder of sentence-transformers is a sentence encoder."""
    folder = Path(name.name).expanduser()
    if (folder / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        return LibraryModel(SentenceTransformer(str(folder), device="cpu", local_files_only=True), None)
    import transformers

    source: str = str(folder) if folder.is_dir() else name.name
    local: dict[str, Any] = {"local_files_only": folder.is_dir(), "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(source, **local)
    architecture = next(iter(config.architectures or ()), "")
    kinds = {
        "ForImageClassification": "AutoModelForImageClassification",
        "ForCausalLM": "AutoModelForCausalLM",
        "LMHeadModel": "AutoModelForCausalLM",
        "ForSequenceClassification": "AutoModelForSequenceClassification",
    }
    auto = next((auto for kind, auto in kinds.items() if architecture.endswith(kind)), "AutoModel")
    module = getattr(transformers, auto).from_pretrained(source, config=config, **local)
    return LibraryModel(module, _hf_transform(source, local, config, name))


def _hf_transform(source: str, local: Mapping[str, Any], config: Any, name: ModelName) -> Callable[[Any], Any]:
    """Texts go through the model's tokenizer, images through the sizes and statistics of its image processor."""
    import transformers

    try:
        settings = cast(Any, transformers.AutoImageProcessor).from_pretrained(source, use_fast=False, **local)
    except (OSError, ValueError, KeyError, ImportError):
        settings = None
    size = getattr(config, "image_size", None)
    given = (getattr(settings, field, None) for field in ("image_mean", "image_std"))
    mean, std = (tuple(values or usual) for values, usual in zip(given, IMAGENET, strict=True))
    images = _preprocessing(name, Preprocessing(size, size, mean, std)) if size or settings else None
    tokenizer: Any = None

    def transform(x: Any) -> Any:
        nonlocal tokenizer
        if isinstance(x, list) and x and isinstance(x[0], str):
            if tokenizer is None:
                tokenizer = transformers.AutoTokenizer.from_pretrained(source, **local)
            return dict(tokenizer(x, padding=True, truncation=True, return_tensors="pt"))
        return x if images is None else images(x)

    return transform


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


def _preprocessing(name: ModelName, own: Preprocessing) -> Preprocessing:
    """The model's own, or at the size that is asked for, without cropping."""
    if "size" not in name.options:
        return own
    size = int(name.options["size"])
    return Preprocessing(size, size, own.mean, own.std, own.interpolation)


def _pixels(image: Any) -> Tensor:
    from torchvision.transforms import functional

    pixels: Tensor = functional.pil_to_tensor(image.convert("RGB"))
    return pixels.unsqueeze(0)
