"""Tokenizers against the library that defines the files, and against the texts they are made of."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.files.errors import DataError
from likeness.language.text_tokenizer import (
    SEPARATOR,
    TextTokenizer,
    byte_tokenizer,
    learn_byte_pairs,
    read_text_tokenizer,
    token_bytes,
)
from tests.reference import FOLDER

CORPUS = [
    f"The {word} of {number}: naïve cafés, tabs\tand\nlines — 日本語." for number, word in enumerate("abcdefgh" * 9)
]
TRICKY = ["", " ", "a" + SEPARATOR + "b", "\r\n\t", "🙂 é", "x" * 2000]


@pytest.fixture(scope="module")
def pairs() -> TextTokenizer:
    pytest.importorskip("tokenizers")
    return learn_byte_pairs(CORPUS, 320)


@given(st.text(st.characters(codec="utf-8"), max_size=8))
@settings(max_examples=30)
def test_bytes_are_the_bytes(text: str) -> None:
    (ids,) = byte_tokenizer().encode([text])
    assert ids.tolist() == list(text.encode())
    assert byte_tokenizer().decode(ids) == text


def test_the_file_of_bytes_is_read_to_the_same_ids_by_the_library() -> None:
    library = pytest.importorskip("tokenizers").Tokenizer.from_str(byte_tokenizer().content)
    assert library.get_vocab_size() == byte_tokenizer().vocab_size == 257
    assert library.token_to_id(SEPARATOR) == byte_tokenizer().separator == 256
    text = "".join(map(chr, range(1, 800))) + "🙂"
    assert library.encode(text, add_special_tokens=False).ids == list(text.encode())
    assert library.decode(list(text.encode())) == text


def test_byte_pairs_are_a_function_of_the_texts(pairs: TextTokenizer) -> None:
    assert learn_byte_pairs(iter(CORPUS), 320).content == pairs.content
    assert learn_byte_pairs([*CORPUS, "other words"] * 2, 320).digest != pairs.digest
    assert (pairs.vocab_size, pairs.separator) == (320, 0)


@pytest.mark.parametrize("text", [*TRICKY, *CORPUS[:3]])
def test_byte_pairs_lose_nothing_and_no_text_holds_the_separator(pairs: TextTokenizer, text: str) -> None:
    (ids,) = pairs.encode([text])
    assert pairs.decode(ids) == pairs._library.decode(ids.tolist(), skip_special_tokens=False) == text
    assert pairs.separator not in ids
    assert int(pairs.byte_counts[torch.from_numpy(ids).long()].sum()) == len(text.encode())


def test_long_texts_are_not_cut_and_nothing_is_added(pairs: TextTokenizer) -> None:
    """Files may say that texts are cut at 512 tokens, padded, and put between special tokens."""
    from tokenizers import Tokenizer, processors

    library = Tokenizer.from_str(pairs.content)
    library.enable_truncation(5)
    library.enable_padding(length=9)
    library.post_processor = processors.TemplateProcessing(single=f"{SEPARATOR} $A", special_tokens=[(SEPARATOR, 0)])
    cutting = TextTokenizer(library.to_str())
    assert cutting.encode(["x " * 300, "y"])[0].tolist() == pairs.encode(["x " * 300])[0].tolist()
    assert cutting.encode(["x " * 300, "y"])[1].tolist() == pairs.encode(["y"])[0].tolist()


def test_a_token_of_nul_stands_for_nul() -> None:
    """In a vocabulary that spells tokens as they are."""
    assert token_bytes({"model": {"type": "WordLevel", "vocab": {"\0": 0, " ": 1}}}) == {0: b"\0", 1: b" "}


def test_equal_sizes_are_not_equal_tokens(pairs: TextTokenizer) -> None:
    other = learn_byte_pairs([text.upper() for text in CORPUS], 320)
    assert other.vocab_size == pairs.vocab_size
    assert other.vocabulary_digest != pairs.vocabulary_digest
    assert other.digest != pairs.digest


def test_one_vocabulary_with_other_merges_has_the_same_tokens(pairs: TextTokenizer) -> None:
    content = json.loads(pairs.content)
    content["model"]["merges"] = content["model"]["merges"][:-1]
    fewer = TextTokenizer(json.dumps(content))
    assert fewer.vocabulary_digest == pairs.vocabulary_digest
    assert fewer.digest != pairs.digest


def test_it_travels_as_files_and_as_tensors(pairs: TextTokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name, content in pairs.files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    for again in (
        read_text_tokenizer(tmp_path),
        read_text_tokenizer(tmp_path / "tokenizer.json"),
        TextTokenizer.of_state(pairs.state()),
    ):
        assert (again.digest, again.separator) == (pairs.digest, pairs.separator)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(CORPUS[0])["input_ids"] == pairs.encode(CORPUS[:1])[0].tolist()
    assert theirs.eos_token == SEPARATOR
    with pytest.raises(DataError, match=r"tokenizer\.json and tokenizer_config\.json, got a"):
        TextTokenizer.of_state({"a": torch.zeros(1, dtype=torch.uint8)})


@pytest.mark.parametrize("name", ["hf_llama_untied_padded_sharded", "hf_gpt2_tied"])
def test_folders_of_others(name: str) -> None:
    folder = FOLDER / "language_models" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = read_text_tokenizer(folder)
    text = "Return the number of items: déjà vu, <bos>"
    expected = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    expected.encode_special_tokens = True
    assert ours.encode([text])[0].tolist() == expected.encode(text, add_special_tokens=False).ids
    assert ours.separator == theirs.eos_token_id
    assert ours.vocab_size == 1 + max(theirs.get_vocab().values())
    assert ours.decode(ours.encode([text])[0]) == text


def unigram(folder: Path) -> Path:
    """A small tokenizer as SentencePiece's are: ▁ for a space, and bytes for characters that have no token."""
    content: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 1,
                "content": "</s>",
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "model": {
            "type": "Unigram",
            "unk_id": 0,
            "byte_fallback": True,
            "vocab": [
                ["<unk>", 0.0],
                ["</s>", 0.0],
                ["▁", -2.0],
                ["a", -2.0],
                ["▁a", -1.0],
                ["é", -3.0],
                *([f"<0x{b:02X}>", -9.0] for b in range(256)),
            ],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_tokens_of_sentencepiece_stand_for_their_bytes(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = read_text_tokenizer(unigram(tmp_path))
    assert tokenizer.separator == 1
    text = "a a é ü a"
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.byte_counts[torch.from_numpy(ids).long()].sum()) == len(text.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"tokenizer\.json is damaged"),
        ("[]", r"tokenizer\.json should hold a mapping, got list"),
        ('{"model": {}}', r"tokenizer\.json is no tokenizer: it has no model with a vocabulary"),
        ('{"model": {"vocab": {"a": 0}}}', r"tokenizer\.json does not say what ends a text"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_text_tokenizer(tmp_path)


def test_a_separator_that_is_no_token_and_too_few_tokens_are_refused(pairs: TextTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(pairs.content)
    with pytest.raises(DataError, match=r"has no token '<end>' to end a document; its special ones: <\|endoftext\|>"):
        read_text_tokenizer(tmp_path, "<end>")
    with pytest.raises(DataError, match="the training texts give only 258 tokens, and vocab_size is 300"):
        learn_byte_pairs(["ab"], 300)
    with pytest.raises(ValueError, match=r"vocab_size must be at least 257.*got 256"):
        learn_byte_pairs(CORPUS, 256)
    with pytest.raises(DataError, match=r"other is missing: .* name a folder or a file of a tokenizer"):
        read_text_tokenizer(tmp_path / "other")
