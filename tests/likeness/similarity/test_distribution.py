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

from likeness.similarity import predictions as distribution
from likeness.similarity.predictions import (
    agreement_sum,
    is_correct,
    jensen_shannon,
    kl,
    kl_sum,
    log_probabilities,
    nll,
    pairwise,
    pairwise_sum,
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
    assert float(kl_sum(log_p.unsqueeze(1))[0, 1]) == pytest.approx(exact, rel=1e-14 / distance + 1e-12)


def test_two_labels_in_closed_form() -> None:
    log_p, log_q = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    assert float(kl(log_p, log_q)) == pytest.approx(math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert float(total_variation(log_p, log_q)) == 0.25


def test_certain_and_opposite_models() -> None:
    log_p = torch.tensor([[0.0, 1e4, 0.0], [1e4, 0.0, 0.0]], dtype=torch.float64).log_softmax(-1)
    assert float(kl(*log_p)) == 1e4
    assert float(jensen_shannon(*log_p)) == pytest.approx(math.log(2))
    assert float(total_variation(*log_p)) == 1
    torch.testing.assert_close(kl_sum(log_p.unsqueeze(1)), torch.tensor([[0, 1e4], [1e4, 0]], dtype=torch.float64))


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


@pytest.mark.parametrize("max_elements", [1, 700, 2**20])
def test_all_pairs_in_chunks(monkeypatch: pytest.MonkeyPatch, max_elements: int) -> None:
    monkeypatch.setattr(distribution, "_MAX_ELEMENTS", max_elements)
    log_p = random_models()
    log_p = torch.cat([log_p, (log_p[:1] + 1e-5 * log_p[1:2]).log_softmax(-1)])  # two are nearly equal
    expected = torch.stack([torch.stack([kl(p, q) for q in log_p]) for p in log_p])
    torch.testing.assert_close(pairwise(kl, log_p), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(pairwise_sum(kl, log_p), expected.sum(-1), rtol=1e-12, atol=0)
    torch.testing.assert_close(kl_sum(log_p), expected.sum(-1), rtol=1e-11, atol=0)


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


def test_agreement_counts_equal_preferences() -> None:
    log_p = random_models()
    likeliest = log_p.numpy().argmax(-1)
    expected = [[(a == b).sum() for b in likeliest] for a in likeliest]
    assert agreement_sum(log_p).tolist() == expected
