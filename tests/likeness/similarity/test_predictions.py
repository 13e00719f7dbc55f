"""Predictions of several models in one pass, against the divergences one by one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.similarity.predictions import (
    jensen_shannon,
    kl,
    log_probabilities,
    lowest_log_probability,
    predictions,
    total_variation,
)
from tests.likeness.similarity.softmax_pairs import model, related_to


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 0.1, 3.0]), scale=st.floats(0.1, 30))
def test_divergences_of_all_pairs(seed: int, noise: float, scale: float) -> None:
    first = model(40, 5, 2, seed)
    f, g = zip(*[first, related_to(first, noise, seed + 1), model(40, 5, 2, seed + 2)], strict=True)
    f = [scale * x for x in f]
    found, log_p = predictions(f, g), log_probabilities(f, g)
    for matrix, divergence in ((found.kl, kl), (found.js, jensen_shannon), (found.total_variation, total_variation)):
        for i in range(3):
            for j in range(3):
                expected = float(divergence(log_p[i], log_p[j]).mean())
                assert float(matrix[i, j]) == pytest.approx(expected, rel=1e-9, abs=3e-15)


def test_blocks_of_inputs_add_up() -> None:
    pairs = [model(5000, 30, 3, seed) for seed in range(3)]
    f, g = [f for f, _ in pairs], [g for _, g in pairs]
    found, log_p = predictions(f, g), log_probabilities(f, g)
    torch.testing.assert_close(found.kl, torch.stack([kl(p, log_p).mean(1) for p in log_p]), rtol=1e-10, atol=1e-14)
    js = torch.stack([jensen_shannon(p, log_p).mean(1) for p in log_p])
    torch.testing.assert_close(found.js, js, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(lowest_log_probability(f, g, found.log_partitions), log_p.amin((1, 2)))
    assert found.likeliest.equal(log_p.argmax(-1))
    assert float(found.agreement[0, 1]) == float((log_p[0].argmax(1) == log_p[1].argmax(1)).double().mean())
    partitions = torch.stack([(a @ (b - b.mean(0)).T).logsumexp(1) - math.log(30) for a, b in pairs])
    torch.testing.assert_close(found.log_partitions, partitions)


def test_probabilities_that_underflow() -> None:
    f, g = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[0.0], [-2000.0]], dtype=torch.float64)
    found = predictions([f, f], [g, g.flip(0)])
    assert found.js[0, 1] == pytest.approx(math.log(2))
    assert found.kl.tolist() == [[0, 2000], [2000, 0]]
    assert found.total_variation[0, 1] == 1


def test_a_single_model_has_no_pairs() -> None:
    f, g = model(20, 4, 2)
    found = predictions([f], [g])
    assert found.kl.tolist() == found.js.tolist() == found.total_variation.tolist() == [[0]]
    assert found.agreement.tolist() == [[1]]
    torch.testing.assert_close(found.log_partitions[0], (f @ (g - g.mean(0)).T).logsumexp(1) - math.log(4))
