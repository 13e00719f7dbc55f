"""Models and tokenizers of Hugging Face and sentence-transformers, from folder or hub, without running their code.

The libraries come with the extra ``text`` and are kept from giving advice and drawing progress bars. A tokenizer may
also be learned from texts, and becomes part of a checkpoint as the content of its files.
"""

import importlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from likeness.networks.text_pooling import PoolingName

EXTRA = 'pip install -e ".[text]"'
SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
MIN_SIZE = 256 + len(SPECIAL)  # every byte has a token, so that every text can be written
PATIENCE = 10.0  # seconds until the hub counts as out of reach
PARTS = ("Transformer", "Pooling", "Normalize")  # of a sentence-transformers model


def text_library(name: str) -> Any:
    """The module ``name`` of one of the libraries. Raises ImportError that names the extra where it is missing."""
    # Threads of tokenizers do not survive the fork of a loader's worker, which is reported each time.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Of a model without safetensors the hub would be asked, in a thread, to make some.
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "true")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name.partition(".")[0]:
            raise
        raise ImportError(f"text encoders need {name.partition('.')[0]}: {EXTRA}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Only errors are logged inside, and no bar is drawn; settings are the user's again afterwards."""
    libraries = [text_library(name) for name in ("transformers.utils.logging", "huggingface_hub.utils.logging")]
    levels = [library.get_verbosity() for library in libraries]
    transformers = libraries[0]
    bars = transformers.is_progress_bar_enabled()
    for library in libraries:
        library.set_verbosity(logging.ERROR)
    transformers.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        if bars:
            transformers.enable_progress_bar()


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A tokenizer of lower-cased byte pairs, a function of the texts and of ``vocab_size`` alone.

    Sennrich et al. 2016 (arXiv 1508.07909), over bytes: there is no unknown token. Frequent words become one token, as
    far as ``vocab_size`` tokens go. Raises ValueError for a size below 259, the bytes and three special tokens.
    """
    if vocab_size < MIN_SIZE:
        raise ValueError(f"vocab_size must be at least {MIN_SIZE}, got {vocab_size}")
    library = text_library("tokenizers")
    # Byte pairs, because the library's trainers of word pieces and of unigrams number them differently in each process.
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.Sequence([library.normalizers.NFKC(), library.normalizers.Lowercase()])
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    numbered = [(token, tokenizer.token_to_id(token)) for token in SPECIAL.values()]
    tokenizer.post_processor = library.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=numbered)
    return text_library("transformers").PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def tokenizer_files(tokenizer: Any) -> dict[str, Tensor]:
    """The files of a tokenizer by name, each as uint8 [bytes], for a checkpoint."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        tokenizer.save_pretrained(folder)
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        return {path.name: torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in files}


def read_tokenizer(files: Mapping[str, Tensor]) -> Any:
    """The tokenizer that :func:`tokenizer_files` took apart; no code of theirs is run.

    Raises ValueError for damaged files, and for a name that leads out of their folder.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"a tokenizer's file cannot be called {name!r}")
            if not isinstance(content, Tensor) or content.dtype != torch.uint8:
                raise ValueError(f"the tokenizer's {name} is not made of bytes")
            Path(folder, name).write_bytes(content.numpy().tobytes())
        try:
            return load_tokenizer(folder)
        except Exception as error:  # the library has no class of its own for what it finds in a file
            raise ValueError(f"its tokenizer cannot be read: {error}") from error


def load_tokenizer(name: str, **options: Any) -> Any:
    """The tokenizer of a folder or of a model's name. Raises ValueError for one that has no words or cannot pad."""
    with quiet():
        tokenizer = text_library("transformers").AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    # Without its files the library answers a tokenizer to which every word is unknown.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError(f"{name} holds no vocabulary")
    if tokenizer.pad_token is None:
        raise ValueError(f"the tokenizer of {name} has no padding token")
    return tokenizer


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
        raise ValueError(f"encoder {name} cannot be read: {first_line(error)}") from error
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
        return f"the Hugging Face hub cannot be reached: {first_line(error)}"
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


def first_line(error: Exception) -> str:
    """What an error of a library begins with; its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
