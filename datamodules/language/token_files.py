"""Token files: ``train.bin``, ``val.bin`` and ``test.bin`` of any size, and the ``tokens.json`` that describes them.

A ``.bin`` is nothing but ids, little-endian, uint16 where V <= 65,536 and uint32 above; so nanoGPT writes them too,
without a description. A folder that describes its files has the tokenizer beside them, and where documents begin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.own.samples import SampleError
from datamodules.splits import PARTS, SplitName
from likeness.files.errors import DataError, missing
from likeness.language.text_tokenizer import FILE, TextTokenizer, read_text_tokenizer

SUMMARY = "tokens.json"
DTYPES = {"uint16": "<u2", "uint32": "<u4"}
BLOCK = 1 << 16  # tokens that are checked together when one of them is first read
HOW = "make them by `likeness data tokenize`"
# How files begin that are called .bin and hold no bare ids.
FOREIGN = {
    (20240520).to_bytes(4, "little") + (1).to_bytes(4, "little"): "has the header of llm.c's token files",
    (20240801).to_bytes(4, "little") + (7).to_bytes(4, "little"): "has the header of llm.c's token files",
    b"PK\x03\x04": "is a zip archive, such as weights of PyTorch",
    b"\x93NUMPY": "is a numpy array",
    b"GGUF": "is a GGUF file of weights",
}


@dataclass(frozen=True)
class PartSummary:
    """One ``.bin``: what it holds, and what it stands for."""

    count: int  # tokens
    documents: int
    bytes: int  # of its texts, with one for each separator
    token_bytes: int  # that its tokens stand for; others where the tokenizer changes texts
    head: str  # SHA-256 of its first block, by which another file of this size is told


@dataclass(frozen=True)
class TokenSummary:
    """The content of ``tokens.json``."""

    dtype: str
    vocab_size: int
    separator: int
    tokenizer: str  # digest
    key: str  # SHA-256 of all that decides what the files hold: texts, division, tokenizer
    parts: Mapping[SplitName, PartSummary]

    def as_json(self) -> str:
        """The content of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"


def dtype_for(vocab_size: int) -> str:
    """The smaller of the two types that holds the ids 0 to V - 1."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def read_summary(folder: Path) -> TokenSummary | None:
    """The description of the files in a folder, None where there is none. Raises DataError naming what is wrong."""
    path = folder / SUMMARY
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {part: PartSummary(**content["parts"][part]) for part in PARTS if part in content["parts"]}
        summary = TokenSummary(**content | {"parts": parts})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} does not describe token files: {type(error).__name__}: {error}") from error
    require_dtype(summary.dtype, summary.vocab_size, path)
    return summary


def require_dtype(dtype: str, vocab_size: int, path: Path) -> None:
    """Raise DataError unless ids below ``vocab_size`` can be written in this type."""
    if dtype not in DTYPES:
        raise DataError(f"{path}: the dtype of token files is {' or '.join(DTYPES)}, got {dtype!r}")
    if not isinstance(vocab_size, int) or vocab_size < 1:
        raise DataError(f"{path}: vocab_size must be at least 1, got {vocab_size!r}")
    if vocab_size > 1 << 8 * np.dtype(dtype).itemsize:
        raise DataError(f"{path}: {dtype} holds ids up to 65,535, and vocab_size is {vocab_size}")


class TokenFile:
    """The n ids of a ``.bin``, mapped into memory; a block of them is checked when one of it is first read."""

    def __init__(self, path: Path, dtype: str, vocab_size: int, summary: PartSummary | None = None) -> None:
        """
        Args:
            path: The file.
            dtype: uint16 or uint32.
            vocab_size: V; a larger id is an error.
            summary: What is known of the file; None for one that nothing describes.

        Raises DataError, naming the file, where it is missing, empty, cut short, of a foreign kind, byte-swapped, or
        not the file that was described.
        """
        if not path.is_file():
            raise missing(path, HOW)
        require_dtype(dtype, vocab_size, path)
        self.path, self.dtype, self.vocab_size = path, np.dtype(DTYPES[dtype]), vocab_size
        size = path.stat().st_size
        self._count, rest = divmod(size, self.dtype.itemsize)
        if summary is not None and size != summary.count * self.dtype.itemsize:
            expected = f"{summary.count * self.dtype.itemsize} for the {summary.count} tokens of {SUMMARY}"
            raise DataError(f"{path} has {size} bytes, expected {expected}: {HOW} again")
        if size == 0 or rest:
            raise DataError(f"{path} has {size} bytes, which are no tokens of {self.dtype.itemsize} bytes each")
        if summary is None:
            self._refuse_foreign()
        elif (found := head_digest(self.head)) != summary.head:
            self._refuse_other(found, summary.head)
        self._checked = np.zeros(-(-len(self) // BLOCK), bool)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def ids(self) -> np.ndarray:
        """All ids [n], mapped."""
        return np.asarray(np.memmap(self.path, self.dtype, mode="r"))

    @property
    def head(self) -> np.ndarray:
        """The first block."""
        return self.ids[:BLOCK]

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """The ids [B, length] int64 from each start [B] on; beyond the end the last one is repeated.

        Raises SampleError for an id that is none of the vocabulary's.
        """
        places = np.minimum(starts.numpy()[:, None] + np.arange(length), len(self) - 1)
        blocks = np.unique((places if length > BLOCK else places[:, [0, -1]]) // BLOCK)
        for block in blocks[~self._checked[blocks]]:
            self._check(int(block))
        return torch.from_numpy(self.ids[places].astype(np.int64))

    def _check(self, block: int) -> None:
        ids = self.ids[block * BLOCK : (block + 1) * BLOCK]
        wrong = ids >= self.vocab_size
        if wrong.any():
            place = int(wrong.argmax())
            swapped = bool((ids.byteswap() < self.vocab_size).all())
            raise SampleError(
                f"{self.path}, token {block * BLOCK + place}: id {int(ids[place])} lies beyond the vocabulary of "
                f"{self.vocab_size}{'; the bytes of the ids are swapped' if swapped else ''}"
            )
        self._checked[block] = True

    def _refuse_foreign(self) -> None:
        with self.path.open("rb") as file:
            first = file.read(16)
        if kind := next((kind for begin, kind in FOREIGN.items() if first.startswith(begin)), None):
            raise DataError(f"{self.path} {kind}, and token files are bare ids: {HOW}")

    def _refuse_other(self, found: str, expected: str) -> None:
        if head_digest(self.head.byteswap()) == expected:
            raise DataError(f"{self.path} has the bytes of its ids swapped: ids are little-endian, so {HOW} again")
        raise DataError(
            f"{self.path} is not the file that {SUMMARY} describes: the digest of its first tokens is {found[:12]}, "
            f"expected {expected[:12]}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "ids"}  # each process maps the file itself


def head_digest(ids: np.ndarray) -> str:
    """SHA-256 of the bytes of the first block of ids."""
    return hashlib.sha256(np.ascontiguousarray(ids[:BLOCK]).tobytes()).hexdigest()


class TokenFolder:
    """The token files of a folder, with or without a description.

    Raises DataError where ``vocab_size`` is not given for files without one, or is another than theirs.
    """

    def __init__(self, path: Path, vocab_size: int | None = None) -> None:
        if not path.is_dir():
            raise missing(path, HOW)
        self.path = path
        self.summary = read_summary(path)
        if self.summary is None and vocab_size is None:
            raise DataError(f"{path} has no {SUMMARY} that says how many tokens there are: state vocab_size")
        if self.summary is not None and vocab_size not in (None, self.summary.vocab_size):
            raise DataError(f"{path / SUMMARY} says vocab_size {self.summary.vocab_size}, got {vocab_size}")
        self.vocab_size: int = self.summary.vocab_size if self.summary else (vocab_size or 0)

    def parts(self) -> Sequence[SplitName]:
        """The parts that are there."""
        return [part for part in PARTS if (self.path / f"{part}.bin").is_file()]

    def file(self, part: SplitName) -> TokenFile:
        """The tokens of a part."""
        path = self.path / f"{part}.bin"
        if self.summary is None:
            return TokenFile(path, "uint16", self.vocab_size)
        if part not in self.summary.parts and path.is_file():
            raise DataError(f"{path} is not described in {self.path / SUMMARY}: {HOW} again")
        return TokenFile(path, self.summary.dtype, self.vocab_size, self.summary.parts.get(part))

    def documents(self, part: SplitName) -> Tensor:
        """Where each document of a part begins [D] int64. Raises DataError where nothing says it."""
        path = self.path / f"{part}_documents.npy"
        if not path.is_file():
            raise missing(path, HOW)
        try:
            starts = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}") from error
        count = len(self.file(part))
        if starts.dtype != np.int64 or starts.ndim != 1 or not len(starts) or starts[0] != 0:
            raise DataError(f"{path} does not hold the int64 starts of documents, the first of them 0")
        if (np.diff(starts) < 1).any() or starts[-1] >= count:
            raise DataError(f"{path}: starts ascend, and lie below the {count} tokens of {part}.bin")
        return torch.from_numpy(starts)

    @cached_property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer of the files; None where nothing is known of it. Raises DataError for another one."""
        path = self.path / FILE
        if self.summary is None:
            return None
        tokenizer = read_text_tokenizer(path)
        if tokenizer.digest != self.summary.tokenizer:
            raise DataError(
                f"{path} is another tokenizer than that of the files: its digest is {tokenizer.digest[:12]}, "
                f"{SUMMARY} says {self.summary.tokenizer[:12]}"
            )
        return tokenizer
