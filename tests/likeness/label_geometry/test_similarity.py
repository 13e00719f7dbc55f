"""The three similarities of labels, against numpy, and what changes them and what does not."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likeness.label_geometry.equivalent_heads import transformed
from likeness.label_geometry.similarity import (
    LabelMetric,
    centred_similarity,
    co_probability,
    covariance_factor,
    logit_correlation,
    raw_similarity,
    row_blocks,
    summarise_head,
)
from tests.likeness.label_geometry.paper_heads import centred_head, fixed_length_head

seeds = st.integers(0, 2**31)


def random_head(seed: int, samples: int = 200, labels: int = 7, dim: int = 3) -> tuple[Tensor, Tensor]:
    """Features [N, M] with a covariance of their own, and unembeddings [K, M] away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing, f = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((dim, dim), (samples, dim))
    )
    return f @ mixing + 3, torch.randn(labels, dim, generator=generator, dtype=torch.float64) + 1


def test_raw_and_centred_similarity_are_numpys_cosines() -> None:
    _, g = random_head(0)
    for found, rows in ((raw_similarity(g), g.numpy()), (centred_similarity(g), (g - g.mean(0)).numpy())):
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        torch.testing.assert_close(found, torch.from_numpy(units @ units.T), rtol=0, atol=1e-14)


@settings(max_examples=40)
@given(seeds)
def test_logit_correlation_is_numpys_correlation_of_centred_logits(seed: int) -> None:
    f, g = random_head(seed)
    logits = f @ g.T
    expected = np.corrcoef((logits - logits.mean(1, keepdim=True)).numpy(), rowvar=False)
    torch.testing.assert_close(logit_correlation(g, f.T.cov()), torch.from_numpy(expected), rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(seeds)
def test_only_the_logit_correlation_is_invariant(seed: int) -> None:
    f, g = random_head(seed)
    generator = torch.Generator().manual_seed(seed)
    matrix, shift = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 3), (1, 3)))
    new_f, new_g = transformed(f, g, matrix + 2 * torch.eye(3, dtype=torch.float64))
    invariant = logit_correlation(g, f.T.cov())
    condition = float(torch.linalg.cond(matrix + 2 * torch.eye(3, dtype=torch.float64)))
    found = logit_correlation(new_g + 5 * shift, new_f.T.cov())
    torch.testing.assert_close(found, invariant, rtol=0, atol=1e-13 * condition**2)
    torch.testing.assert_close(centred_similarity(g + shift), centred_similarity(g), rtol=0, atol=1e-12)
    assert (raw_similarity(g + 5 * shift) - raw_similarity(g)).abs().max() > 1e-2
    assert (centred_similarity(new_g) - centred_similarity(g)).abs().max() > 1e-2


def test_the_papers_cosines() -> None:
    similarity = centred_similarity(centred_head())
    torch.testing.assert_close(raw_similarity(centred_head()), similarity)
    found = [float(similarity[i, j]) for i, j in ((0, 1), (1, 2), (2, 4))]
    assert found == pytest.approx([0.324, -0.58, 0.8], abs=0.01)
    assert found[0] == pytest.approx(0.324, abs=5e-4)
    fixed = centred_similarity(fixed_length_head())
    assert [float(fixed[0, 1]), float(fixed[1, 3])] == pytest.approx([-0.805, 0.805], abs=1e-12)
    torch.testing.assert_close(fixed_length_head().norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_labels_without_a_direction_are_undefined_and_nothing_else_is() -> None:
    g = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    assert raw_similarity(g)[0].isnan().all()
    assert not raw_similarity(g)[1:, 1:].isnan().any()
    assert raw_similarity(torch.zeros(3, 2)).isnan().all()
    shifted = g + 100  # label 0 is the mean, up to rounding
    assert centred_similarity(shifted)[0].isnan().all()
    flat = torch.diag(torch.tensor([1.0, 0.0]))  # f never moves along the second coordinate
    correlation = logit_correlation(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]), flat)
    assert correlation[2].isnan().all()
    torch.testing.assert_close(correlation[:2, :2], torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-307, 1e-200, 1e-13, 1e-8, 1e13, 1e150, 1e300])
def test_no_scale_matters(scale: float) -> None:
    f, g = random_head(8)
    covariance = f.T.cov()
    torch.testing.assert_close(raw_similarity(scale * g), raw_similarity(g), rtol=0, atol=1e-12)
    torch.testing.assert_close(centred_similarity(scale * g), centred_similarity(g), rtol=0, atol=1e-12)
    correlation = logit_correlation(g, covariance)
    torch.testing.assert_close(logit_correlation(scale * g, covariance), correlation, rtol=0, atol=1e-12)
    torch.testing.assert_close(logit_correlation(g, scale * covariance), correlation, rtol=0, atol=1e-12)


@given(st.lists(st.integers(-300, 300), min_size=7, max_size=7))
def test_every_row_may_have_a_length_of_its_own(exponents: list[int]) -> None:
    _, g = random_head(9)
    scales = torch.tensor([10.0**exponent for exponent in exponents], dtype=torch.float64)
    torch.testing.assert_close(raw_similarity(scales[:, None] * g), raw_similarity(g), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1e8, 1e-3), (1e3, 1e-10), (0.0, 1e-100)])
def test_the_spread_is_right_far_from_the_origin(offset: float, spread: float) -> None:
    g = offset + spread * random_head(10, labels=20)[1]
    exact = [[Fraction(float(x)) for x in row] for row in g]
    mean = [sum(column) / 20 for column in zip(*exact, strict=True)]
    squares = sum((x - m) ** 2 for row in exact for x, m in zip(row, mean, strict=True))
    assert summarise_head(g).spread == pytest.approx(float(squares / 20) ** 0.5, rel=1e-6 + 1e-15 * offset / spread)


def test_siblings_are_measured_at_once() -> None:
    heads = [random_head(seed) for seed in range(4)]
    f, g = (torch.stack(tensors) for tensors in zip(*heads, strict=True))
    covariances = torch.stack([member.T.cov() for member in f])
    for batched, single in (
        (raw_similarity(g), [raw_similarity(member) for member in g]),
        (centred_similarity(g), [centred_similarity(member) for member in g]),
        (logit_correlation(g, covariances), [logit_correlation(*pair) for pair in zip(g, covariances, strict=True)]),
    ):
        torch.testing.assert_close(batched, torch.stack(single), rtol=0, atol=1e-13)


def test_bfloat16_is_measured_in_float64() -> None:
    g = random_head(1)[1].bfloat16()
    assert raw_similarity(g).dtype == torch.float64
    torch.testing.assert_close(raw_similarity(g), raw_similarity(g.double()))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.zeros(2, 3), r"square matrix, got \[2, 3\]"),
        (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "not finite"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (torch.diag(torch.tensor([1.0, -0.5])), "negative eigenvalue, -0.5"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        covariance_factor(covariance)


def test_a_covariance_of_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[4, 4\], but the label vectors have 3 dimensions"):
        LabelMetric.invariant(torch.zeros(3), torch.eye(4))


def test_co_probability_is_one_for_proportional_labels_and_zero_for_exclusive_ones() -> None:
    p = torch.tensor([[0.2, 0.4, 0.4, 0.0], [0.1, 0.2, 0.0, 0.7]], dtype=torch.float64)
    together = co_probability(p.T @ p)
    torch.testing.assert_close(together[0, 1], torch.tensor(1.0, dtype=torch.float64))
    assert together[2, 3] == 0
    assert co_probability(torch.zeros(2, 2)).isnan().all()


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_gauge_report_is_that_of_the_singular_values(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", rows_at_a_time * 4)
    g = random_head(2, labels=10, dim=4)[1] + 50
    assert len(row_blocks(g.shape)) == -(-10 // rows_at_a_time)
    report = summarise_head(g)
    singular = torch.linalg.svdvals(g - g.mean(0))
    assert (report.labels, report.dim, report.rank) == (10, 4, 4)
    assert report.condition == pytest.approx(float(singular[0] / singular[-1]), rel=1e-10)
    assert report.mean_ratio == pytest.approx(float(g.mean(0).norm() / g.norm(dim=1).mean()))
    torch.testing.assert_close(report.mean, g.mean(0))


def test_of_many_labels_in_many_dimensions_some_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness.label_geometry.similarity._BLOCK", 7 * 3)
    monkeypatch.setattr("likeness.label_geometry.similarity._MAX_WORK", 100 * 9 // 5)
    g = random_head(3, labels=100, dim=3)[1]
    report = summarise_head(g)
    singular = torch.linalg.svdvals(g[::5] - g[::5].mean(0))
    assert (report.judged, report.rank) == (20, 3)
    assert report.condition == pytest.approx(float(singular[0] / singular[-1]), rel=1e-10)
    torch.testing.assert_close(report.mean, g.mean(0))
    assert report.spread == pytest.approx(float((g - g.mean(0)).square().sum(1).mean().sqrt()))
    assert report.mean_ratio == pytest.approx(float(g.mean(0).norm() / g.norm(dim=1).mean()))


def test_gauge_report_of_labels_that_do_not_span() -> None:
    assert summarise_head(torch.eye(3)).rank == 2  # three labels differ in two directions
    assert summarise_head(torch.ones(4, 3)).rank == 0
    assert summarise_head(torch.ones(4, 3)).mean_ratio == pytest.approx(1)


def test_a_label_vector_that_is_not_finite_is_named() -> None:
    g = torch.ones(5, 2)
    g[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"label 3 is not finite: nan \(1 such labels\)"):
        summarise_head(g)
