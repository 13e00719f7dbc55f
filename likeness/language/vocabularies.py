"""Which bytes the tokens of a vocabulary stand for: two models are compared by ids only where these agree."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from likeness.language.text_tokenizer import token_bytes


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
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:  # its vocabulary spells tokens as they are
            tokens = {i: token.encode() for token, i in tokenizer.get_vocab().items()}
        else:
            tokens = token_bytes(json.loads(backend.to_str()))
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
