"""The metric of hubness: one answer in any order, with padding, and on any number of ranks; exactly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.hubness.analysis import analyse_hubness
from likeness.hubness.metric import HubnessMetric
from tests.callbacks.two_ranks import on_two_ranks

SAMPLES, K = 60, 5
Answer = dict[str, Tensor]
Shares = Callable[[int], list[Tensor]]  # ids of the batches on a rank


def embeddings(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((SAMPLES, 8))).to(dtype)


def index() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((40, 8))).float()


def labels() -> Tensor:
    return torch.arange(SAMPLES) % 3


def in_sample(batches: list[Tensor], dtype: torch.dtype = torch.float32) -> Answer:
    metric = HubnessMetric(K, "cosine")
    for ids in batches:
        metric.update(embeddings(dtype)[ids], ids, labels()[ids])
    return metric.compute() | {"counts": metric.report().k_occurrence}


def bipartite(batches: list[Tensor], named: bool = True) -> Answer:
    metric = HubnessMetric(K, index=index())
    for ids in batches:
        metric.update(embeddings()[ids], ids if named else None)
    return metric.compute() | {"counts": metric.report().k_occurrence}


def assert_equal(one: Answer, other: Answer) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


everything = torch.arange(SAMPLES)
PADDED = torch.cat([everything, everything[:3]])  # as DistributedSampler pads
ANSWERS = [in_sample, bipartite]


def test_in_sample_against_the_function() -> None:
    answer = in_sample([everything])
    report = analyse_hubness(embeddings(), K, "cosine", labels=labels())
    assert torch.equal(answer["counts"], report.k_occurrence)
    for name, value in report.indices().items():
        assert answer[name] == value, name
        assert answer[f"{name}_null"] == report.null.indices()[name], name
    assert answer["excess_skewness"] == report.excess_skewness
    assert answer["robin_hood_ratio"] == report.robin_hood_ratio


@pytest.mark.parametrize("named", [True, False])
def test_bipartite_against_the_function(named: bool) -> None:
    report = analyse_hubness(index(), K, queries=embeddings())
    answer = bipartite(list(everything.split(7)), named)
    assert torch.equal(answer["counts"], report.k_occurrence)
    for name, value in report.indices().items():
        assert answer[name] == value, name
    assert "asymmetry" not in answer


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), batch_size=st.integers(1, 60), padding=st.integers(0, 9))
def test_neither_order_nor_batches_nor_padding_matter(seed: int, batch_size: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    padded = torch.cat([everything, everything[:padding]])
    shuffled = padded[torch.randperm(len(padded), generator=generator)]
    for answer in ANSWERS:
        assert_equal(answer(list(shuffled.split(batch_size))), answer([everything]))


SHARES: dict[str, Shares] = {
    "uneven": lambda rank: list(everything[:47].split(9) if rank == 0 else everything[47:].split(4)),
    "padded": lambda rank: list(PADDED[rank::2].split(5)),
    "interleaved": lambda rank: list(everything[rank::2].split(11)),
}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_two_ranks_agree_with_one(answer: Callable[[list[Tensor]], Answer], share: str, tmp_path: Path) -> None:
    for found in on_two_ranks(lambda rank: answer(SHARES[share](rank)), tmp_path):
        assert_equal(found, answer([everything]))


def test_two_ranks_sum_the_counts_of_queries_without_ids(tmp_path: Path) -> None:
    for found in on_two_ranks(lambda rank: bipartite(SHARES["uneven"](rank), named=False), tmp_path):
        assert_equal(found, bipartite([everything]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric HubnessMetric was called before")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_rank_may_have_no_samples(dtype: torch.dtype, tmp_path: Path) -> None:
    for found in on_two_ranks(lambda rank: in_sample([everything] * rank, dtype), tmp_path):
        assert_equal(found, in_sample([everything], dtype))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric HubnessMetric was called before")
@pytest.mark.parametrize("named", [True, False])
def test_a_rank_may_have_no_queries(named: bool, tmp_path: Path) -> None:
    for found in on_two_ranks(lambda rank: bipartite([everything] * rank, named), tmp_path):
        assert_equal(found, bipartite([everything]))


def test_hubs_are_named_by_the_samples_ids() -> None:
    metric = HubnessMetric(K)
    metric.update(embeddings(), 1000 - everything)
    ids, occurrences = metric.top_hubs(3)
    positions, expected = analyse_hubness(embeddings().flip(0), K).top_hubs(3)
    assert torch.equal(ids, 1000 - (SAMPLES - 1) + positions)
    assert torch.equal(occurrences, expected)
    other = HubnessMetric(K, index=index())
    other.update(embeddings())
    assert torch.equal(other.top_hubs(3)[0], analyse_hubness(index(), K, queries=embeddings()).top_hubs(3)[0])


def test_the_report_has_the_warnings_and_the_options() -> None:
    metric = HubnessMetric(K, include_self=True, hub_factor=1.5)
    metric.update(embeddings()[:30].repeat(2, 1), everything)
    report = metric.report()
    assert report.warnings[0].startswith("30 rows of embeddings repeat an earlier one: 30, 31")
    expected = analyse_hubness(embeddings()[:30].repeat(2, 1), K, include_self=True, hub_factor=1.5)
    assert report.indices() == expected.indices()


def test_a_reset_metric_starts_anew() -> None:
    metric = HubnessMetric(K, index=index())
    metric.update(embeddings())
    metric.update(embeddings(), everything)
    assert metric.report().m == 2 * SAMPLES
    metric.reset()
    metric.update(embeddings()[:9], everything[:9])
    assert metric.report().m == 9


def test_the_embeddings_gradient_is_not_kept() -> None:
    metric = HubnessMetric(K)
    metric.update(embeddings().requires_grad_(), everything)
    assert not any(rows.requires_grad for rows in metric.rows)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="in-sample hubness needs the samples' ids"):
        HubnessMetric(K).update(embeddings())
    with pytest.raises(ValueError, match=r"60 samples need as many ids, got \[59\]"):
        HubnessMetric(K).update(embeddings(), everything[1:])
    with pytest.raises(ValueError, match="labels are for in-sample hubness"):
        HubnessMetric(K, index=index()).update(embeddings(), everything, labels())
    with pytest.raises(ValueError, match="include_self is for in-sample hubness"):
        HubnessMetric(K, index=index(), include_self=True)
    with pytest.warns(UserWarning, match="before the ``update``"), pytest.raises(ValueError, match="no samples"):
        HubnessMetric(K).compute()
    metric = HubnessMetric(K)
    metric.update(embeddings()[:30], everything[:30], labels()[:30])
    metric.update(embeddings()[30:], everything[30:])
    with pytest.raises(ValueError, match="all samples need labels, or none: 30 of 60"):
        metric.compute()
