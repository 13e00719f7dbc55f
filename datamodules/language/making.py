"""Token files from documents: division into parts, the tokenizer, and files that appear whole or not at all.

What is written is a function of the texts, the division and the tokenizer. ``key`` in ``tokens.json`` is the digest of
these, so files that are there already are not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from datamodules.errors import OptionError
from datamodules.language.documents import Document, Reader
from datamodules.language.token_files import (
    DTYPES,
    SUMMARY,
    PartSummary,
    TokenFolder,
    TokenSummary,
    dtype_for,
    head_digest,
    read_summary,
)
from datamodules.splits import SplitName, require_fractions
from likeness.files.errors import DataError
from likeness.language.text_tokenizer import TextTokenizer, byte_tokenizer, learn_byte_pairs, read_text_tokenizer
from likeness.networks.pretrained_text import text_library
from likeness.progress import tracked
from likeness.seeding import mix

CHARACTERS = 1 << 20  # of texts that are encoded together
_DIVISION = 0xD1F  # sets this use of a seed apart from every other
Texts = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Division:
    """How much of the training documents is held out for parts that are not there.

    Args:
        val_fraction: Share of the distinct documents held out for validation.
        test_fraction: Share held out for the test; where a validation part is there, it serves as test instead.
        split_seed: Decides which, by a hash of the texts: equal texts are in the same part.
    """

    val_fraction: float = 0.05
    test_fraction: float = 0.05
    split_seed: int = 0

    def __post_init__(self) -> None:
        require_fractions(self.val_fraction, self.test_fraction)

    def held_out(self, there: Iterable[SplitName]) -> dict[SplitName, float]:
        """The shares of the parts that are taken from the training documents."""
        if "val" in there:
            return {}
        shares: dict[SplitName, float] = {"val": self.val_fraction, "test": self.test_fraction}
        return {part: share for part, share in shares.items() if share > 0 and part not in there}


class TokenizerChoice(NamedTuple):
    """Which tokenizer, and how it comes about."""

    name: str  # part of the key of the files
    make: Callable[[Texts], TextTokenizer]  # from the training texts


def choose_tokenizer(name: str, vocab_size: int = 2048, separator: str | None = None) -> TokenizerChoice:
    """``bytes``, ``bpe`` (byte pairs learned from the training texts), or a file or folder of a tokenizer."""
    if name == "bpe":
        version = text_library("tokenizers").__version__
        return TokenizerChoice(f"bpe {vocab_size} {version}", lambda texts: learn_byte_pairs(texts(), vocab_size))
    tokenizer = byte_tokenizer() if name == "bytes" else read_text_tokenizer(Path(name), separator)
    return TokenizerChoice(tokenizer.digest, lambda texts: tokenizer)


@dataclass
class Survey:
    """What one pass over a source tells: digests of its parts, and a hash of each distinct training text."""

    digests: dict[SplitName, str] = field(default_factory=dict)
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    dropped: int = 0


def make_token_files(
    folder: Path,
    source: Mapping[SplitName, Reader],
    choice: TokenizerChoice,
    division: Division,
    drop_empty: bool = False,
    overwrite: bool = False,
) -> tuple[TokenSummary, bool]:
    """Write the token files of a source into a folder; their description, and whether they were there already.

    Raises DataError for an empty text unless these are dropped, for a part without a text, and for a folder that holds
    anything else unless it is overwritten.
    """
    survey = survey_texts(source, division, drop_empty)
    key = _digest(survey.digests, asdict(division), choice.name)
    there = _there(folder)
    if there is not None and there.key == key and _is_whole(folder):
        return there, True
    if folder.exists() and any(folder.iterdir()):
        if there is None:
            raise DataError(f"{folder} is not empty, and has no {SUMMARY}: name another folder")
        if there.key != key and not overwrite:
            raise DataError(f"{folder} holds other tokens: name another folder, or overwrite them")
    if survey.dropped:
        rank_zero_info(f"left out {survey.dropped} empty texts")
    parts = divided(source, survey, division, drop_empty)
    tokenizer = choice.make(parts["train"])
    with _new_folder(folder, key) as temporary:
        summary = _write(temporary, parts, tokenizer, key)
    return summary, False


def files_key(source: Mapping[SplitName, Reader], choice: TokenizerChoice, division: Division) -> str:
    """The digest of all that decides what token files of a source hold."""
    return _digest(survey_texts(source, division).digests, asdict(division), choice.name)


def survey_texts(source: Mapping[SplitName, Reader], division: Division, drop_empty: bool = False) -> Survey:
    """Go through all documents once. Raises DataError naming the first that is empty, unless these are dropped."""
    survey = Survey()
    hashes = array("Q")
    for part, read in source.items():
        digest = hashlib.sha256()
        for document in tracked(read(), f"reading {part}"):
            if not document.text.strip():
                if not drop_empty:
                    raise DataError(f"{document.place}: the text is empty; drop empty texts, if they may be left out")
                survey.dropped += 1
                continue
            content = _encoded(document)
            digest.update(len(content).to_bytes(8, "little") + content)
            if part == "train":
                hashes.append(text_hash(content, division.split_seed))
        survey.digests[part] = digest.hexdigest()
    survey.hashes = np.unique(np.frombuffer(hashes, np.uint64))
    return survey


def text_hash(content: bytes, seed: int) -> int:
    """A number below 2^64 that is a function of a text and a seed."""
    key = mix(seed, _DIVISION).to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")


def divided(
    source: Mapping[SplitName, Reader], survey: Survey, division: Division, drop_empty: bool = False
) -> dict[SplitName, Texts]:
    """The texts of each part that there will be, each a function that goes through them.

    The held-out parts are the distinct documents with the smallest hashes. A single document is cut at ends of lines,
    the training part first. Raises OptionError where too few documents are there to divide.
    """
    shares = division.held_out(source)
    texts: dict[SplitName, Texts] = {part: partial(_texts, read, drop_empty) for part, read in source.items()}
    if not shares:
        return texts
    distinct = len(survey.hashes)
    if distinct == 1:
        return texts | _cut(next(texts["train"]()), shares)
    sizes = {part: max(1, round(share * distinct)) for part, share in shares.items()}
    if sum(sizes.values()) >= distinct:
        raise OptionError(f"{distinct} documents cannot be divided into train, {' and '.join(sizes)}")
    train, bounds, taken = texts["train"], {}, 0
    for part, size in sizes.items():
        bounds[part] = (taken, taken + size)
        taken += size
    ends = {part: (int(survey.hashes[low]), int(survey.hashes[high - 1])) for part, (low, high) in bounds.items()}
    rest = (int(survey.hashes[taken]), int(survey.hashes[-1]))
    for part, (first, last) in {"train": rest, **ends}.items():
        texts[part] = partial(_within, train, first, last, division.split_seed)
    return texts


def _texts(read: Reader, drop_empty: bool) -> Iterator[str]:
    return (document.text for document in read() if not drop_empty or document.text.strip())


def _within(texts: Texts, first: int, last: int, seed: int) -> Iterator[str]:
    """The texts whose hashes lie from ``first`` to ``last``."""
    return (text for text in texts() if first <= text_hash(text.encode(), seed) <= last)


def _cut(text: str, shares: Mapping[SplitName, float]) -> dict[SplitName, Texts]:
    """One text as consecutive parts, each of which ends with a line."""
    begin, answer = 0, {}
    left = 1 - sum(shares.values())
    for part, share in {"train": left, **shares}.items():
        wanted = begin + round(share * len(text))
        end = len(text) if part == [*shares][-1] else text.find("\n", wanted) + 1 or len(text)
        answer[part] = text[begin:end]
        begin = end
    if empty := [part for part, piece in answer.items() if not piece.strip()]:
        raise OptionError(f"one document of {len(text)} characters leaves no lines for the {empty[0]} part")
    return {part: partial(iter, [piece]) for part, piece in answer.items()}


def _write(folder: Path, parts: Mapping[SplitName, Texts], tokenizer: TextTokenizer, key: str) -> TokenSummary:
    dtype = dtype_for(tokenizer.vocab_size)
    written = {part: _write_part(folder, part, texts, tokenizer, dtype) for part, texts in parts.items()}
    for name, content in tokenizer.files().items():
        (folder / name).write_text(content, encoding="utf-8")
    summary = TokenSummary(dtype, tokenizer.vocab_size, tokenizer.separator, tokenizer.digest, key, written)
    (folder / SUMMARY).write_text(summary.as_json(), encoding="utf-8")
    return summary


def _write_part(folder: Path, part: SplitName, texts: Texts, tokenizer: TextTokenizer, dtype: str) -> PartSummary:
    """One ``.bin`` with its documents' starts. Raises DataError for a part without a text, or an id beyond V."""
    path, lengths, size, spelt = folder / f"{part}.bin", array("q"), 0, 0
    byte_counts = tokenizer.byte_counts.numpy()
    with path.open("wb") as file:
        for batch in _batches(tracked(texts(), f"encoding {part}")):
            encoded = tokenizer.encode(batch)
            ids = _joined(encoded, tokenizer.separator)
            if (largest := int(ids.max())) >= tokenizer.vocab_size:
                raise DataError(f"the tokenizer answers id {largest}, beyond its {tokenizer.vocab_size} tokens")
            file.write(ids.astype(DTYPES[dtype]).tobytes())
            lengths.extend(len(tokens) + 1 for tokens in encoded)
            size += sum(len(text.encode()) + 1 for text in batch)
            spelt += int(byte_counts[ids].sum())
        file.flush()
        os.fsync(file.fileno())
    if not lengths:
        raise DataError(f"the {part} part has no text")
    sizes = np.frombuffer(lengths, np.int64)
    ends = np.cumsum(sizes)
    np.save(folder / f"{part}_documents.npy", ends - sizes)
    head = head_digest(np.memmap(path, DTYPES[dtype], mode="r"))
    return PartSummary(int(ends[-1]), len(lengths), size, spelt, head)


def _joined(encoded: Sequence[np.ndarray], separator: int) -> np.ndarray:
    """The ids of documents one behind the other, each with the separator behind it [n] int64."""
    end = np.array([separator], np.int64)
    return np.concatenate([part for ids in encoded for part in (ids.astype(np.int64), end)])


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts, of about ``CHARACTERS`` characters together."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _there(folder: Path) -> TokenSummary | None:
    """The description of files that are there; None where there is none, or none that can be read."""
    with suppress(DataError):
        return read_summary(folder)
    return None


def _is_whole(folder: Path) -> bool:
    """Whether the files in a folder are what its description says."""
    try:
        tokens = TokenFolder(folder)
        return tokens.tokenizer is not None and all(len(tokens.documents(part)) for part in tokens.parts())
    except DataError:
        return False


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encoded(document: Document) -> bytes:
    try:
        return document.text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{document.place}: {error}") from error


@contextmanager
def _new_folder(folder: Path, key: str) -> Iterator[Path]:
    """Yield a folder that takes the place of ``folder`` when the block ends; after an error ``folder`` is as it was."""
    temporary = _beside(folder, "tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        _put(temporary, folder, key)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, folder: Path, key: str) -> None:
    """Rename a folder over what is there; the same files, which another process may have put there, stay."""
    old = _beside(folder, "old")
    if folder.exists() and any(folder.iterdir()):
        if (there := _there(folder)) is not None and there.key == key and _is_whole(folder):
            return
        folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        elif (there := _there(folder)) is None or there.key != key:
            raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{uuid4().hex[:12]}.{kind}")
