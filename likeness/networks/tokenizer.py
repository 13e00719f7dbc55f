"""Tokenizers: one learned from texts, and any of them as the content of its files."""

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from likeness.networks.hugging_face import quiet, text_library

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
MIN_SIZE = 256 + len(SPECIAL)  # every byte has a token, so that every text can be written


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
