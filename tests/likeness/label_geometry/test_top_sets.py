"""Which labels can win: linear programming against enumeration and sampling, and every answer with its proof."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.label_geometry.patterns import rankings
from likeness.label_geometry.similarity import raw_similarity
from likeness.label_geometry.top_sets import TopSet, can_be_top, never_top, top_sets
from tests.likeness.label_geometry.paper_heads import centred_head, fixed_length_head, shortened_head


def assert_proved(g: Tensor, bias: Tensor | None, answer: TopSet) -> None:
    own = list(answer.labels)
    others = [label for label in range(len(g)) if label not in own]
    if answer.feasible:
        assert answer.features is not None
        logits = g @ answer.features + (0 if bias is None else bias)
        assert logits[own].min() > logits[others].max()
        return
    weights = answer.weights
    assert weights is not None
    assert (weights >= 0).all()
    torch.testing.assert_close(weights[own] @ g[own], weights[others] @ g[others], rtol=0, atol=1e-7)
    for side in (own, others):
        assert float(weights[side].sum()) == pytest.approx(1)
    if bias is not None:
        assert weights[own] @ bias[own] <= weights[others] @ bias[others] + 1e-7


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(3, 6), st.integers(1, 3), st.booleans())
def test_all_top_sets_against_all_rankings(seed: int, labels: int, dim: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    g = 3 * torch.randn(labels, dim, generator=generator, dtype=torch.float64) + 1
    bias = torch.randn(labels, generator=generator, dtype=torch.float64) if biased else None
    orders = rankings(g, bias)
    for size in range(1, min(labels, 4)):
        possible = {tuple(sorted(order[-size:].tolist())) for order in orders}
        sets = list(combinations(range(labels), size))
        for answer in top_sets(g, sets, bias):
            assert answer.feasible == (answer.labels in possible)
            assert_proved(g, bias, answer)


@pytest.mark.parametrize(("labels", "dim"), [(12, 2), (15, 3)])
def test_labels_that_never_win_in_a_large_sample(labels: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(labels)
    g = torch.randn(labels, dim, generator=generator, dtype=torch.float64)
    x = torch.randn(500_000, dim, generator=generator, dtype=torch.float64)
    winners = set((x @ g.T).argmax(1).unique().tolist())
    assert {answer.labels[0] for answer in never_top(g)} == set(range(labels)) - winners


def test_similar_labels_that_are_never_together_and_dissimilar_ones_that_are() -> None:
    assert [can_be_top(centred_head(), pair).feasible for pair in ((0, 1), (1, 2), (2, 4))] == [True, True, False]
    for cosine in (-0.5, 0.805, 0.9999):
        g = fixed_length_head(cosine)
        assert [can_be_top(g, pair).feasible for pair in ((0, 1), (1, 3))] == [True, False]


def test_a_shortened_label_keeps_its_cosines_and_loses_its_region() -> None:
    g, shortened = shortened_head()
    torch.testing.assert_close(raw_similarity(g), raw_similarity(shortened), rtol=0, atol=1e-15)
    assert never_top(g) == []
    (answer,) = never_top(shortened)
    assert answer.labels == (2,)
    assert_proved(shortened, None, answer)


def test_a_label_on_the_border_of_the_hull_never_wins_alone() -> None:
    g = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert [answer.labels for answer in never_top(g)] == [(2,)]
    assert never_top(g, torch.tensor([0.0, 0.0, 1.0, 0.0])) == []  # a bias lets it


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_units_do_not_matter(scale: float) -> None:
    g = scale * shortened_head()[1] + 100 * scale
    assert [answer.labels for answer in never_top(g)] == [(2,)]
    bias = scale * torch.tensor([0.0, 0.0, 10.0, 0.0, 0.0, 0.0, 0.0])
    assert never_top(g, bias) == []
    assert_proved(g, bias.double(), can_be_top(g, [2], bias.double()))


def test_what_is_too_large_for_a_programme_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.top_sets.MAX_ENTRIES", 10)
    g = shortened_head()[1]
    assert [answer.feasible for answer in top_sets(g, [[0], [2]])] == [True, None]


@pytest.mark.parametrize("labels", [[], [0, 0], [3], [-1], [0, 1, 2]])
def test_sets_that_are_none_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="some but not all of the labels 0 to 2"):
        can_be_top(torch.eye(3), labels)
