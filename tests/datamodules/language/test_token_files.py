"""Token files that are what they say are read; all others are refused in one line that names the file."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import DataError, Tokens
from datamodules.language.token_files import BLOCK, SUMMARY, TokenFile, dtype_for
from datamodules.own.samples import SampleError
from likeness.language.text_tokenizer import byte_tokenizer
from tests.datamodules.language.toys import TEXTS, ids_of, make, write_bin, write_texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make(write_texts(tmp_path / "texts"), tmp_path / "tokens", val_fraction=0.2, test_fraction=0.2)
    return tmp_path / "tokens"


def ready(folder: Path, **options: Any) -> Tokens:
    data = Tokens(str(folder), **{"context": 16, "batch_size": 4} | options)
    data.prepare_data()
    data.setup()
    return data


def change(folder: Path, **values: Any) -> None:
    content = json.loads((folder / SUMMARY).read_text())
    (folder / SUMMARY).write_text(json.dumps(content | values))


@pytest.mark.parametrize(("dtype", "vocab_size"), [("uint16", 65_536), ("uint32", 65_537), ("uint32", 1 << 32)])
def test_ids_come_back_in_either_type(tmp_path: Path, dtype: str, vocab_size: int) -> None:
    ids = np.random.default_rng(0).integers(0, vocab_size, 1000)
    ids[0] = vocab_size - 1
    path = Path(write_bin(tmp_path, {"uint16": "<u2", "uint32": "<u4"}[dtype], train=ids)) / "train.bin"
    file = TokenFile(path, dtype, vocab_size)
    assert dtype_for(vocab_size) == dtype
    windows = file.windows(torch.tensor([0, 990, 17]), 10)
    assert windows.dtype == torch.int64
    assert np.array_equal(windows.numpy(), np.stack([ids[:10], ids[990:], ids[17:27]]))
    assert len(pickle.dumps(file)) < 2000  # a worker maps the file itself
    assert torch.equal(pickle.loads(pickle.dumps(file)).windows(torch.tensor([3]), 4)[0], torch.from_numpy(ids[3:7]))


def test_uint16_holds_65536_tokens_and_no_more(tmp_path: Path, folder: Path) -> None:
    write_bin(tmp_path, train=[1, 2, 3])
    with pytest.raises(DataError, match=r"train\.bin: uint16 holds ids up to 65,535, and vocab_size is 65537"):
        Tokens(str(tmp_path), context=1, vocab_size=65_537).setup("fit")
    change(folder, vocab_size=70_000)
    with pytest.raises(DataError, match=r"tokens\.json: uint16 .* vocab_size is 70000"):
        ready(folder)


def test_nanogpts_files_are_read(tmp_path: Path) -> None:
    ids = np.arange(100) % 50_257
    data = ready(Path(write_bin(tmp_path, train=ids, val=ids[:40])), vocab_size=50_257, context=8)
    assert (data.vocab_size, data.num_classes, data.input_shape) == (50_257, 50_257, (8,))
    assert (data.separator, data.tokenizer, data.byte_counts) == (None, None, None)
    assert sorted(batch_start(data)) == [*range(1, 40)]  # the test part is the validation part
    with pytest.raises(DataError, match="bits per byte need the tokenizer"):
        data.num_bytes(torch.tensor([1]))
    with pytest.raises(DataError, match=r"val_documents\.npy is missing"):
        ready(tmp_path, vocab_size=50_257, context=8, by_document=True)
    with pytest.raises(DataError, match=r"has no tokens\.json .*: state vocab_size"):
        ready(tmp_path)


def batch_start(data: Tokens) -> list[int]:
    return [id_ for batch in data.test_dataloader() for id_ in batch.y[batch.y >= 0].tolist()]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-2], r"train\.bin has \d+ bytes, expected \d+ for the \d+ tokens of tokens\.json"),
        (lambda content: content + b"\1\0", r"train\.bin has \d+ bytes, expected"),
        (lambda content: np.frombuffer(content, ">u2").astype("<u2").tobytes(), r"train\.bin has the bytes .* swapped"),
        (lambda content: content[::-1], r"train\.bin is not the file that tokens\.json describes: the digest"),
        (lambda content: b"", r"train\.bin has 0 bytes"),
    ],
    ids=["truncated", "longer", "swapped", "foreign", "empty"],
)
def test_a_described_file_that_is_another_is_refused(folder: Path, damage: Any, message: str) -> None:
    path = folder / "train.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        ready(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes, which are no tokens of 2 bytes each"),
        (b"abc", "has 3 bytes, which are no tokens of 2 bytes each"),
        (np.array([20240520, 1, 5], "<i4").tobytes() + bytes(1012), "has the header of llm.c's token files"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive"),
        (b"\x93NUMPY" + bytes(100), "is a numpy array"),
    ],
)
def test_a_bare_file_of_a_foreign_kind_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.bin {message}"):
        Tokens(str(tmp_path), vocab_size=300, context=1).setup("fit")


def test_ids_beyond_the_vocabulary_are_found_when_their_block_is_read(tmp_path: Path) -> None:
    ids = np.arange(3 * BLOCK) % 300
    ids[2 * BLOCK + 7] = 300
    file = TokenFile(Path(write_bin(tmp_path, train=ids)) / "train.bin", "uint16", 300)
    file.windows(torch.tensor([0, BLOCK + 5]), 100)
    for start in (2 * BLOCK + 500, 2 * BLOCK - 1):
        with pytest.raises(SampleError, match=rf"train\.bin, token {2 * BLOCK + 7}: id 300 .* vocabulary of 300$"):
            file.windows(torch.tensor([5, start]), 100)
    swapped = TokenFile(Path(write_bin(tmp_path, ">u2", val=ids % 200)) / "val.bin", "uint16", 300)
    with pytest.raises(SampleError, match=r"val\.bin, token 2: id 512 .*; the bytes of the ids are swapped"):
        swapped.windows(torch.tensor([0]), 10)


def test_a_worker_hands_the_line_over(tmp_path: Path) -> None:
    data = ready(Path(write_bin(tmp_path, train=[7] * 99, val=[7] * 99)), vocab_size=5, num_workers=1)
    with pytest.raises(SampleError, match=r"^\S+val\.bin, token 0: id 7 lies beyond the vocabulary of 5$"):
        next(iter(data.val_dataloader()))


def test_another_tokenizer_is_refused_by_its_digest(folder: Path) -> None:
    """As many tokens, other strings: ids 65 and 66 mean B and A."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    vocab["A"], vocab["B"] = vocab["B"], vocab["A"]
    path.write_text(json.dumps(content))
    data = ready(folder)
    with pytest.raises(DataError, match=r"tokenizer\.json is another tokenizer .* tokens\.json says"):
        _ = data.byte_counts
    path.write_text(json.dumps(json.loads(byte_tokenizer().content), indent=None))  # the same, written otherwise
    assert ready(folder).tokenizer is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "int8"}, "the dtype of token files is uint16 or uint32, got 'int8'"),
        ({"vocab_size": "many"}, "vocab_size must be at least 1, got 'many'"),
        ({"parts": {"train": {"count": 3}}}, "does not describe token files"),
        ({"extra": 1}, "does not describe token files.*extra"),
    ],
)
def test_a_damaged_description_is_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    change(folder, **values)
    with pytest.raises(DataError, match=rf"tokens\.json:? {message}"):
        ready(folder)


def test_a_vocabulary_of_another_size_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"tokens\.json says vocab_size 257, got 300"):
        ready(folder, vocab_size=300)


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([0, 5, 5], "starts ascend"),
        ([0, 10**6], r"lie below the \d+ tokens of val\.bin"),
        ([3, 5], "does not hold the int64 starts"),
        ([0.0, 5.0], "does not hold the int64 starts"),
    ],
)
def test_starts_of_documents_that_cannot_be_are_refused(folder: Path, starts: list[Any], message: str) -> None:
    np.save(folder / "val_documents.npy", np.array(starts))
    with pytest.raises(DataError, match=rf"val_documents\.npy.* {message}"):
        ready(folder, by_document=True)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (10_000, r"train\.bin holds \d+ tokens, fewer than a context of 10000"),
        (1_000, r"train\.bin holds \d+ tokens: a context of 1000 needs 2001 of them"),
        (300, r"val\.bin holds \d+ tokens, fewer than a context of 300"),
    ],
)
def test_texts_shorter_than_a_context_are_refused(tmp_path: Path, context: int, message: str) -> None:
    folder = Path(write_bin(tmp_path, train=[1] * 1900, val=[1] * 290))
    with pytest.raises(ValueError, match=message):
        ready(folder, vocab_size=2, context=context)


def test_a_missing_folder_or_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokens is missing: .*likeness data tokenize"):
        ready(tmp_path / "tokens")
    with pytest.raises(DataError, match=r"train\.bin is missing"):
        ready(Path(write_bin(tmp_path, val=[1] * 50)), vocab_size=2)


def test_what_is_in_the_files(folder: Path) -> None:
    """The texts, read back without anything of ours, each with its end, and where each begins."""
    found = []
    for part in ("train", "val", "test"):
        ids, starts = ids_of(folder, part), np.load(folder / f"{part}_documents.npy")
        assert np.array_equal(starts[1:] - 1, np.flatnonzero(ids == 256)[:-1])
        documents = np.split(ids, starts[1:])
        assert all(document[-1] == 256 for document in documents)
        found += [bytes(document[:-1].tolist()).decode() for document in documents]
    assert sorted(found) == sorted(TEXTS)
