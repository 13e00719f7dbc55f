"""Which bytes the tokens of a vocabulary stand for: two models are compared by ids only where these agree."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id: their bytes and, of special tokens, their names.

    Example:
        >>> a, b = Vocabulary({0: b"a", 1: b"b"}), Vocabulary({0: b"b", 1: b"c"})
        >>> a.digest == b.digest, shared_labels(a, b).tolist()
        (False, [[1, 0]])
    """

    tokens: dict[int, bytes]
    special: frozenset[int] = frozenset()

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Of a tokenizer of Hugging Face."""
        special = frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
        added, decode = tokenizer.added_tokens_decoder, _decoding(tokenizer)
        tokens = {
            i: str(added[i].content).encode() if i in added else decode(token)
            for token, i in tokenizer.get_vocab().items()
        }
        return cls(dict(sorted(tokens.items())), special)

    @property
    def size(self) -> int:
        """1 + the largest id."""
        return max(self.tokens) + 1

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all ids with their bytes and of which are special."""
        digest = hashlib.sha256()
        for i, token in sorted(self.tokens.items()):
            digest.update(f"{i} {len(token)} {int(i in self.special)} ".encode() + token)
        return digest.hexdigest()


def _decoding(tokenizer: Any) -> Any:
    """From a token as the vocabulary spells it to its bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    steps = json.dumps(json.loads(backend.to_str()).get("decoder") if backend is not None else None)
    if '"ByteLevel"' in steps:
        letters = _byte_letters()
        return lambda token: b"".join(letters.get(c, c.encode()) for c in token)
    if '"ByteFallback"' in steps or '"Metaspace"' in steps or "\\u2581" in steps:
        return _sentence_piece
    return str.encode


def _byte_letters() -> dict[str, bytes]:
    """The letters by which byte-level vocabularies write bytes: printable ones as themselves, others from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*map(chr, printable), *(chr(256 + place) for place in range(len(others)))]
    return {letter: bytes([byte]) for letter, byte in zip(letters, printable + others, strict=True)}


def _sentence_piece(token: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("\u2581", " ").encode()


def require_same_vocabulary(a: Vocabulary, b: Vocabulary, names: tuple[str, str] = ("a", "b")) -> None:
    """Raise ValueError, with what differs, unless ids stand for the same tokens in both."""
    if a.digest == b.digest:
        return
    both = a.tokens.keys() & b.tokens.keys()
    equal = sum(a.tokens[i] == b.tokens[i] for i in both)
    first = next((i for i in sorted(both) if a.tokens[i] != b.tokens[i]), None)
    example = "" if first is None else f", id {first} is {a.tokens[first]!r} and {b.tokens[first]!r}"
    raise ValueError(
        f"the tokenizers of {names[0]} and {names[1]} differ: {equal} of {len(a.tokens)} and {len(b.tokens)} ids stand "
        f"for the same bytes{example}"
    )


def shared_labels(a: Vocabulary, b: Vocabulary) -> Tensor:
    """Pairs of ids [S, 2] of tokens with the same bytes, by the first id; special tokens are left out.

    Bytes that several tokens of a vocabulary stand for, as letters and their byte tokens do, pair in the order of ids.
    """
    places = [_places(vocabulary) for vocabulary in (a, b)]
    pairs = [pair for token, ids in places[0].items() for pair in zip(ids, places[1].get(token, ()), strict=False)]
    return torch.tensor(sorted(pairs), dtype=torch.long).reshape(-1, 2)


def _places(vocabulary: Vocabulary) -> dict[bytes, list[int]]:
    places: dict[bytes, list[int]] = {}
    for i, token in sorted(vocabulary.tokens.items()):
        if i not in vocabulary.special:
            places.setdefault(token, []).append(i)
    return places
