"""McNemar's exact test, against sums of binomial coefficients."""

from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from likeness.neighbours.classification import McNemar, mcnemar

counts = st.integers(0, 60)


@given(b=counts, c=counts)
def test_p_is_twice_the_smaller_tail(b: int, c: int) -> None:
    tail = sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c)
    assert McNemar(b, c).p == pytest.approx(min(1, 2 * tail), rel=1e-9)
    assert McNemar(b, c).p == pytest.approx(McNemar(c, b).p, rel=1e-9)


@given(b=counts, c=counts, level=st.sampled_from([0.05, 0.01, 0.001]))
def test_a_verdict_is_possible_where_the_most_extreme_split_is_significant(b: int, c: int, level: float) -> None:
    test, extreme = McNemar(b, c, level), McNemar(b + c, 0, level)
    assert test.possible == extreme.significant
    assert test.possible or not test.significant


@pytest.mark.parametrize(
    ("b", "c", "verdict"),
    [
        (0, 0, "too few to tell"),
        (0, 4, "too few to tell"),
        (5, 0, "too few to tell"),  # p = 0.0625
        (0, 6, "better"),
        (6, 0, "worse"),
        (1, 6, "not significant"),
        (100, 125, "not significant"),
        (100, 160, "better"),
    ],
)
def test_verdicts(b: int, c: int, verdict: str) -> None:
    assert McNemar(b, c).verdict == verdict


def test_counts_those_that_only_one_classifies_rightly() -> None:
    baseline, other = torch.tensor([1, 1, 1, 0, 0, 1]).bool(), torch.tensor([1, 0, 1, 1, 0, 0]).bool()
    assert mcnemar(baseline, other) == McNemar(baseline_only=2, other_only=1)
    assert mcnemar(baseline, other, level=0.5).significant is False


def test_refuses_other_queries() -> None:
    with pytest.raises(ValueError, match=r"the same queries, got \[3\] and \[2\]"):
        mcnemar(torch.ones(3).bool(), torch.ones(2).bool())
