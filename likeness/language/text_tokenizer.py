"""Tokenizers of language models: bytes, byte pairs learned from texts, and any ``tokenizer.json``.

What each token stands for is read out of that file. The library ``tokenizers`` (extra ``text``) is needed to learn a
tokenizer, and to encode with any but that of bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.files.errors import DataError, missing
from likeness.networks.pretrained_text import first_line, quiet, text_library

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
SEPARATOR = "<|endoftext|>"
BYTES = 257  # tokens of the tokenizer of bytes: each byte and the separator
ENDS = (SEPARATOR, "</s>", "<eos>", "<|end_of_text|>")  # what ends a document where a tokenizer does not say it
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\u2581"  # SentencePiece's space


class TextTokenizer:
    """Texts as token ids 0 to V - 1, one of which, the ``separator``, stands between documents and in no text.

    Texts are encoded whole, and nothing is added to them. ``digest`` is that of all that decides how a text is encoded;
    ``vocabulary_digest`` that of the bytes of every id, so it tells whether two models predict the same tokens.
    """

    def __init__(self, content: str, separator: str = SEPARATOR, where: str = FILE) -> None:
        """
        Args:
            content: What a ``tokenizer.json`` holds.
            separator: The token that ends a document.
            where: The file, for messages.

        Raises DataError where the content is no tokenizer or has no such token.
        """
        self.content = content
        self._parsed = _parsed(content, where)
        self.tokens = token_bytes(self._parsed)  # the bytes of each id
        self.vocab_size = 1 + max(self.tokens)
        self.separator = _id_of(self._parsed, separator, where)
        self.separator_text = separator
        settled = json.dumps([self._parsed, separator], sort_keys=True, ensure_ascii=False)
        self.digest = hashlib.sha256(settled.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def vocabulary_digest(self) -> str:
        """SHA-256 of {id: bytes}."""
        content = b"".join(b"%d %d " % (id_, len(token)) + token for id_, token in sorted(self.tokens.items()))
        return hashlib.sha256(content).hexdigest()

    @cached_property
    def byte_counts(self) -> Tensor:
        """How many bytes of text each token stands for [V] int64.

        The separator stands for one, as the end of a line would: the bits per byte of a model of bytes are then its
        bits per token, and tokenizers compare, for all write as many separators.
        """
        counts = torch.zeros(self.vocab_size, dtype=torch.long)
        for id_, token in self.tokens.items():
            counts[id_] = len(token)
        counts[self.separator] = 1
        return counts

    @cached_property
    def is_of_bytes(self) -> bool:
        """Whether the tokens are the bytes, which needs no library."""
        return self.digest == byte_tokenizer().digest

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text [n], without a separator."""
        if self.is_of_bytes:
            return [np.frombuffer(text.encode(), np.uint8) for text in texts]
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are no character are shown as U+FFFD."""
        return b"".join(self.tokens.get(int(id_), b"") for id_ in ids).decode("utf-8", "replace")

    def files(self) -> dict[str, str]:
        """The content of this tokenizer's files by name; a folder of them is one of Hugging Face's tokenizers."""
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": self.separator_text}
        return {FILE: self.content, CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}

    def state(self) -> dict[str, Tensor]:
        """The files as uint8 [bytes] by name, for a checkpoint."""
        files = {name: bytearray(text.encode()) for name, text in self.files().items()}
        return {name: torch.frombuffer(content, dtype=torch.uint8) for name, content in files.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> TextTokenizer:
        """The tokenizer of a checkpoint. Raises DataError for damaged files."""
        if {*state} != {FILE, CONFIG}:
            raise DataError(f"a tokenizer is made of {FILE} and {CONFIG}, got {', '.join(state) or 'nothing'}")
        content, config = (state[name].numpy().tobytes().decode() for name in (FILE, CONFIG))
        return cls(content, _end_of(_json(config, CONFIG)) or SEPARATOR)

    def for_transformers(self) -> Any:
        """The same as a tokenizer of transformers, in which the separator is the end-of-text token."""
        fast = text_library("transformers").PreTrainedTokenizerFast
        return fast(tokenizer_object=self._library, eos_token=self.separator_text)

    @cached_property
    def _library(self) -> Any:
        tokenizer = text_library("tokenizers").Tokenizer.from_str(self.content)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # in a text the separator's name is a text
        return tokenizer


@cache
def byte_tokenizer() -> TextTokenizer:
    """The bytes as ids 0 to 255 and the separator as 256; the library reads its file to the same ids."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = {"id": BYTES - 1, "content": SEPARATOR, "special": True}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content = {
        "version": "1.0",
        "added_tokens": [added],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {token: id_ for id_, token in enumerate(_alphabet())}, "merges": []},
    }
    return TextTokenizer(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def learn_byte_pairs(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Byte pairs, a function of the texts and of ``vocab_size`` alone; the separator is id 0.

    Sennrich et al. 2016 (arXiv 1508.07909), over bytes, so that decoding gives back every text. Raises ValueError for
    fewer than 257 tokens, and DataError where the texts do not give so many.
    """
    if vocab_size < BYTES:
        raise ValueError(f"vocab_size must be at least {BYTES}, the bytes and the separator, got {vocab_size}")
    library = text_library("tokenizers")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[SEPARATOR], initial_alphabet=sorted(_alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = TextTokenizer(tokenizer.to_str(pretty=True))
    if learned.vocab_size < vocab_size:
        raise DataError(f"the training texts give only {learned.vocab_size} tokens, and vocab_size is {vocab_size}")
    return learned


def read_text_tokenizer(path: Path, separator: str | None = None) -> TextTokenizer:
    """The tokenizer of a ``tokenizer.json``, or of a folder as Hugging Face's libraries write it; no code is run.

    ``separator`` is by default the end-of-text token that the folder names, else a usual one. Raises DataError naming
    the file that is missing or is no tokenizer.
    """
    path = path.expanduser()
    file = path / FILE if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        content, end = _converted(path)
    elif not file.is_file():
        raise missing(file, "name a folder or a file of a tokenizer")
    else:
        config = file.with_name(CONFIG)
        content = _text_of(file)
        end = _end_of(_json(_text_of(config), str(config))) if config.is_file() else None
    return TextTokenizer(content, separator or end or _usual_end(content, file), str(file))


def _converted(folder: Path) -> tuple[str, str | None]:
    """A folder without ``tokenizer.json``, as that file's content and the end-of-text token."""
    library = text_library("transformers")
    try:
        with quiet():
            tokenizer = library.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        return tokenizer.backend_tokenizer.to_str(), tokenizer.eos_token
    except Exception as error:  # the library has no class of its own for what it finds in a folder
        raise DataError(f"{folder} holds no tokenizer that can be read: {first_line(error)}") from error


def _parsed(content: str, where: str) -> dict[str, Any]:
    """What decides how a whole text is encoded. Raises DataError for what is no tokenizer."""
    parsed = _json(content, where)
    if not isinstance(parsed.get("model"), dict) or not parsed["model"].get("vocab"):
        raise DataError(f"{where} is no tokenizer: it has no model with a vocabulary")
    return {key: value for key, value in parsed.items() if key not in ("truncation", "padding")}


def _json(content: str, where: str) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise DataError(f"{where} is damaged: {error}") from error
    if not isinstance(parsed, dict):
        raise DataError(f"{where} should hold a mapping, got {type(parsed).__name__}")
    return parsed


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: {error}") from error


def _end_of(config: Mapping[str, Any]) -> str | None:
    """The end-of-text token that a ``tokenizer_config.json`` names."""
    end = config.get("eos_token")
    return end.get("content") if isinstance(end, dict) else end


def _usual_end(content: str, where: Path) -> str:
    names = {entry["content"] for entry in _parsed(content, str(where)).get("added_tokens") or ()}
    if (end := next((name for name in ENDS if name in names), None)) is None:
        raise DataError(f"{where} does not say what ends a text, and has none of {', '.join(ENDS)}: name the separator")
    return end


def _id_of(parsed: Mapping[str, Any], token: str, where: str) -> int:
    added = {entry["content"]: int(entry["id"]) for entry in parsed.get("added_tokens") or ()}
    ids: dict[str, int] = dict(_vocabulary(parsed)) | added
    if token not in ids:
        raise DataError(
            f"{where} has no token {token!r} to end a document; its special ones: {', '.join(added) or 'none'}"
        )
    return ids[token]


def _vocabulary(parsed: Mapping[str, Any]) -> list[tuple[str, int]]:
    vocab = parsed["model"]["vocab"]
    if isinstance(vocab, dict):
        return [(token, int(id_)) for token, id_ in vocab.items()]
    return [(entry[0], id_) for id_, entry in enumerate(vocab)]  # of a unigram model, with scores


def token_bytes(parsed: Mapping[str, Any]) -> dict[int, bytes]:
    """The bytes that each id stands for, by the content of a ``tokenizer.json``."""
    spelt = _spelling(parsed)
    tokens = {id_: spelt(token) for token, id_ in _vocabulary(parsed)}
    return tokens | {int(entry["id"]): entry["content"].encode() for entry in parsed.get("added_tokens") or ()}


def _spelling(parsed: Mapping[str, Any]) -> Callable[[str], bytes]:
    """How a token is written in the vocabulary: as characters for bytes, as SentencePiece does, or as it is."""
    steps = json.dumps([parsed.get(key) for key in ("normalizer", "pre_tokenizer", "decoder")], ensure_ascii=False)
    model = parsed["model"]
    if "ByteLevel" in steps:
        numbers = {character: bytes([number]) for number, character in enumerate(_alphabet())}
        return lambda token: b"".join(numbers.get(character, character.encode()) for character in token)
    space = _WORD_START if _WORD_START in steps or "Metaspace" in steps else " "
    inside = (model.get("continuing_subword_prefix") or "") if model.get("type") == "WordPiece" else ""

    def spelt(token: str) -> bytes:
        if model.get("byte_fallback") and (byte := _BYTE.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return token.removeprefix(inside).replace(space, " ").encode()

    return spelt


@cache
def _alphabet() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies since GPT-2's: itself where it can be seen."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
