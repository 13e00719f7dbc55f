"""The likelihood of tokens is the same however they are divided."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.metrics import TokenMetric

TOKENS = 40


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    nll = 5 * torch.rand(TOKENS, generator=random)
    return nll, nll < 1, torch.randint(0, 9, (TOKENS,), generator=random)


@given(cuts=st.lists(st.integers(0, TOKENS), max_size=4), rank=st.integers(0, TOKENS))
def test_batches_and_ranks_of_any_size_give_the_same(cuts: list[int], rank: int) -> None:
    nll, correct, num_bytes = tokens()
    ranks = [TokenMetric(), TokenMetric()]
    for metric in ranks:
        metric.update(nll[:0], correct[:0], num_bytes[:0])
    ends = sorted({0, *cuts, rank, TOKENS})
    for start, end in pairwise(ends):
        part = slice(start, end)
        ranks[start >= rank].update(nll[part], correct[part], num_bytes[part])
    ranks[0].merge_state(ranks[1])
    found = {name: float(value) for name, value in ranks[0].compute().items()}
    total = nll.double().sum().item()
    expected = {
        "nll": total / TOKENS,
        "perplexity": math.exp(total / TOKENS),
        "accuracy": correct.double().mean().item(),
        "bits_per_byte": total / math.log(2) / num_bytes.sum().item(),
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_of_no_tokens_there_is_no_mean() -> None:
    metric = TokenMetric()
    metric.update(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert metric.compute()["nll"].isnan()
