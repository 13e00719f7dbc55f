"""Sign patterns and rankings against brute-force sampling, the generic counts and the paper's counter-example."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from likeness.label_geometry.patterns import (
    TooManyPatternsError,
    chirotope,
    differences,
    generic_ranking_count,
    generic_regions,
    generic_sign_count,
    rankings,
    regions,
    same_ranking_pattern,
    same_sign_pattern,
    sign_patterns,
    stirling,
    vectors_of_gram,
)
from likeness.label_geometry.similarity import raw_similarity
from tests.likeness.label_geometry.paper_heads import same_signs_other_rankings

COUNTS = [(4, 2, 8, 12), (5, 2, 10, 20), (5, 3, 22, 72), (6, 3, 32, 172)]
LARGE_REGIONS = {(4, 2): 0, (5, 2): 0, (5, 3): 3, (6, 3): 173}  # seeds of heads without regions that samples miss


def head(seed: int, labels: int, dim: int) -> Tensor:
    return torch.randn(labels, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_set(patterns: Tensor) -> set[tuple[int, ...]]:
    return {tuple(row) for row in patterns.tolist()}


def sampled_logits(g: Tensor, bias: Tensor | float = 0.0, samples: int = 30_000) -> Tensor:
    x = torch.randn(samples, g.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    length = torch.rand(samples, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (x * 100 ** (2 * length - 1)) @ g.T + bias


@pytest.mark.parametrize(("labels", "dim", "signs", "orders"), COUNTS)
def test_generic_heads_have_the_generic_counts(labels: int, dim: int, signs: int, orders: int) -> None:
    g = head(labels * dim, labels, dim)
    assert (len(sign_patterns(g)), generic_sign_count(labels, dim)) == (signs, signs)
    assert (len(rankings(g)), generic_ranking_count(labels, dim)) == (orders, orders)


@pytest.mark.parametrize(("labels", "dim", "signs", "orders"), COUNTS)
def test_patterns_are_those_that_sampling_finds(labels: int, dim: int, signs: int, orders: int) -> None:
    g = head(LARGE_REGIONS[labels, dim], labels, dim)
    logits = sampled_logits(g)
    assert as_set(sign_patterns(g)) >= as_set(logits.sign().to(torch.int8).unique(dim=0))
    assert as_set(rankings(g)) >= as_set(logits.argsort(dim=1).unique(dim=0))
    assert len(logits.sign().unique(dim=0)) == signs
    assert len(logits.argsort(dim=1).unique(dim=0)) == orders


@pytest.mark.parametrize(("labels", "dim", "seed"), [(3, 1, 7), (4, 2, 7), (5, 2, 11), (4, 3, 11)])
def test_patterns_with_a_bias(labels: int, dim: int, seed: int) -> None:
    g, bias = head(seed, labels, dim), head(seed + 1, labels, 1).squeeze(1)
    logits = sampled_logits(g, bias)
    signs, orders = sign_patterns(g, bias), rankings(g, bias)
    assert len(signs) == generic_sign_count(labels, dim, bias=True)
    assert len(orders) == generic_ranking_count(labels, dim, bias=True)
    assert as_set(signs) == as_set(logits.sign().to(torch.int8).unique(dim=0))
    assert as_set(orders) == as_set(logits.argsort(dim=1).unique(dim=0))


def test_covers_recurrence() -> None:
    def cover(n: int, d: int) -> int:
        if n == 1:
            return 1
        return 2 if d == 1 else cover(n - 1, d) + (n - 1) * cover(n - 1, d - 1)

    for n in range(1, 9):
        assert [generic_ranking_count(n, d) for d in range(1, 10)] == [cover(n, d) for d in range(1, 10)]
        assert generic_ranking_count(n, n) == math.factorial(n)
    assert [stirling(4, k) for k in range(5)] == [0, 6, 11, 6, 1]
    assert generic_sign_count(3, 9) == 8


def test_enough_dimensions_allow_every_ranking() -> None:
    assert as_set(rankings(head(0, 4, 6))) == set(permutations(range(4)))


def test_repeated_opposite_and_zero_vectors_cut_nothing_more() -> None:
    g = head(3, 4, 3)
    more = torch.cat([g, 2 * g[:1], -g[1:2], torch.zeros(1, 3)])
    assert len(regions(more)) == len(regions(g)) == generic_regions(4, 3)
    assert len(rankings(torch.cat([g, g[:1]]))) == len(rankings(g))
    assert len(regions(torch.zeros(2, 3))) == 1


@pytest.mark.parametrize("small", [1e-5, 1e-9, 1e-13, 1e-200])
def test_no_row_is_too_short(small: float) -> None:
    g = head(1, 5, 3)
    g[:2] *= small
    patterns = sign_patterns(g)
    assert as_set(patterns) == as_set(sign_patterns(head(1, 5, 3)))
    assert len(patterns) == 22
    bias = head(2, 5, 1)[:, 0]
    lengths = torch.tensor([small, small, 1, 1, 1], dtype=torch.float64)
    assert as_set(sign_patterns(g, lengths * bias)) == as_set(sign_patterns(head(1, 5, 3), bias))


@pytest.mark.parametrize("small", [1e-3, 1e-5, 1e-7, 1e-9, 1e-12])
def test_rankings_of_two_short_rows_are_all_there_and_once_each(small: float) -> None:
    g = head(2, 5, 3)
    g[:2] *= small
    try:
        orders = rankings(g)
    except ArithmeticError:  # said, not counted twice
        assert small < 1e-6
        return
    assert len(orders) == len(as_set(orders)) == 72


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 3), st.booleans())
def test_rankings_are_the_orders_that_linear_programming_finds(seed: int, labels: int, dim: int, biased: bool) -> None:
    """Labels that coincide, lie on lines and planes: each order tried for an x by linear programming of its own."""
    generator = torch.Generator().manual_seed(seed)
    g = torch.randint(-2, 3, (labels, dim), generator=generator).double()
    bias = torch.randint(-1, 2, (labels,), generator=generator).double() if biased else None
    orders = rankings(g, bias)
    assert len(orders) == len(as_set(orders))
    rows = g if bias is None else torch.column_stack([g, bias])
    groups, inverse = rows.unique(dim=0, return_inverse=True)
    found = {tuple(dict.fromkeys(inverse[list(order)].tolist())) for order in orders.tolist()}
    possible = {order for order in permutations(range(len(groups))) if is_possible(groups, order, biased)}
    assert found == possible


def is_possible(rows: Tensor, order: tuple[int, ...], biased: bool) -> bool:
    """Whether some x ranks the distinct rows [n, d] in this order, ascending; a bias is the last column."""
    ordered = rows[list(order)]
    smaller = (ordered[:-1] - ordered[1:]).numpy()
    if biased:
        smaller = np.concatenate([smaller, -np.eye(rows.shape[1])[-1:]])
    result = linprog(np.zeros(rows.shape[1]), smaller, -np.ones(len(smaller)), bounds=(None, None))
    return bool(result.status == 0)


def test_repeated_labels_add_no_ranking() -> None:
    g = head(5, 4, 2)
    more = torch.cat([g, g[1:3], g[1:2]])
    assert len(rankings(g)) == len(rankings(more)) == len(as_set(rankings(more))) == 12
    assert len(sign_patterns(more)) == len(sign_patterns(g)) == len(as_set(sign_patterns(more)))


def test_one_label_and_equal_labels_have_one_ranking() -> None:
    assert rankings(torch.ones(1, 3)).tolist() == [[0]]
    assert rankings(torch.ones(3, 2)).tolist() == [[0, 1, 2]]
    assert rankings(torch.ones(2, 2), torch.tensor([1.0, 0.0])).tolist() == [[1, 0]]
    assert as_set(sign_patterns(torch.ones(1, 3))) == {(1,), (-1,)}


def test_labels_on_a_line_have_two_rankings_in_any_dimension() -> None:
    line = torch.tensor([1.0, 2.0, 4.0]).outer(torch.tensor([1.0, -1.0, 2.0, 0.0]))
    assert as_set(rankings(line)) == {(0, 1, 2), (2, 1, 0)}


def test_every_region_has_its_point_well_inside() -> None:
    normals = head(11, 8, 4)
    points = regions(normals)
    assert (points @ normals.T).abs().min() > 1e-6


def test_the_papers_counter_example() -> None:
    first, second = same_signs_other_rankings()
    assert as_set(sign_patterns(first)) == as_set(sign_patterns(second))
    assert len(sign_patterns(first)) == 20
    assert same_sign_pattern(first, second)
    assert not same_ranking_pattern(first, second)
    one, other = as_set(rankings(first) + 1), as_set(rankings(second) + 1)
    assert one - other == {(5, 2, 3, 1, 4), (4, 1, 3, 2, 5)}
    assert other - one == {(1, 4, 3, 5, 2), (2, 5, 3, 4, 1)}
    ours, theirs = (chirotope(differences(head)) for head in (first, second))
    assert int((ours * theirs == -1).sum()) == 1


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_equal_minor_signs_mean_equal_patterns(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(-2, 3, (4, 2), generator=generator).double() for _ in range(2))
    if not (first.any(1).all() and second.any(1).all()):
        return  # a zero vector's sign is always zero: the sets of regions know nothing of it
    if torch.linalg.matrix_rank(first) < 2 or torch.linalg.matrix_rank(second) < 2:
        return
    assert same_sign_pattern(first, second) == (as_set(sign_patterns(first)) == as_set(sign_patterns(second)))


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_cosines_determine_the_sign_pattern(seed: int) -> None:
    g = head(seed, 6, 3)
    lengths = torch.rand(6, 1, generator=torch.Generator().manual_seed(seed)) + 0.1
    rebuilt = vectors_of_gram(raw_similarity(lengths * g))
    assert rebuilt.shape == (6, 3)
    assert same_sign_pattern(g, rebuilt, zero=1e-7)
    # Rankings need the cosines of all differences.
    rebuilt = vectors_of_gram(raw_similarity(differences(g)))
    assert torch.equal(chirotope(rebuilt, 1e-7), chirotope(differences(g), 1e-7))


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_patterns_do_not_depend_on_the_gauge(seed: int) -> None:
    g = head(seed, 5, 3)
    moved = g @ head(seed + 1, 3, 3) + head(seed + 2, 1, 3)
    assert same_sign_pattern(g, g @ head(seed + 1, 3, 3))
    assert same_ranking_pattern(g, moved)
    assert as_set(rankings(g)) == as_set(rankings(moved))


def test_the_zero_threshold_is_relative() -> None:
    """Tiny vectors in general position have no zero minor; long ones in one plane have only zero minors there."""
    tiny = 1e-6 * head(0, 5, 3)
    assert (chirotope(tiny) != 0).all()
    plane = 1e6 * torch.cat([head(1, 3, 2) @ head(2, 2, 3), head(3, 1, 3)])
    subsets = list(combinations(range(4), 3))
    assert [int(sign) == 0 for sign in chirotope(plane)] == [subset == (0, 1, 2) for subset in subsets]


def test_enumerations_are_capped_and_say_so() -> None:
    with pytest.raises(TooManyPatternsError, match=r"40 hyperplanes in 10 dimensions have up to .* at most 100,000"):
        sign_patterns(head(0, 40, 10))
    with pytest.raises(TooManyPatternsError, match=r"60 rows of rank 10 have 75,394,027,566 maximal minors"):
        chirotope(head(0, 60, 10))


def test_heads_of_different_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 2\] and \[5, 2\]"):
        same_sign_pattern(head(0, 4, 2), head(0, 5, 2))
