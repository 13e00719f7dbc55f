"""Models of transformers and sentence-transformers, of a folder or the hub, or of the configuration alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from likeness.adapters.preprocessing import IMAGENET, Preprocessing

CODE = {"attn_implementation", "experts_implementation", "attn_implementation_internal", "auto_map"}
KINDS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}


@dataclass
class HubTransform:
    """Texts go through the model's tokenizer, images through the sizes and statistics of its image processor."""

    source: str
    images: Preprocessing | None
    tokenizer: Any = field(default=None, repr=False)  # read when texts come

    def __call__(self, x: Any) -> Any:
        """What the model takes; other inputs are left as they are."""
        if isinstance(x, list) and x and isinstance(x[0], str):
            if self.tokenizer is None:
                from transformers import AutoTokenizer

                self.tokenizer = AutoTokenizer.from_pretrained(self.source, **_local(self.source))
            return dict(self.tokenizer(x, padding=True, truncation=True, return_tensors="pt"))
        return x if self.images is None else self.images(x)

    @property
    def crop(self) -> int | None:
        """The side of the images that the model sees."""
        return None if self.images is None else self.images.crop


def hub_model(
    name: str, size: str | None = None, architecture: Mapping[str, Any] | None = None
) -> tuple[nn.Module, HubTransform | None]:
    """The model by the class that config.json names; a folder of sentence-transformers is a sentence encoder.

    ``architecture`` is what :func:`hub_architecture` said of it: then nothing is read, and the weights are random.
    """
    if architecture is not None:
        return _built(name, architecture)
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    if (folder / "modules.json").is_file():
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(source, device="cpu", local_files_only=True), None
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, **_local(source))
    of_class = next(iter(config.architectures or ()), "")
    auto = next((auto for kind, auto in KINDS.items() if of_class.endswith(kind)), "AutoModel")
    module = getattr(transformers, auto).from_pretrained(source, config=config, **_local(source))
    return module, HubTransform(source, _images(source, config, size))


def hub_architecture(module: Any, transform: Any) -> dict[str, Any]:
    """Plain values from which :func:`hub_model` builds the module again, without its files."""
    images = getattr(transform, "images", None)
    return {
        "class": type(module).__name__,
        "config": json.loads(module.config.to_json_string(use_diff=False)),
        "dtype": str(module.dtype).removeprefix("torch."),
        "images": None if images is None else json.loads(json.dumps(asdict(images))),
    }


def _built(name: str, architecture: Mapping[str, Any]) -> tuple[nn.Module, HubTransform]:
    import transformers

    cls = getattr(transformers, architecture["class"], None)
    if not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel)):
        raise ValueError(f"transformers has no model {architecture['class']!r}")
    module = cast(Any, cls)(cast(Any, cls).config_class.from_dict(_without_code(architecture["config"])))
    images = architecture["images"]
    if images is not None:
        images = Preprocessing(**images | {key: tuple(images[key]) for key in ("mean", "std")})
    return module.to(getattr(torch, architecture["dtype"])).eval(), HubTransform(name, images)


def _without_code(config: Any) -> Any:
    """A configuration without what names code to be fetched: attention kernels, at any depth, are files of a hub."""
    if isinstance(config, Mapping):
        kept = {key: value for key, value in config.items() if key.lstrip("_") not in CODE}
        return {key: _without_code(value) for key, value in kept.items()}
    return [_without_code(entry) for entry in config] if isinstance(config, list) else config


def _images(source: str, config: Any, size: str | None) -> Preprocessing | None:
    import transformers

    try:
        settings = cast(Any, transformers.AutoImageProcessor).from_pretrained(source, use_fast=False, **_local(source))
    except (OSError, ValueError, KeyError, ImportError):
        settings = None
    own = getattr(config, "image_size", None)
    given = (getattr(settings, statistic, None) for statistic in ("image_mean", "image_std"))
    mean, std = (tuple(values or usual) for values, usual in zip(given, IMAGENET, strict=True))
    return Preprocessing(own, own, mean, std).at(size) if own or settings else None


def _local(source: str) -> dict[str, Any]:
    return {"local_files_only": Path(source).is_dir(), "trust_remote_code": False}
