"""Vocabularies by the bytes of their tokens."""

import pytest

from likeness.language.vocabularies import Vocabulary, require_same_vocabulary, shared_labels
from tests.language_reference import LANGUAGE, NAMES, needs_models

transformers = pytest.importorskip("transformers")


def vocabulary(name: str) -> Vocabulary:
    return Vocabulary.of(transformers.AutoTokenizer.from_pretrained(LANGUAGE / f"hf_{name}"))


@needs_models
@pytest.mark.parametrize("name", NAMES[:3])
def test_tokens_joined_are_the_text(name: str) -> None:
    own, tokenizer = vocabulary(name), transformers.AutoTokenizer.from_pretrained(LANGUAGE / f"hf_{name}")
    text = "Return a list, né?"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(own.tokens[i] for i in ids).decode().strip() == text
    assert own.size == len(tokenizer)


@needs_models
def test_a_vocabulary_shares_all_its_labels_with_itself() -> None:
    for name in NAMES[:3]:
        own = vocabulary(name)
        pairs = shared_labels(own, own).tolist()
        assert pairs == [[i, i] for i in own.tokens if i not in own.special]
        require_same_vocabulary(own, vocabulary(name))


def test_other_tokens_of_as_many_ids_are_refused() -> None:
    a, b = Vocabulary({0: b"a", 1: b"b", 2: b"c"}), Vocabulary({0: b"a", 1: b"c", 2: b"d"})
    assert a.size == b.size
    with pytest.raises(ValueError, match=r"of A and B differ: 1 of 3 and 3 ids .* id 1 is b'b' and b'c'"):
        require_same_vocabulary(a, b, ("A", "B"))
    assert shared_labels(a, b).tolist() == [[0, 0], [2, 1]]
    with pytest.raises(ValueError, match="differ"):
        require_same_vocabulary(a, Vocabulary(a.tokens, frozenset({2})))
    assert shared_labels(a, Vocabulary({0: b"x"})).tolist() == []
