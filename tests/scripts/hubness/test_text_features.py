"""TF-IDF embeddings equal the dense formula, and are the same numbers whatever the seed."""

import math
import re
from collections import Counter

import pytest
import torch

from scripts.hubness.encoders import tfidf_embeddings

TEXTS = [
    "The cat sat on the mat, the black cat.",
    "A dog sat on a log.",
    "Cats and dogs are animals; a cat is an animal.",
    "Stock markets fell sharply.",
    "The stock market rose: markets rise and fall.",
    "Black dogs and black cats.",
    "Logs fall on the mat.",
]


def dense_embeddings(texts: list[str], dim: int) -> torch.Tensor:
    """(1 + ln tf) (1 + ln((1 + n) / (1 + df))), rows normalised, its leading singular vectors, rows normalised."""
    counts = [Counter(re.findall(r"\w\w+", text.lower())) for text in texts]
    terms = sorted(set().union(*counts))
    frequency = {term: sum(term in count for count in counts) for term in terms}
    rows = torch.zeros(len(texts), len(terms), dtype=torch.float64)
    for row, count in enumerate(counts):
        for term, times in count.items():
            idf = 1 + math.log((1 + len(texts)) / (1 + frequency[term]))
            rows[row, terms.index(term)] = (1 + math.log(times)) * idf
    rows = torch.nn.functional.normalize(rows, dim=1)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:dim]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return torch.nn.functional.normalize(rows @ axes.T, dim=1)


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_embeddings_equal_the_dense_formula(dim: int) -> None:
    embeddings = tfidf_embeddings(TEXTS, dim)
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.double(), dense_embeddings(TEXTS, dim), rtol=0, atol=1e-6)


def test_the_seed_changes_rounding_alone() -> None:
    torch.testing.assert_close(
        tfidf_embeddings(TEXTS, 4, seed=0), tfidf_embeddings(TEXTS, 4, seed=7), rtol=0, atol=1e-6
    )
    assert torch.equal(tfidf_embeddings(TEXTS, 4), tfidf_embeddings(TEXTS, 4))


def test_texts_may_come_in_any_order() -> None:
    order = [3, 0, 6, 2, 5, 1, 4]
    shuffled = tfidf_embeddings([TEXTS[row] for row in order], 3)
    torch.testing.assert_close(shuffled, tfidf_embeddings(TEXTS, 3)[order], rtol=0, atol=1e-6)


def test_a_text_without_words_is_a_row_of_zeros() -> None:
    embeddings = tfidf_embeddings([*TEXTS, "", "? ! a 1"], 3)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.tensor([1.0] * 7 + [0.0] * 2))


@pytest.mark.parametrize("dim", [0, 7, 500])
def test_dimensions_that_are_not_there_are_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=f"less than the 7 texts and their 2. terms, got {dim}"):
        tfidf_embeddings(TEXTS, dim)


def test_texts_without_any_word_are_refused() -> None:
    with pytest.raises(ValueError, match="none of the 2 texts has a word of two letters"):
        tfidf_embeddings(["", "? !"], 1)


def test_few_texts_have_as_many_dimensions_as_there_are() -> None:
    """Of three terms two, however many texts there are."""
    few = ["river stone", "stone cloud", "cloud river", "river river stone"]
    assert tfidf_embeddings(few).shape == (4, 2)
    lengths = tfidf_embeddings([*few, "a"]).norm(dim=1)
    assert lengths.tolist() == pytest.approx([1, 1, 1, 1, 0])
