"""Windows of tokens: what each predicts, and which positions are told apart."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.language.token_batches import PADDING, batched, distinct, lengths_of, positions_of, prefix_hashes, windows


@given(st.lists(st.lists(st.integers(0, 9), min_size=2, max_size=30), min_size=1, max_size=5), st.data())
def test_every_token_after_the_first_is_predicted_once(documents: list[list[int]], data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    stride = data.draw(st.integers(1, length))
    seen = []
    for batch in batched(windows(documents, length, stride), 3):
        assert batch.x.shape[1] <= length
        for x, y, document, start in zip(*(part.tolist() for part in batch), strict=True):
            for column, (token, target) in enumerate(zip(x, y, strict=True)):
                if token != PADDING:
                    assert token == documents[document][start + column]
                if target != PADDING:
                    assert target == documents[document][start + column + 1]
                    seen.append((document, start + column))
    assert sorted(seen) == [(d, t) for d, tokens in enumerate(documents) for t in range(len(tokens) - 1)]


def test_later_windows_give_each_prediction_as_much_context_as_there_is() -> None:
    first, second, third = windows([list(range(8))], 4, 2)
    assert (first.x.tolist(), first.y.tolist()) == ([[0, 1, 2, 3]], [[1, 2, 3, 4]])
    assert (second.x.tolist(), second.y.tolist()) == ([[2, 3, 4, 5]], [[PADDING, PADDING, 5, 6]])
    assert (third.x.tolist(), third.y.tolist()) == ([[4, 5, 6]], [[PADDING, PADDING, 7]])


def test_equal_prefixes_are_told_apart_by_their_tokens_alone() -> None:
    documents = [[0, 5, 6, 7], [0, 5, 6, 8], [0, 5, 9, 7, 1]]
    (batch,) = batched(windows(documents, 10), 3)
    positions = positions_of(batch, torch.arange(float((batch.x != PADDING).sum()))[:, None])
    prefixes: dict[tuple[int, ...], set[int]] = {}
    places = zip(positions.document.tolist(), positions.t.tolist(), strict=True)
    for (document, t), prefix in zip(places, positions.prefix.tolist(), strict=True):
        prefixes.setdefault(tuple(documents[document][: t + 1]), set()).add(prefix)
    assert all(len(hashes) == 1 for hashes in prefixes.values())
    assert len(set.union(*prefixes.values())) == len(prefixes)
    kept = positions.take(distinct(positions))
    named = {tuple(documents[d][: t + 1]) for d, t in zip(kept.document.tolist(), kept.t.tolist(), strict=True)}
    assert len(kept.t) == len(named) == len(prefixes) - 1  # without position 0
    assert len(distinct(positions, first=True)) == len(prefixes)


def test_hashes_spread() -> None:
    x = torch.cartesian_prod(*[torch.arange(12)] * 4)
    hashes = prefix_hashes(x)
    assert [len(hashes[:, t].unique()) for t in range(4)] == [12, 144, 1728, 20736]
    assert lengths_of(torch.tensor([[1, PADDING], [2, 3]])).tolist() == [1, 2]
