"""The tokenizer that is learned, and tokenizers in and out of a checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from likeness.networks.pretrained_text import MIN_SIZE, learn_tokenizer, load_tokenizer, read_tokenizer, tokenizer_files
from tests.lightning_modules.tiny_sentences import TEXTS

STRANGE = ["Ein Größenmaß: 3 µm…", "日本語", "tab\tand\nline", "😀", "\x00"]


def test_frequent_words_are_one_token_and_the_case_does_not_matter() -> None:
    tokenizer = learn_tokenizer(TEXTS, 400)
    assert tokenizer.tokenize("The PARROT sleeps") == ["Ġthe", "Ġparrot", "Ġsleeps"]
    ids = tokenizer("this parrot")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "Ġthis", "Ġparrot", "[SEP]"]
    assert len(tokenizer) <= 400


def test_every_text_has_tokens_that_spell_it() -> None:
    tokenizer = learn_tokenizer(TEXTS, MIN_SIZE)
    for text in STRANGE:
        spelt = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
        assert spelt.strip() == tokenizer.backend_tokenizer.normalizer.normalize_str(text).strip()


def test_another_process_learns_the_same_tokens(root: Path) -> None:
    """The library's other trainers hash words with a key that each process draws anew."""
    learn = f"learn_tokenizer({TEXTS}, 400).backend_tokenizer.to_str()"
    code = f"from likeness.networks.pretrained_text import learn_tokenizer\nprint({learn})"
    found = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert found.rstrip("\n") == learn_tokenizer(TEXTS, 400).backend_tokenizer.to_str()


def test_a_tokenizer_survives_being_taken_apart(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer(TEXTS, 400)
    torch.save(tokenizer_files(tokenizer), tmp_path / "files.pt")
    again = read_tokenizer(torch.load(tmp_path / "files.pt", weights_only=True))
    for text in [*TEXTS, *STRANGE]:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.pad_token_id == tokenizer.pad_token_id == 0


@pytest.mark.parametrize("name", ["../tokenizer.json", "folder/tokenizer.json", "/tokenizer.json", ".."])
def test_a_checkpoint_writes_to_no_other_folder(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        read_tokenizer({name: torch.zeros(3, dtype=torch.uint8)})


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="holds no vocabulary"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path: Path) -> None:
    tokenizer = learn_tokenizer(TEXTS, 400)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no padding token"):
        load_tokenizer(str(tmp_path))


def test_too_few_tokens_for_all_bytes() -> None:
    with pytest.raises(ValueError, match="vocab_size must be at least 259, got 258"):
        learn_tokenizer(TEXTS, 258)
