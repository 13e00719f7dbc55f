"""Windows against brute force: which tokens each has, and that none is predicted twice or forgotten."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.language.token_files import BLOCK, TokenFile
from datamodules.language.windows import EvaluatedWindows, TrainingWindows, epoch_offset, num_windows
from datamodules.samplers import Visits
from likeness.batch import Batch
from tests.datamodules.language.toys import write_bin


class Numbers(TokenFile):
    """A file in memory whose token i is i."""

    def __init__(self, count: int) -> None:
        self.ids = np.arange(count)  # type: ignore[misc]
        self.vocab_size, self._count = count, count
        self._checked = np.zeros(-(-count // BLOCK), bool)


def predicted(batch: Batch) -> list[int]:
    """The predicted places of the file; each target stands behind its input, and each window where its id says."""
    places = batch.id[:, None] + torch.arange(batch.x.shape[1])
    counts = batch.y != -1
    assert torch.equal(batch.x[counts], places[counts])
    assert torch.equal(batch.y[counts], places[counts] + 1)
    return batch.y[counts].tolist()


@given(st.integers(2, 400), st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_predicts_each_token_at_most_once_and_stays_in_the_file(
    count: int, context: int, seed: int, epoch: int
) -> None:
    windows = TrainingWindows(Numbers(count), context)
    assert len(windows) == num_windows(count, context) == max(0, (count - 1) // context - 1)
    if len(windows) == 0:
        return
    batch = windows[Visits(torch.randperm(len(windows)), epoch, (seed,))]
    assert batch.x.shape == batch.y.shape == (len(windows), context)
    seen = predicted(batch)  # so no place beyond the end was read, where the last token is repeated
    assert len(seen) == len({*seen}) == len(windows) * context
    assert set(batch.id.tolist()) == {epoch_offset(seed, epoch, context) + context * i for i in range(len(windows))}


def test_offsets_are_uniform() -> None:
    """Chi-squared of 16 offsets over 4,000 epochs and over 4,000 seeds."""
    for offsets in ([epoch_offset(0, e, 16) for e in range(4000)], [epoch_offset(s, 0, 16) for s in range(4000)]):
        counts = np.bincount(offsets, minlength=16)
        assert ((counts - 250) ** 2 / 250).sum() < 37.7  # 0.1 % point of chi-squared with 15 degrees of freedom


def test_a_batch_of_several_orders_has_the_offset_of_each() -> None:
    windows = TrainingWindows(Numbers(500), 7)
    ids = torch.tensor([3, 0, 5, 1, 2, 4])
    together = windows[Visits(ids, 2, (8, 9, 4))]
    alone = [windows[Visits(part, 2, (seed,))] for part, seed in zip(ids.split(2), (8, 9, 4), strict=True)]
    for name in Batch._fields:
        assert torch.equal(getattr(together, name), torch.cat([getattr(batch, name) for batch in alone]))


def strided(count: int, context: int, stride: int) -> list[tuple[int, list[int]]]:
    """The windows of Hugging Face's page on the perplexity of models of fixed length: start, and targets scored."""
    answer, previous = [], 0
    for begin in range(0, count - 1, stride):
        end = min(begin + context, count - 1)
        answer.append((begin, list(range(previous + 1, end + 1))))
        previous = end
        if end == count - 1:
            break
    return answer


@given(st.integers(2, 300), st.integers(1, 30), st.data())
def test_a_stride_scores_every_token_once(count: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    windows = EvaluatedWindows(Numbers(count), context, stride)
    batch = windows[torch.arange(len(windows))]
    expected = strided(count, context, stride)
    assert batch.id.tolist() == [start for start, _ in expected]
    assert [row[row >= 0].tolist() for row in batch.y] == [targets for _, targets in expected]
    assert predicted(batch) == list(range(1, count))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 12), st.data())
def test_by_document_no_window_sees_two(lengths: list[int], context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    ends = np.cumsum(lengths)
    starts = torch.from_numpy(ends - lengths)
    windows = EvaluatedWindows(Numbers(int(ends[-1])), context, stride, starts)
    if len(windows) == 0:
        assert ends[-1] == 1
        return
    batch = windows[torch.arange(len(windows))]
    assert Counter(predicted(batch)) == Counter(range(1, int(ends[-1])))
    assert len({*batch.id.tolist()}) == len(windows)
    for start, row in zip(batch.id.tolist(), batch.y, strict=True):
        targets = row[row >= 0]
        document = int(np.searchsorted(ends, int(targets[0]), side="right"))
        assert start >= starts[document] - 1  # the separator in front of it
        assert int(targets[-1]) < ends[document]
        reach = int(targets[0]) - 1 - start  # how far back the first of them sees
        assert reach == (0 if targets[0] <= max(1, int(starts[document])) else context - stride)


def test_the_same_loss_as_by_hand(tmp_path: Path) -> None:
    """A model that remembers all it sees of a window: the sum over windows at a stride, token by token."""
    ids = np.random.default_rng(0).integers(0, 50, 137)
    windows = EvaluatedWindows(TokenFile(Path(write_bin(tmp_path, val=ids)) / "val.bin", "uint16", 50), 16, 5)

    def cost(seen: np.ndarray, following: int) -> float:
        return float(np.log(50 + len(seen)) - np.log1p((seen == following).sum()))

    total, count = 0.0, 0
    for number in range(len(windows)):
        batch = windows[torch.tensor([number])]
        for place in (batch.y[0] >= 0).nonzero()[:, 0].tolist():
            total += cost(batch.x[0, : place + 1].numpy(), int(batch.y[0, place]))
            count += 1
    by_hand = 0.0
    for target in range(1, 137):
        start = 0 if target <= 16 else 5 * -(-(target - 16) // 5)
        by_hand += cost(ids[start:target], int(ids[target]))
    assert count == 136
    assert total == pytest.approx(by_hand, abs=1e-10)
