"""Divergences against scipy, closed forms and arithmetic with fifty digits."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import Tensor

from likeness.similarity.predictions import (
    is_correct,
    jensen_shannon,
    kl,
    log_probabilities,
    nll,
    predictions,
    total_variation,
)


def random_models(models: int = 3, samples: int = 50, labels: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(models, samples, labels, generator=generator, dtype=torch.float64)).log_softmax(-1)


def kl_with_fifty_digits(logits_p: Tensor, logits_q: Tensor) -> float:
    with mpmath.workdps(50):
        p, q = ([mpmath.exp(mpmath.mpf(value)) for value in logits.tolist()] for logits in (logits_p, logits_q))
        total_p, total_q = mpmath.fsum(p), mpmath.fsum(q)
        terms = [a / total_p * mpmath.log(a / total_p / (b / total_q)) for a, b in zip(p, q, strict=True)]
        return float(mpmath.fsum(terms))


def test_against_scipy() -> None:
    log_p, log_q, _ = random_models()
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    np.testing.assert_allclose(kl(log_p, log_q), entropy(p, q, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(jensen_shannon(log_p, log_q), jensenshannon(p, q, axis=-1) ** 2, rtol=1e-10)
    np.testing.assert_allclose(total_variation(log_p, log_q), np.abs(p - q).sum(-1) / 2, rtol=1e-12)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
def test_kl_between_nearly_equal_models(distance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(2, 10, generator=generator, dtype=torch.float64)
    logits[1] = logits[0] + distance * torch.randn(10, generator=generator, dtype=torch.float64)
    exact = kl_with_fifty_digits(*logits)
    log_p = logits.log_softmax(-1)
    # What is left is the rounding of the log-probabilities themselves, about 1e-15 beside ``distance``.
    assert float(kl(*log_p)) == pytest.approx(exact, rel=1e-14 / distance + 1e-12)
    f, g = torch.ones(1, 1, dtype=torch.float64), [x[:, None] for x in logits]
    assert float(predictions([f, f], g).kl[0, 1]) == pytest.approx(exact, rel=1e-14 / distance + 1e-12)


def test_two_labels_in_closed_form() -> None:
    log_p, log_q = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    assert float(kl(log_p, log_q)) == pytest.approx(math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(total_variation(log_p, log_q)) == 0.25


def test_certain_and_opposite_models() -> None:
    log_p = torch.tensor([[0.0, 1e4, 0.0], [1e4, 0.0, 0.0]], dtype=torch.float64).log_softmax(-1)
    assert float(kl(*log_p)) == 1e4
    assert float(jensen_shannon(*log_p)) == pytest.approx(math.log(2))
    assert float(total_variation(*log_p)) == 1
    impossible = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64).log()
    assert float(kl(impossible[1], impossible[0])) == pytest.approx(math.log(2))
    assert float(kl(*impossible)) == math.inf
    assert float(total_variation(*impossible)) == 0.5
    assert 0 < float(jensen_shannon(*impossible)) < math.log(2)


@given(seed=st.integers(0, 10**6), scale=st.floats(0, 30))
def test_ranges_and_symmetry(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_p, log_q = (scale * torch.randn(2, 20, 5, generator=generator, dtype=torch.float64)).log_softmax(-1)
    assert (kl(log_p, log_q) >= 0).all()
    divergence, distance = jensen_shannon(log_p, log_q), total_variation(log_p, log_q)
    assert ((divergence >= 0) & (divergence <= math.log(2) + 1e-12)).all()
    assert ((distance >= 0) & (distance <= 1 + 1e-12)).all()
    torch.testing.assert_close(divergence, jensen_shannon(log_q, log_p), rtol=1e-9, atol=1e-15)
    assert (2 * distance**2 <= kl(log_p, log_q) + 1e-12).all()  # Pinsker


def test_models_of_different_dimension() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = [torch.randn(6, dim, generator=generator) for dim in (2, 4)]
    unembeddings = [torch.randn(5, dim, generator=generator) for dim in (2, 4)]
    log_p = log_probabilities(embeddings, unembeddings)
    assert log_p.dtype == torch.float64
    assert log_p.shape == (2, 6, 5)
    torch.testing.assert_close(
        log_p[1].float(), torch.log_softmax(embeddings[1] @ unembeddings[1].T, -1), rtol=1e-5, atol=1e-6
    )


def test_nll_and_accuracy() -> None:
    log_p, y = random_models(), torch.arange(50) % 7
    expected = torch.nn.functional.nll_loss(log_p.transpose(1, 2), y.expand(3, 50), reduction="none")
    torch.testing.assert_close(nll(log_p, y), expected)
    assert torch.equal(is_correct(log_p, y)[1], log_p[1].argmax(-1) == y)


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-16, 1e-50, 1e-100])
def test_divergences_of_tiny_logits(scale: float) -> None:
    """With two hundred digits; nothing is lost beside log K, nor in the differences of nearly equal probabilities."""
    generator = torch.Generator().manual_seed(2)
    f = [scale * torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    g = [torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2)]
    found = predictions(f, g)
    with mpmath.workdps(250):
        p, q = ([_softmax(row, head) for row in x.tolist()] for x, head in zip(f, g, strict=True))
        pairs = [(a, b) for x, y in zip(p, q, strict=True) for a, b in zip(x, y, strict=True)]
        exact_kl = mpmath.fsum(a * mpmath.log(a / b) for a, b in pairs) / 3
        exact_js = mpmath.fsum(a * mpmath.log(2 * a / (a + b)) + b * mpmath.log(2 * b / (a + b)) for a, b in pairs) / 6
        exact_tv = mpmath.fsum(abs(a - b) for a, b in pairs) / 6
        likeliest = [[max(range(4), key=row.__getitem__) for row in x] for x in (p, q)]
    assert float(found.kl[0, 1]) == pytest.approx(float(exact_kl), rel=1e-12)
    assert float(found.js[0, 1]) == pytest.approx(float(exact_js), rel=1e-12)
    assert float(found.total_variation[0, 1]) == pytest.approx(float(exact_tv), rel=1e-12)
    assert found.likeliest.tolist() == likeliest


def _softmax(row: list[float], head: Tensor) -> list[mpmath.mpf]:
    """Exact probabilities of one input."""
    logits = [mpmath.fsum(mpmath.mpf(a) * mpmath.mpf(b) for a, b in zip(row, y, strict=True)) for y in head.tolist()]
    weights = [mpmath.exp(logit) for logit in logits]
    return [weight / mpmath.fsum(weights) for weight in weights]
