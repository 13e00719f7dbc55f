"""The losses against a teacher's logits: what they are, what they are blind to, and their gradients."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from likeness.losses import LOSSES, LossName, distillation_loss, kl, l1, l2
from likeness.similarity.comparison import compare_softmax_models
from likeness.similarity.logit_distance import d_logit_squared

seeds, scales = st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 30.0])


def logits(seed: int, scale: float = 1.0, samples: int = 7, labels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Those of a teacher and of a student, in float64."""
    generator = torch.Generator().manual_seed(seed)
    teacher, student = scale * torch.randn(2, samples, labels, generator=generator, dtype=torch.float64)
    return teacher, student


@given(seeds, scales)
def test_losses_are_the_papers(seed: int, scale: float) -> None:
    teacher, student = logits(seed, scale)
    t, s = teacher.numpy(), student.numpy()
    divergence = rel_entr(softmax(t, axis=1), softmax(s, axis=1)).sum(1).mean()
    np.testing.assert_allclose(kl(teacher, student), divergence, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(l1(teacher, student), np.abs(t - s).sum() / t.size, rtol=1e-12)
    np.testing.assert_allclose(l2(teacher, student), np.linalg.norm(t - s) ** 2 / len(t), rtol=1e-12)


def test_d_logit_is_the_measure() -> None:
    generator = torch.Generator().manual_seed(0)
    f1, f2 = torch.randn(2, 50, 2, generator=generator, dtype=torch.float64)
    g1, g2 = torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    loss = distillation_loss("d_logit")
    assert loss is d_logit_squared
    assert float(loss(f1 @ g1.T, f2 @ g2.T).sqrt()) == pytest.approx(
        compare_softmax_models(f1, g1, f2, g2).d_logit, rel=1e-12
    )


@pytest.mark.parametrize("name", LOSSES)
@given(seed=seeds, scale=scales)
def test_zero_for_equal_predictions_and_only_for_those(name: LossName, seed: int, scale: float) -> None:
    teacher, student = logits(seed, scale)
    loss = distillation_loss(name)
    assert float(loss(teacher, teacher)) == 0
    assert float(loss(teacher, student)) > 0


@pytest.mark.parametrize(("name", "blind"), [("kl", True), ("d_logit", True), ("l1", False), ("l2", False)])
def test_a_shift_that_softmax_ignores(name: LossName, blind: bool) -> None:
    teacher, student = logits(0)
    shift, loss = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None], distillation_loss(name)
    torch.testing.assert_close(loss(teacher + shift, student + shift), loss(teacher, student), rtol=1e-12, atol=0)
    shifted = loss(teacher, teacher + shift)
    assert float(shifted) == pytest.approx(0, abs=1e-14) if blind else float(shifted) > 1


@given(seeds, scales)
def test_l2_bounds_the_logit_distance(seed: int, scale: float) -> None:
    teacher, student = logits(seed, scale)
    assert float(d_logit_squared(teacher, student)) <= float(l2(teacher, student)) * (1 + 1e-12)


def gradient(name: LossName, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    student = student.clone().requires_grad_()
    distillation_loss(name)(teacher, student).backward()
    assert student.grad is not None
    return student.grad


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e4])
def test_gradients_are_finite_however_confident_the_models(name: LossName, scale: float) -> None:
    teacher, student = (scale * x for x in logits(0))
    for dtype in (torch.float32, torch.float64):
        assert gradient(name, teacher.to(dtype), student.to(dtype)).isfinite().all()
        assert torch.equal(gradient(name, teacher.to(dtype), teacher.to(dtype)).abs() < 1e-6, torch.ones(7, 4) > 0)


@given(seeds)
def test_gradients_in_closed_form(seed: int) -> None:
    teacher, student = logits(seed)
    difference = student - teacher
    centred = difference - difference.mean(1, keepdim=True)
    expected = {
        "kl": (student.softmax(1) - teacher.softmax(1)) / 7,
        "l1": difference.sign() / 28,
        "l2": 2 * difference / 7,
        "d_logit": 2 * centred / 7,
    }
    for name in LOSSES:
        torch.testing.assert_close(gradient(name, teacher, student), expected[name], rtol=1e-9, atol=1e-12)


def test_unknown_losses_are_named() -> None:
    assert get_args(LossName) == tuple(LOSSES)
    unknown: Any = "mse"
    with pytest.raises(ValueError, match=r"unknown distillation loss 'mse': the known ones are kl, l1, l2, d_logit"):
        distillation_loss(unknown)
