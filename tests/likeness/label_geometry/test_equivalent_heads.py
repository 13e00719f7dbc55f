"""Any angle between labels at no change of probability; the formulas of the paper and the derived ones."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from likeness.label_geometry.equivalent_heads import (
    equivalent_head,
    linear_map_to_cosine,
    log_probability_change,
    transformed,
    translation_on_line,
    translation_to_cosine,
)
from likeness.label_geometry.similarity import centred_similarity, raw_similarity

seeds = st.integers(0, 2**31)


def random_head(seed: int, dim: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f, g, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((50, dim), (7, dim), (7,))
    )
    return f, g + 1, bias


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


@given(seeds, st.integers(2, 6), st.floats(-1, 1), st.booleans())
def test_any_cosine_at_equal_probabilities(seed: int, dim: int, wanted: float, biased: bool) -> None:
    f, g, bias = random_head(seed, dim)
    offset = bias if biased else None
    head = equivalent_head(f, g, pair=(2, 5), cosine=wanted, bias=offset)
    new_g = g + head.translation
    assert head.cosine == pytest.approx(wanted, abs=1e-7 if abs(wanted) > 1 - 1e-9 else 1e-10)
    assert cosine(new_g[2], new_g[5]) == pytest.approx(head.cosine, abs=1e-12)
    # Towards 1 the vectors grow without bound, and with them the rounding of the logits.
    rounding = 1e-13 * (1 + float(head.translation.norm()))
    assert head.log_probability_change <= rounding
    assert float(log_probability_change(f, g, f, new_g, offset)) <= rounding
    assert head.logit_change == pytest.approx(float((f @ head.translation).abs().max()), rel=1e-6)


def test_heads_are_checked_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    f, g, bias = random_head(1)
    whole = [equivalent_head(f, g, (0, 1), cosine, bias) for cosine in (-1, 0.2, 1)]
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", 6)
    for one, cosine in zip(whole, (-1, 0.2, 1), strict=True):
        other = equivalent_head(f, g, (0, 1), cosine, bias)
        assert one.cosine == other.cosine
        assert other.logit_change == pytest.approx(one.logit_change)
        assert other.log_probability_change < 1e-12


def test_lemmas_2_2_and_2_3() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, -1.0, 1.0])
    torch.testing.assert_close(translation_to_cosine(a, b, -1), (-(a + b) / 2).double())
    torch.testing.assert_close(translation_to_cosine(a, b, 1), ((b - 3 * a) / 2).double())


@pytest.mark.parametrize(("t", "expected"), [(-0.9, -1), (-0.1, -1), (0.2, 1), (30, 1), (-1.1, 1), (-7, 1)])
def test_cosines_on_the_line(t: float, expected: float) -> None:
    _, g, _ = random_head(0)
    v = translation_on_line(g[0], g[1], t)
    assert cosine(g[0] + v, g[1] + v) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("t", [0, -1])
def test_a_zero_vector_on_the_line_is_refused(t: float) -> None:
    with pytest.raises(ValueError, match="zero vector is undefined"):
        translation_on_line(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), t)


def test_the_translation_is_the_shortest_of_the_derived_family() -> None:
    _, g, _ = random_head(4)
    a, b = g[0], g[1]
    v = translation_to_cosine(a, b, 0.3)
    middle, half = (a + b) / 2, (b - a).norm() / 2
    normals = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normals = torch.nn.functional.normalize(normals - (normals @ (b - a)).outer(b - a) / (b - a).square().sum(), dim=1)
    others = -middle + half * math.sqrt(1.3 / 0.7) * normals
    assert (v.norm() <= others.norm(dim=1) + 1e-12).all()


def test_labels_opposite_or_in_line_have_a_normal_too() -> None:
    for b in (torch.tensor([-1.0, 0.0]), torch.tensor([3.0, 0.0])):  # the middle lies on the line of a and b
        a = torch.tensor([1.0, 0.0])
        v = translation_to_cosine(a, b, 0.5)
        assert cosine(a + v, b + v) == pytest.approx(0.5)


@pytest.mark.parametrize("wanted", [-1.001, 1.5, math.nan])
def test_impossible_cosines_are_refused(wanted: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\], got"):
        translation_to_cosine(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), wanted)


def test_equal_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="the same vector"):
        translation_to_cosine(torch.ones(2), torch.ones(2), 0.5)


def test_one_dimension_allows_only_minus_one_and_one() -> None:
    a, b = torch.tensor([1.0]), torch.tensor([4.0])
    for wanted in (-1, 1):
        v = translation_to_cosine(a, b, wanted)
        assert cosine(a + v, b + v) == wanted
    with pytest.raises(ValueError, match="M = 1"):
        translation_to_cosine(a, b, 0.5)


@given(seeds, st.floats(-0.999, 0.999))
def test_a_linear_map_moves_the_centred_cosine_at_equal_probabilities(seed: int, wanted: float) -> None:
    f, g, bias = random_head(seed)
    before = float(centred_similarity(g)[1, 4])
    assume(abs(before) < 0.999)
    matrix = linear_map_to_cosine(g, 1, 4, wanted)
    new_f, new_g = transformed(f, g, matrix)
    assert float(centred_similarity(new_g)[1, 4]) == pytest.approx(wanted, abs=1e-9)
    assert float(log_probability_change(f, g, new_f, new_g, bias)) < 1e-8
    centred, moved = g - g.mean(0), new_g - new_g.mean(0)
    torch.testing.assert_close(moved[[1, 4]].norm(dim=1), centred[[1, 4]].norm(dim=1), rtol=1e-9, atol=0)
    assert cosine(moved[1], centred[1]) == pytest.approx(1)


def test_asking_for_the_cosine_it_has_changes_nothing() -> None:
    _, g, _ = random_head(3)
    matrix = linear_map_to_cosine(g, 0, 6, float(centred_similarity(g)[0, 6]))
    torch.testing.assert_close(matrix, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-10)


def test_parallel_centred_labels_are_refused() -> None:
    g = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    with pytest.raises(ValueError, match="labels 0 and 1 are parallel"):
        linear_map_to_cosine(g, 0, 1, 0.5)
    with pytest.raises(ValueError, match=r"must lie in \(-1, 1\), got 1"):
        linear_map_to_cosine(g, 0, 2, 1)


def test_centring_fixes_the_translation_only() -> None:
    """Two heads with one set of probabilities, whose centred cosines differ by up to 1.9."""
    f, g, _ = random_head(5)
    near, far = (transformed(f, g, linear_map_to_cosine(g, 0, 1, c)) for c in (0.95, -0.95))
    assert float(log_probability_change(*near, *far)) < 1e-11
    assert float(centred_similarity(near[1])[0, 1] - centred_similarity(far[1])[0, 1]) == pytest.approx(1.9)
    assert not torch.allclose(raw_similarity(near[1]), raw_similarity(far[1]), atol=0.1)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-13, 1e-9, 1e9, 1e150, 1e300])
@pytest.mark.parametrize("wanted", [-1.0, -0.3, 0.0, 0.7, 1.0])
def test_no_scale_of_the_label_vectors_matters(scale: float, wanted: float) -> None:
    f, g, _ = random_head(7)
    head = equivalent_head(f / scale, scale * g, pair=(0, 3), cosine=wanted)
    a, b = ((scale * g[label] + head.translation) / scale for label in (0, 3))
    assert cosine(a, b) == pytest.approx(wanted, abs=1e-12)
    assert head.cosine == pytest.approx(wanted, abs=1e-12)
    assert head.log_probability_change < 1e-11
    matrix = linear_map_to_cosine(scale * g, 0, 3, 0.25)
    torch.testing.assert_close(matrix, linear_map_to_cosine(g, 0, 3, 0.25), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("tiny", [1e-5, 1e-11, 1e-15, 1e-17])
def test_the_middle_of_nearly_opposite_labels_may_be_short(tiny: float) -> None:
    a, b = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([-1.0, tiny], dtype=torch.float64)
    v = translation_to_cosine(a, b, 0.5)
    assert cosine(a + v, b + v) == pytest.approx(0.5, abs=1e-9)


def test_a_label_at_the_mean_has_no_centred_cosine() -> None:
    g = torch.tensor([[0.1, 0.1], [1.1, 0.1], [-0.9, 0.1], [0.1, 1.1], [0.1, -0.9]], dtype=torch.float64)
    with pytest.raises(ValueError, match="label 0 stands at the mean"):
        linear_map_to_cosine(g, 0, 1, 0.5)


def test_a_different_head_is_not_called_equivalent() -> None:
    f, g, _ = random_head(6)
    assert float(log_probability_change(f, g, f, 1.01 * g)) > 1e-3
