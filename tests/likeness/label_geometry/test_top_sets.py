"""Which labels can win: linear programming against enumeration and sampling, and every answer with its proof."""

from fractions import Fraction
from itertools import combinations, pairwise, product
from operator import add, mul

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.label_geometry.hull_proofs import HullSystem
from likeness.label_geometry.patterns import rankings
from likeness.label_geometry.similarity import raw_similarity
from likeness.label_geometry.top_sets import TopSet, can_be_top, doubtful_winners, never_top, top_sets
from tests.likeness.label_geometry.paper_heads import centred_head, fixed_length_head, shortened_head

KINDS = ("short", "near", "inside", "repeated", "grid", "line")


def assert_proved(g: Tensor, bias: Tensor | None, answer: TopSet) -> None:
    own = list(answer.labels)
    others = [label for label in range(len(g)) if label not in own]
    if answer.feasible:
        assert answer.features is not None
        x = [Fraction(value) for value in answer.features.tolist()]
        logits = [sum(map(mul, map(Fraction, row), x), Fraction(0)) for row in g.tolist()]
        if bias is not None:
            logits = list(map(add, logits, map(Fraction, bias.tolist())))
        assert min(logits[label] for label in own) > max(logits[label] for label in others)
        return
    assert answer.weights is not None
    weights = torch.zeros(len(g), dtype=torch.float64)
    weights[list(answer.weights)] = torch.tensor(list(answer.weights.values()), dtype=torch.float64)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights[own] @ g[own], weights[others] @ g[others], rtol=0, atol=1e-7)
    for side in (own, others):
        assert float(weights[side].sum()) == pytest.approx(1)
    if bias is not None:
        assert weights[own] @ bias[own] <= weights[others] @ bias[others] + 1e-7


def exactly_possible(g: Tensor, size: int) -> set[tuple[int, ...]]:
    """The top sets of label vectors [K, 2] in whole numbers: those beside each direction in which two logits tie."""
    power = max(value.as_integer_ratio()[1] for row in g.tolist() for value in row)
    points = [tuple(int(Fraction(value) * power) for value in row) for row in g.tolist()]
    far, found = 2**9000, set()
    for (a, b), (c, d) in combinations(points, 2):
        for sign, side in product((1, -1), (1, -1)):
            tie = (sign * (d - b), sign * (a - c))
            x, y = far * tie[0] - side * tie[1], far * tie[1] + side * tie[0]
            logits = [x * p + y * q for p, q in points]
            order = sorted(range(len(points)), key=logits.__getitem__, reverse=True)
            if logits[order[size - 1]] > logits[order[size]]:
                found.add(tuple(sorted(order[:size])))
    return found


def exactly_possible_on_a_line(g: Tensor, bias: Tensor, size: int) -> set[tuple[int, ...]]:
    """The same of label vectors [K, 1] with a bias: those between the features at which two logits tie."""
    lines = [(Fraction(w), Fraction(b)) for w, b in zip(g.flatten().tolist(), bias.tolist(), strict=True)]
    ties = sorted({(d - b) / (a - c) for (a, b), (c, d) in combinations(lines, 2) if a != c}) or [Fraction(0)]
    found = set()
    for x in [ties[0] - 1, ties[-1] + 1, *((low + high) / 2 for low, high in pairwise(ties))]:
        logits = [w * x + b for w, b in lines]
        order = sorted(range(len(lines)), key=logits.__getitem__, reverse=True)
        if logits[order[size - 1]] > logits[order[size]]:
            found.add(tuple(sorted(order[:size])))
    return found


def hard_head(seed: int, kind: str) -> Tensor:
    """Two rows far shorter than the rest, nearly or exactly equal ones, a label a hair inside a polygon or outside."""
    generator = torch.Generator().manual_seed(seed)
    small = 10.0 ** -float(torch.randint(5, 17, (), generator=generator))
    angle = torch.arange(7, dtype=torch.float64) * (2 * torch.pi / 7)
    g = torch.randn(7, 2, generator=generator, dtype=torch.float64)
    if kind == "short":
        g[:2] *= small
        g[2:, 0] = g[2:, 0].abs()  # the short ones lie at the border of the rest, or beyond
    elif kind == "near":
        g[1:3] = g[0] + small * g[1:3]
    elif kind == "inside":
        g = torch.stack([angle.cos(), angle.sin()], dim=1)
        g[1] = (g[0] + g[2]) / 2 * (1 + small * (1 if seed % 2 else -1))
    elif kind == "repeated":
        g[[1, 5]] = g[[2, 6]]
    elif kind == "grid":
        g = torch.randint(-2, 3, (7, 2), generator=generator).double()
    else:
        g = torch.linspace(-1, 1, 7, dtype=torch.float64).outer(g[0])
    return g


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.integers(1, 2), st.sampled_from((1, 2, 128)))
def test_no_answer_rests_on_a_tolerance(
    monkeypatch: pytest.MonkeyPatch, seed: int, kind: str, size: int, first: int
) -> None:
    monkeypatch.setattr("likeness.label_geometry.top_sets._FIRST", first)
    g = hard_head(seed, kind)
    possible = exactly_possible(g, size)
    for labels in combinations(range(7), size):
        answer = can_be_top(g, labels)
        assert answer.feasible == (labels in possible)
        if answer.features is not None or not answer.feasible:
            assert_proved(g, None, answer)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.sampled_from(KINDS))
def test_without_whole_numbers_an_answer_is_right_or_undecided(
    monkeypatch: pytest.MonkeyPatch, seed: int, kind: str
) -> None:
    monkeypatch.setattr("likeness.label_geometry.hull_proofs.MAX_EXACT", 0)
    g = hard_head(seed, kind)
    possible = exactly_possible(g, 1)
    for label in range(7):
        assert can_be_top(g, [label]).feasible in ((label,) in possible, None)


def test_a_point_well_inside_has_a_proof_whatever_corner_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.hull_proofs.MAX_EXACT", 0)
    monkeypatch.setattr(HullSystem, "positive_solution", lambda system, support: None)
    g = torch.randn(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[0] *= 0.01
    answer = can_be_top(g, [0])
    assert answer.weights is not None
    assert len(answer.weights) == 60
    assert_proved(g, None, answer)


def test_a_label_well_inside_is_decided_without_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.hull_proofs.MAX_EXACT", 0)
    g = torch.randn(60, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g[:5] *= 0.01
    bias = 0.01 * torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for offset in (None, bias):
        for label in range(5):
            answer = can_be_top(g, [label], offset)
            assert answer.feasible is False
            assert_proved(g, offset, answer)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.integers(1, 2), st.booleans(), st.sampled_from((1, 2, 128)))
def test_no_answer_with_a_bias_rests_on_a_tolerance(
    monkeypatch: pytest.MonkeyPatch, seed: int, size: int, whole: bool, first: int
) -> None:
    monkeypatch.setattr("likeness.label_geometry.top_sets._FIRST", first)
    generator = torch.Generator().manual_seed(seed)
    g, bias = torch.randint(-3, 4, (2, 6), generator=generator).double()
    if not whole:
        small = 10.0 ** -torch.randint(0, 14, (2, 6), generator=generator).double()
        g, bias = g + small[0], bias + small[1]
    possible = exactly_possible_on_a_line(g, bias, size)
    for labels in combinations(range(6), size):
        assert can_be_top(g.unsqueeze(1), labels, bias).feasible == (labels in possible)


@pytest.mark.parametrize("biased", [False, True])
def test_few_rivals_decide_as_a_programme_over_all_labels(monkeypatch: pytest.MonkeyPatch, biased: bool) -> None:
    linprog = pytest.importorskip("scipy.optimize").linprog
    monkeypatch.setattr("likeness.label_geometry.top_sets._FIRST", 4)
    monkeypatch.setattr("likeness.label_geometry.top_sets._GATHERED", 7)
    monkeypatch.setattr("likeness.label_geometry.top_sets._TOGETHER", 600)
    monkeypatch.setattr("likeness.label_geometry.centred_rows._MAX_LOGITS", 60)
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", 60)  # ten rows
    generator = torch.Generator().manual_seed(3)
    g = torch.randn(200, 6, generator=generator, dtype=torch.float64) ** 3 + 5  # many of them lie inside
    bias = torch.randn(200, generator=generator, dtype=torch.float64) if biased else None
    g[7] = g[8]
    possible = []
    for label in range(20):
        others = torch.arange(200) != label
        higher = torch.zeros(199) if bias is None else bias[others] - bias[label]
        columns = torch.cat([g[others] - g[label], higher[:, None], torch.ones(199, 1)], dim=1)
        bounds = [(None, None)] * 6 + [(0, None), (None, 1)]
        best = linprog([0] * 7 + [-1], columns.numpy(), [0.0] * 199, bounds=bounds)
        possible.append(bool(best.x[-1] > 0.5))
    assert set(possible) == {True, False}
    for scale in (1e-200, 1.0, 1e200):
        answers = top_sets(scale * g, [[label] for label in range(20)], None if bias is None else scale * bias)
        assert [answer.feasible for answer in answers] == possible
        for answer in answers:
            assert_proved(g, bias, answer)
            assert answer.weights is None or len(answer.weights) < 100  # a few rivals decided


def test_short_rows_that_stick_out_can_win() -> None:
    """The others all lie to the right: of two rows at a millionth of their length each wins in some direction."""
    for small in (1e-6, 1e-9, 1e-13, 1e-100, 1e-300):
        g = torch.tensor([[0, small], [0, -small], [0.5, 0.1], [1, 0.5], [2, 0.1]], dtype=torch.float64)
        assert [can_be_top(g, [label]).feasible for label in range(5)] == [True, True, False, True, True]


@pytest.mark.parametrize("scale", [1e-200, 1e-13, 1e200])
def test_proofs_hold_at_any_scale(scale: float) -> None:
    for pair, feasible in (((0, 1), True), ((1, 2), True), ((2, 4), False)):
        answer = can_be_top(scale * centred_head(), pair)
        assert answer.feasible is feasible
        assert answer.features is not None or answer.weights is not None


def test_repeated_rows_never_win_alone_and_do_together() -> None:
    g = torch.cat([shortened_head()[0], shortened_head()[0][:1]])
    assert [can_be_top(g, labels).feasible for labels in ([0], [7], [0, 7], [1])] == [False, False, True, True]
    assert can_be_top(g, [0], torch.tensor([1e-13] + 7 * [0.0])).feasible


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
    monkeypatch.setattr("likeness.label_geometry.top_sets.MAX_ENTRIES", 2)
    monkeypatch.setattr("likeness.label_geometry.top_sets._FIRST", 1)
    g = shortened_head()[1]
    assert [answer.feasible for answer in top_sets(g, [[0], [2]])] == [True, None]
    monkeypatch.undo()
    monkeypatch.setattr("likeness.label_geometry.hull_proofs.MAX_EXACT", 10)
    line = torch.linspace(0, 1, 5).unsqueeze(1) * torch.ones(3)
    assert [can_be_top(line, [label]).feasible for label in (0, 2)] == [True, None]


def test_the_most_doubtful_labels_are_repeated_or_deep_inside_whatever_the_coordinates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", 64)
    generator = torch.Generator().manual_seed(5)
    g = torch.randn(300, 5, generator=generator)
    g[[10, 20]] *= torch.tensor([[0.01], [0.1]])
    g[40] = g[250]
    g = g @ torch.diag(10.0 ** torch.arange(5)) + 3
    answers = doubtful_winners(g, 5, asked=[[99], [40, 250]])
    assert [answer.labels for answer in answers] == [(10,), (20,), (40,), (40, 250), (99,), (250,)]
    pair, single = (can_be_top(g, labels).feasible for labels in ([40, 250], [99]))
    assert [answer.feasible for answer in answers] == [False, False, False, pair, single, False]
    assert [answer.labels for answer in doubtful_winners(g, 0, asked=[[7], [3]])] == [(3,), (7,)]
    assert doubtful_winners(g, 0) == []
    assert len(doubtful_winners(g, 1000)) == 300


@pytest.mark.parametrize("labels", [[], [0, 0], [3], [-1], [0, 1, 2]])
def test_sets_that_are_none_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="some but not all of the labels 0 to 2"):
        can_be_top(torch.eye(3), labels)
