"""Hubs of predictions against what the paper's code counted, and against closed forms."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from likeness.language.context_visit import visit_contexts
from likeness.language.hub_nulls import constant_counts, frequency_counts, gaussian_contexts
from likeness.language.point_concentration import concentration
from likeness.language.prediction_hubs import HubThreshold, PointDistance, point_hubs, prediction_hubs
from tests.language_reference import arrays, needs_models

FILES = ("hubs_v600_m16.npz", "hubs_v1100_m40.npz")
DISTANCES: tuple[PointDistance, ...] = ("euclidean", "norm_euclidean", "softmax_dot")
POWERS = (0.5, 1, 2)


@cache
def reference(file: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return arrays(file)


@cache
def counted(file: str) -> Any:
    held, meta = reference(file)
    return prediction_hubs(
        held["f"].double(),
        held["g"].double(),
        next_tokens=held["next_token"],
        frequencies=held["token_counts"],
        threshold=HubThreshold(absolute=meta["hub_threshold"]),
        powers=POWERS,
    )


@needs_models
@pytest.mark.parametrize("file", FILES)
def test_counts_of_contexts_and_tokens_are_the_papers(file: str) -> None:
    held, meta = reference(file)
    found, wanted = counted(file), meta["results"]["ct"]
    assert torch.equal(found.report.k_occurrence, held["ct_N_k"])
    assert found.report.k_skewness == pytest.approx(wanted["k_skew"], rel=1e-12)
    assert len(found.hubs) == wanted["number_of_hubs"]
    assert found.report.max_occurrence == wanted["max_N_k"]
    link = found.frequency
    assert link.spearman_hubs == pytest.approx(wanted["spearman_hubs"], rel=1e-12)
    assert link.spearman_all == pytest.approx(wanted["spearman_all"], rel=1e-12)
    assert link.p_all == pytest.approx(0.001)
    assert len(link.zero_frequency_hubs) == wanted["zero_frequency_hubs"]
    assert bool((held["token_counts"][link.zero_frequency_hubs] == 0).all())


@needs_models
@pytest.mark.parametrize("file", FILES)
def test_accuracies_and_distances_to_uniform_are_the_papers(file: str) -> None:
    held, meta = reference(file)
    found, wanted = counted(file), meta["results"]["ct"]
    for group, name in [("all", "accuracy"), ("hub", "accuracy_if_hub"), ("other", "accuracy_if_no_hub")]:
        accuracy = found.accuracy[group]
        assert accuracy.accuracy == pytest.approx(wanted[name], rel=1e-12)
        low, high = accuracy.interval
        assert low < accuracy.accuracy < high
    assert found.accuracy["hub"].contexts / len(held["f"]) == pytest.approx(wanted["share_predicting_a_hub"])
    torch.testing.assert_close(found.l2_to_uniform, held["ct_L2_to_uniform"], rtol=1e-6, atol=0)
    assert -float(found.visit.next_log_probability.mean()) == pytest.approx(wanted["mean_log_loss"], rel=1e-6)
    for power in POWERS:
        assert found.visit.concentration[power] == pytest.approx(wanted["concentration"][str(power)], rel=1e-5)


@needs_models
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("kind", ["tt", "cc"])
def test_counts_among_points_are_the_papers(file: str, kind: str, distance: PointDistance) -> None:
    held, meta = reference(file)
    points = held["g"] if kind == "tt" else held["f"][: meta["cc_contexts"]]
    frequencies = held["token_counts"] if kind == "tt" else None
    threshold = HubThreshold(absolute=meta["hub_threshold_tt_and_cc"])
    own, without = (
        point_hubs(points, distance, frequencies=frequencies, threshold=threshold, include_self=include_self)
        for include_self in (True, False)
    )
    wanted = meta["results"][f"{kind}_{distance}"]
    assert torch.equal(own.report.k_occurrence, held[f"{kind}_{distance}_N_k"])
    assert torch.equal(without.report.k_occurrence, held[f"{kind}_{distance}_N_k_self_excluded"])
    assert own.report.k_skewness == pytest.approx(wanted["k_skew"], rel=1e-12)
    assert without.report.k_skewness == pytest.approx(wanted["k_skew_self_excluded"], rel=1e-12)
    assert len(own.hubs) == wanted["hubs"]
    if own.frequency is not None:
        assert own.frequency.spearman_all == pytest.approx(wanted["spearman_all"], rel=1e-12)
        if wanted["spearman_hubs"] is None:
            assert own.frequency.spearman_hubs is None
            assert own.frequency.reasons["spearman_hubs"] == "0 tokens have no rank correlation"
        else:
            assert own.frequency.spearman_hubs == pytest.approx(wanted["spearman_hubs"], rel=1e-12)
    for power, value in concentration(points.double(), distance, POWERS).items():
        assert value == pytest.approx(wanted["concentration"][str(power)], rel=1e-5)


def drawn(n: int = 200, v: int = 50, m: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    f, g = (torch.randn(rows, m, generator=generator, dtype=torch.float64) for rows in (n, v))
    return f, g


def counts_of(f: Tensor, g: Tensor, **options: Any) -> list[int]:
    return prediction_hubs(f, g, k=5, **options).report.k_occurrence.tolist()


def test_what_changes_no_order_changes_no_count() -> None:
    f, g = drawn()
    wanted = counts_of(f, g)
    assert sum(wanted) == 5 * len(f)
    gauge = torch.linalg.qr(drawn(6, 6)[0]).Q @ torch.diag(torch.arange(1.0, 7, dtype=torch.float64))
    assert counts_of(f @ gauge.T, g @ torch.linalg.inv(gauge) + 3) == wanted
    assert counts_of(f * torch.arange(1.0, len(f) + 1)[:, None], g) == wanted
    assert counts_of(f, g - g.mean(0)) == wanted
    assert counts_of(f, g, soft_cap=0.3) == wanted
    ones = torch.ones_like(f[:, :1])
    assert counts_of(torch.cat([f, ones], 1), torch.cat([g, g[:, :1]], 1)) == counts_of(f, g, bias=g[:, 0])


def test_without_label_vectors_everything_is_uniform() -> None:
    f, g = drawn()
    zero = prediction_hubs(f, torch.zeros_like(g), k=5, next_tokens=torch.zeros(len(f), dtype=torch.long))
    assert zero.report.k_occurrence.tolist() == [len(f)] * 5 + [0] * 45
    assert float(zero.l2_to_uniform.max()) < 1e-8
    torch.testing.assert_close(zero.visit.next_log_probability.exp(), torch.full_like(f[:, 0], 1 / 50))


def test_one_list_for_all_has_a_constant_count_among_its_hubs() -> None:
    frequencies = torch.arange(50) ** 2
    f, g = torch.ones(200, 1), (frequencies + 1.0).log()[:, None]
    y = torch.arange(200) % 50
    found = prediction_hubs(f, g, k=5, next_tokens=y, frequencies=frequencies, nulls=["constant"])
    unigram = (frequencies + 1) / float((frequencies + 1).sum())
    torch.testing.assert_close(found.visit.next_log_probability, unigram[y].log().double(), rtol=1e-6, atol=0)
    assert {*found.report.k_occurrence.tolist()} == {0, 200}
    link = found.frequency
    assert link is not None
    assert link.spearman_hubs is None
    assert link.reasons["spearman_hubs"] == "all 5 counts are 200"
    assert found.overlap["constant"] == 1
    every = prediction_hubs(f, torch.zeros_like(g), k=49, frequencies=torch.ones(50)).frequency
    assert every is not None
    assert every.reasons["p_all"] == "all 50 frequencies are 1"


def test_the_square_sum_is_that_of_probabilities() -> None:
    f, g = drawn()
    p = (f @ g.T).softmax(1)
    visit = visit_contexts(f, g, powers=POWERS)
    torch.testing.assert_close(visit.square_sum, p.square().sum(1))
    torch.testing.assert_close(visit.l2_to_uniform(50).square(), 50 * p.var(1, correction=0))
    for power, value in visit.concentration.items():
        d = (1 - p) ** power
        assert value == pytest.approx(float(d.var(correction=0) / d.mean() ** 2), rel=1e-9)
    capped = (2 * (f @ g.T / 2).tanh()).softmax(1)
    torch.testing.assert_close(visit_contexts(f, g, soft_cap=2).square_sum, capped.square().sum(1))


def test_blocks_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    f, g = drawn()
    whole = visit_contexts(f, g, torch.zeros(200, dtype=torch.long), powers=POWERS)
    monkeypatch.setattr("likeness.language.context_visit.BLOCK", 7 * 50)
    parts = visit_contexts(f, g, torch.zeros(200, dtype=torch.long), powers=POWERS)
    for one, other in zip(whole[:3], parts[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert parts.concentration == pytest.approx(whole.concentration, rel=1e-11)


def test_drawing_by_equal_frequencies_is_the_binomial_null() -> None:
    n, v, k = 4000, 200, 10
    counts = frequency_counts(torch.full((v,), 3), n, k).double()
    assert float(counts.mean()) == n * k / v
    assert float(counts.var()) == pytest.approx(n * k / v * (1 - k / v), rel=0.3)  # three deviations of a variance
    rare = frequency_counts(torch.cat([torch.full((20,), 50), torch.ones(180)]), n, 1)
    assert float(rare[:20].sum()) / n == pytest.approx(1000 / 1180, abs=0.02)
    with pytest.raises(ValueError, match="3 tokens occur"):
        frequency_counts(torch.tensor([1, 1, 1, 0]), n, 4)
    assert constant_counts(torch.tensor([1, 5, 2]), 7, 2).tolist() == [0, 7, 7]


def test_the_gaussian_null_of_normal_contexts_is_like_them() -> None:
    f, g = drawn(3000, 300)
    drawn_again = gaussian_contexts(f)
    torch.testing.assert_close(drawn_again.mean(0), f.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(torch.cov(drawn_again.T), torch.cov(f.T), rtol=0, atol=0.15)
    found = prediction_hubs(f, g, nulls=["gaussian"])
    others = [prediction_hubs(f, g, nulls=["gaussian"], seed=s).nulls["gaussian"].k_skewness for s in range(1, 6)]
    assert found.report.k_skewness == pytest.approx(sum(others) / 5, rel=0.1)
    shifted = prediction_hubs(f**3, g, nulls=["gaussian"])
    assert shifted.nulls["gaussian"].k_occurrence.tolist() != shifted.report.k_occurrence.tolist()


def test_bad_sizes_are_named() -> None:
    f, g = drawn()
    for options, message in [
        ({"next_tokens": torch.tensor([1])}, r"next tokens of 200 contexts are \[1\]"),
        ({"next_tokens": torch.full((200,), 50)}, "next token 50 is none of the 50"),
        ({"frequencies": torch.ones(3)}, r"frequencies of 50 tokens are \[3\]"),
        ({"nulls": ["gumbel"]}, "null must be one of frequency"),
        ({"nulls": ["frequency"]}, "needs frequencies"),
    ]:
        with pytest.raises(ValueError, match=message):
            prediction_hubs(f, g, **options)
    with pytest.raises(ValueError, match="of one width"):
        prediction_hubs(f, g[:, 1:])
    with pytest.raises(ValueError, match="logits of context 1 are not finite"):
        visit_contexts(torch.tensor([[1.0], [torch.inf]]), g[:, :1].float())
