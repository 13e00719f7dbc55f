"""Reading a Hugging Face or sentence-transformers model from a folder or from the hub, without running its code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import nn

from likeness.networks.hugging_face import quiet, text_library
from likeness.networks.pooling import PoolingName
from likeness.networks.tokenizer import load_tokenizer

PATIENCE = 10.0  # seconds until the hub counts as out of reach
PARTS = ("Transformer", "Pooling", "Normalize")  # of a sentence-transformers model


def read_pretrained(name: str) -> tuple[nn.Module, Any, PoolingName]:
    """The model in float32, the tokenizer and the pooling of a name on the hub or of a folder.

    Raises FileNotFoundError and ValueError as :class:`likeness.networks.PretrainedTransformer` says.
    """
    away = None if Path(name).is_dir() else out_of_reach(name)
    local: dict[str, Any] = {"local_files_only": Path(name).is_dir() or away is not None}
    library, safetensors = text_library("transformers"), text_library("safetensors")
    try:
        with quiet():
            pooling, folder = _sentence_transformer(name, local)
            config = library.AutoConfig.from_pretrained(name, subfolder=folder, trust_remote_code=False, **local)
            tokenizer = load_tokenizer(name, subfolder=folder, **local)
            options = {"subfolder": folder, "dtype": torch.float32, "output_loading_info": True, **local}
            model, report = library.AutoModel.from_pretrained(name, config=config, trust_remote_code=False, **options)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        if away is not None:
            raise FileNotFoundError(
                f"encoder {name} is no folder and not among the downloaded models, and {away}"
            ) from error
        raise ValueError(f"encoder {name} cannot be read: {_first_line(error)}") from error
    _check(name, model, report, tokenizer)
    return model, tokenizer, pooling


def out_of_reach(name: str) -> str | None:
    """Why a model is not on the hub as far as can be told from here; None where it is."""
    hub, errors = text_library("huggingface_hub"), text_library("huggingface_hub.errors")
    if text_library("huggingface_hub.constants").HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        hub.HfApi().model_info(name, timeout=PATIENCE)
    except errors.HFValidationError:
        return "its name is not one that the Hugging Face hub could know"
    except errors.RepositoryNotFoundError:
        return "the Hugging Face hub knows none of that name that you may read"
    except Exception as error:  # whatever the network, a proxy or the hub may answer
        return f"the Hugging Face hub cannot be reached: {_first_line(error)}"
    return None


def _sentence_transformer(name: str, local: Mapping[str, Any]) -> tuple[PoolingName, str]:
    """The pooling, and the folder of the transformer inside the model; of a plain model the mean and none."""
    modules = _json(name, "modules.json", "", local)
    if modules is None:
        return "mean", ""
    folders = {module["type"].rpartition(".")[2]: module["path"] for module in modules}
    for kind in folders:
        if kind not in PARTS:
            raise ValueError(f"it has a module {kind}, only {', '.join(PARTS)} are known")
    settings = _json(name, "config.json", folders.get("Pooling", ""), local) if "Pooling" in folders else None
    return _pooling(settings or {}), folders.get("Transformer", "")


def _pooling(settings: Mapping[str, Any]) -> PoolingName:
    """The pooling that a sentence-transformers file means, in its newer or its older form."""
    older = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens"}
    others = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]
    mode = settings.get("pooling_mode") or next((name for name, key in older.items() if others == [key]), others)
    if mode == []:
        return "mean"
    if mode not in get_args(PoolingName):
        raise ValueError(f"its pooling is {mode}, only {', '.join(get_args(PoolingName))} are known")
    return cast(PoolingName, mode)


def _json(name: str, file: str, folder: str, local: Mapping[str, Any]) -> Any:
    """The content of a file of the model, None where it has no such file."""
    library = text_library("transformers")
    options = {"subfolder": folder, "_raise_exceptions_for_missing_entries": False, **local}
    path = library.utils.cached_file(name, file, **options)
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def _check(name: str, model: nn.Module, report: Mapping[str, Any], tokenizer: Any) -> None:
    """Raise ValueError where the library has put random weights in the place of missing ones, or tokens do not fit."""
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing or report["mismatched_keys"]:
        wrong = missing or [str(key) for key in report["mismatched_keys"]]
        raise ValueError(f"encoder {name} lacks {len(wrong)} weights of a {type(model).__name__}, first {wrong[0]}")
    config: Any = model.config
    if config.is_encoder_decoder or not (hasattr(config, "hidden_size") and hasattr(config, "vocab_size")):
        raise ValueError(f"encoder {name} is a {type(model).__name__}, which is no encoder of texts alone")
    if len(tokenizer) > config.vocab_size:
        raise ValueError(f"encoder {name} has {len(tokenizer)} tokens, but vectors for {config.vocab_size}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
