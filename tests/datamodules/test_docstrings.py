"""Labelled docstrings and pairs of their sentences: the text data that are always at hand."""

import itertools

import pytest
import torch

from datamodules import DocstringPairs, Docstrings
from datamodules.docstrings import FAMILIES, SCORES, standard_library_docstrings


def test_docstrings_are_divided_by_family() -> None:
    data = Docstrings()
    data.setup()
    assert data.num_classes == len(data.class_names) == len(FAMILIES)
    assert len(data.splits["val"]) == 500
    assert len(data.splits["test"]) == 1_000
    share = torch.stack([split.y.bincount() / len(split) for split in data.splits.values()])
    assert share.shape == (3, data.num_classes)
    assert float((share - share[0]).abs().max()) < 0.01
    families = {docstring.text: docstring.family for docstring in standard_library_docstrings()}
    seen = [
        (text, data.class_names[y]) for split in data.splits.values() for text, y in zip(split.x, split.y, strict=True)
    ]
    assert dict(seen) == families
    assert len(seen) == len(families)


def standings() -> dict[str, list[tuple[int, str, str]]]:
    """Where each sentence of the standard library stands: docstring, module, family, of each time that it occurs."""
    found: dict[str, list[tuple[int, str, str]]] = {}
    for number, docstring in enumerate(standard_library_docstrings()):
        words = docstring.text.split(" ")
        ends = [i for i, word in enumerate(words[:-1]) if word[-1] in ".!?" and words[i + 1][0].isupper()]
        starts = [0, *(end + 1 for end in ends), len(words)]
        for start, stop in itertools.pairwise(starts):
            sentence = " ".join(words[start:stop])
            found.setdefault(sentence, []).append((number, docstring.module, docstring.family))
    return found


@pytest.fixture(scope="module")
def pairs() -> DocstringPairs:
    data = DocstringPairs(train_size=2_000, eval_size=400)
    data.setup()
    return data


def test_scores_say_how_far_apart_two_sentences_stand(pairs: DocstringPairs) -> None:
    stands = standings()
    for split in pairs.splits.values():
        for first, second, score in zip(split.first, split.second, split.score.tolist(), strict=True):
            shared = [
                sum(a == b for a, b in zip(one, other, strict=True))
                for one, other in itertools.product(stands[first], stands[second])
            ]
            assert {0: 0.0, 1: 2.0, 2: 3.0, 3: 5.0}[max(shared)] >= score  # a sentence may occur again further on
            assert score in {{0: 0.0, 1: 2.0, 2: 3.0, 3: 5.0}[count] for count in shared}
            assert first != second


def test_each_score_is_a_quarter_and_no_pair_comes_twice(pairs: DocstringPairs) -> None:
    assert {name: len(split) for name, split in pairs.splits.items()} == {"train": 2_000, "val": 400, "test": 400}
    for split in pairs.splits.values():
        assert {score: int((split.score == score).sum()) for score in SCORES} == dict.fromkeys(SCORES, len(split) // 4)
        assert len({frozenset(pair) for pair in zip(split.first, split.second, strict=True)}) == len(split)


def test_no_docstring_is_in_two_splits(pairs: DocstringPairs) -> None:
    once = {text: stands[0][0] for text, stands in standings().items() if len(stands) == 1}
    used = [{once[text] for text in split.first + split.second if text in once} for split in pairs.splits.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(used, 2))


def test_pairs_are_a_function_of_the_seed_of_the_division(pairs: DocstringPairs) -> None:
    again, other = DocstringPairs(2_000, 400), DocstringPairs(2_000, 400, split_seed=1)
    for data in (again, other):
        data.setup("test")
    assert again.splits["test"].first == pairs.splits["test"].first
    assert torch.equal(again.splits["test"].score, pairs.splits["test"].score)
    assert other.splits["test"].first != pairs.splits["test"].first


@pytest.mark.parametrize("options", [{"train_size": 0}, {"train_size": 6}, {"eval_size": 2}])
def test_sizes_are_multiples_of_four(options: dict[str, int]) -> None:
    ((name, size),) = options.items()
    with pytest.raises(ValueError, match=f"{name} must be a positive multiple of 4, .* got {size}"):
        DocstringPairs(**options)


def test_more_pairs_than_there_are_are_refused() -> None:
    with pytest.raises(ValueError, match=r"10000 pairs of score 5 wanted, but only \d+ were found"):
        DocstringPairs(eval_size=40_000).setup("test")
