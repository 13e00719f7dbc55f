"""Any causal language model of Hugging Face, read as a softmax model over contexts.

f is the last hidden state behind the final norm, g the rows of the output embedding. Whether the model's own logits are
f g^T + b, and whether it sees no later tokens, is found out by numbers on a few tokens before anything is computed.
No code that comes with a model is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from likeness.adapters.causal_heads import probe
from likeness.adapters.causal_scorers import CausalModel, Rows, TokenScorer
from likeness.adapters.decoders import CausalDecoder, decoder_in
from likeness.adapters.modules import ModelError
from likeness.language.text_tokenizer import TextTokenizer
from likeness.networks.pretrained_text import first_line, out_of_reach, quiet, text_library

GGUF = ("gguf", "accelerate")  # packages that the library needs for such a file
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def read_causal(model: str | Path | nn.Module, *, tokenizer: Any = None, rows: Rows | None = None) -> TokenScorer:
    """A causal language model by name, from a folder or a GGUF file, in float32, or one that is in memory.

    Args:
        model: ``hf:NAME``, a folder, a hub name, a file that ends in .gguf, a model of transformers, or a decoder of
            this project or what trains one.
        tokenizer: of a model in memory, transformers' or a :class:`likeness.language.text_tokenizer.TextTokenizer`; by
            default that of the name which the model was read by, where it has one.
        rows: which rows of the head are labels: those that are "tokens", the default with a tokenizer, or "all".

    Answers a :class:`CausalModel`, or of a model with a soft cap a :class:`TokenScorer`. Raises ModelError in one line
    for what cannot be read, lacks weights, sees later tokens, or is no softmax of an inner product.
    """
    if isinstance(model, nn.Module):
        own, name = decoder_in(model), type(model).__name__
        module = model if own is None else CausalDecoder(own)
        tokenizer = _tokenizer_of(model) if tokenizer is None else tokenizer
    else:
        name = str(model).removeprefix("hf:")
        module, known = _read(name)
        tokenizer = known if tokenizer is None else tokenizer
    if isinstance(tokenizer, TextTokenizer):
        tokenizer = tokenizer.for_transformers()
    facts = probe(module, name, None if tokenizer is None else _size(tokenizer))
    kind = CausalModel if facts.soft_cap is None else TokenScorer
    return kind(module, name, facts, tokenizer, rows or ("all" if tokenizer is None else "tokens"))


def _size(tokenizer: Any) -> int:
    """1 + the largest id."""
    return 1 + max(int(token) for token in tokenizer.get_vocab().values())


def _tokenizer_of(model: nn.Module) -> Any:
    """What a model in memory was trained with, or that of the folder, or the name in the local cache, that it says it
    was read from; None without one.
    """
    if isinstance(own := getattr(model, "tokenizer", None), TextTokenizer):
        return own
    name = getattr(model, "name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    try:
        with quiet():
            return _tokenizer(text_library("transformers"), _Source(name, {"local_files_only": True}))
    except Exception:  # the library, its hub and tokenizers raise their own where the files have gone
        return None


class _Source(NamedTuple):
    """What the library reads a model from."""

    name: str
    options: dict[str, Any]
    away: str | None = None  # why the hub cannot be asked

    @classmethod
    def of(cls, name: str) -> _Source:
        path = Path(name).expanduser()
        if path.suffix == ".gguf":
            if not path.is_file():
                raise ModelError(f"there is no file {name}")
            return cls(str(path.parent), {"gguf_file": path.name, "local_files_only": True})
        if path.is_dir():
            return cls(str(path), {"local_files_only": True})
        away = out_of_reach(name)
        return cls(name, {"local_files_only": away is not None}, away)


def _read(name: str) -> tuple[nn.Module, Any]:
    """The model in float32 and its tokenizer, None where there is none."""
    source = _Source.of(name)
    library = text_library("transformers")
    options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False, **source.options}
    try:
        with quiet(), _no_bar_of_gguf():
            model, report = library.AutoModelForCausalLM.from_pretrained(source.name, **options)
            tokenizer = _tokenizer(library, source)
    except ImportError as error:
        packages = " ".join(GGUF) if "gguf_file" in source.options else "transformers"
        raise ModelError(f"{name} cannot be read without more packages: pip install {packages}") from error
    except Exception as error:  # the library, its hub, safetensors and tokenizers raise their own
        why = f"it is no folder, and {source.away}" if source.away else first_line(error)
        raise ModelError(f"{name} cannot be read as a causal language model: {why}") from error
    wrong = [*sorted(report["missing_keys"]), *(str(key) for key in report["mismatched_keys"])]
    if wrong:
        raise ModelError(f"{name} lacks {len(wrong)} weights of a {type(model).__name__}, first {wrong[0]}")
    return model.eval().requires_grad_(False), tokenizer


@contextmanager
def _no_bar_of_gguf() -> Iterator[None]:
    """The library draws a bar of its own over the tensors of such a file, which its setting for bars does not reach."""
    reader = text_library("transformers.modeling_gguf_pytorch_utils")
    drawn = getattr(reader, "tqdm", None)
    if drawn is None:
        yield
        return
    reader.tqdm = partial(drawn, disable=True)
    try:
        yield
    finally:
        reader.tqdm = drawn


def _tokenizer(library: Any, source: _Source) -> Any:
    folder = Path(source.name)
    in_folder = "gguf_file" not in source.options and folder.is_dir()
    if in_folder and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        return None
    tokenizer = library.AutoTokenizer.from_pretrained(source.name, trust_remote_code=False, **source.options)
    # Without its files the library answers a tokenizer to which every word is unknown.
    return tokenizer if len(tokenizer) > len(tokenizer.all_special_ids) else None
