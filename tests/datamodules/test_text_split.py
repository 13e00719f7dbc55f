"""Splits of texts gather whole batches; parts of them hold each stratum in its share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.splits import PairSplit, TextSplit, remaining_rows, stratified_rows
from likeness.batch import PairBatch

TEXTS = ["zero", "one", "two", "three"]


def test_ids_gather_texts_with_their_labels() -> None:
    split = TextSplit(TEXTS, torch.tensor([5, 6, 7, 8]))
    batch = split[torch.tensor([3, 0])]
    assert batch.x == ["three", "zero"]
    assert batch.y.tolist() == [8, 5]
    assert batch.id.tolist() == [3, 0]


def test_ids_gather_pairs_with_their_scores() -> None:
    split = PairSplit(TEXTS, TEXTS[::-1], torch.tensor([0.0, 1.0, 2.5, 5.0]))
    batch = split[torch.tensor([2, 0])]
    assert isinstance(batch, PairBatch)
    assert (batch.first, batch.second) == (["two", "zero"], ["one", "three"])
    assert batch.score.tolist() == [2.5, 0.0]
    assert batch.score.dtype == torch.float32
    assert batch.id.tolist() == [2, 0]
    assert split.strata.tolist() == [0, 1, 2, 5]


def test_ids_are_positions_in_what_was_selected() -> None:
    rows = torch.tensor([3, 1])
    texts = TextSplit(TEXTS, torch.arange(4)).select(rows)
    pairs = PairSplit(TEXTS, TEXTS, torch.arange(4.0)).select(rows)
    assert texts[torch.tensor([0])].x == pairs[torch.tensor([0])].first == ["three"]
    assert texts[torch.tensor([1])].y.tolist() == pairs[torch.tensor([1])].score.tolist() == [1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 9), st.data())
def test_each_stratum_has_its_share_to_within_one(strata: list[int], seed: int, data: st.DataObject) -> None:
    of = torch.tensor(strata)
    size = data.draw(st.integers(0, len(strata)))
    rows = stratified_rows(of, size, seed)
    assert len(rows) == size
    assert rows.tolist() == sorted(set(rows.tolist()))
    shares = of.bincount(minlength=5) * size / len(strata)
    assert ((of[rows].bincount(minlength=5) - shares).abs() < 1).all()
    assert sorted(rows.tolist() + remaining_rows(len(strata), rows).tolist()) == list(range(len(strata)))


def test_division_is_fixed_for_good_by_its_seed() -> None:
    """A changed division would put tested samples into the training of an older checkpoint."""
    strata = torch.arange(12) % 3
    assert stratified_rows(strata, 6, 0).tolist() == [0, 2, 6, 7, 10, 11]
    assert stratified_rows(strata, 6, 1).tolist() != [0, 2, 6, 7, 10, 11]


def test_each_sample_of_a_stratum_is_as_likely_to_be_taken() -> None:
    taken = torch.stack([stratified_rows(torch.zeros(10, dtype=torch.long), 3, seed) for seed in range(2000)])
    share = taken.flatten().bincount(minlength=10) / 2000
    assert float((share - 0.3).abs().max()) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_more_than_there_is_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="5 samples cannot be taken out of 4"):
        stratified_rows(torch.zeros(4, dtype=torch.long), 5, 0)
