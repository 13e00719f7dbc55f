"""Predictions of several models in one pass, against the divergences one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from likeness.measures.distribution import jensen_shannon, kl, log_probabilities, total_variation
from likeness.measures.predictions import js_sum, predictions, total_variation_sum
from tests.likeness.measures.softmax_pairs import model, related_to


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 0.1, 3.0]), scale=st.floats(0.1, 30))
def test_divergences_of_all_pairs(seed: int, noise: float, scale: float) -> None:
    first = model(40, 5, 2, seed)
    f, g = zip(*[first, related_to(first, noise, seed + 1), model(40, 5, 2, seed + 2)], strict=True)
    log_p = log_probabilities([scale * x for x in f], g)
    for sums, divergence in ((js_sum, jensen_shannon), (total_variation_sum, total_variation)):
        found = sums(log_p)
        for i in range(3):
            for j in range(3):
                expected = float(divergence(log_p[i], log_p[j]).sum())
                assert float(found[i, j]) == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_blocks_of_inputs_add_up() -> None:
    pairs = [model(5000, 30, 3, seed) for seed in range(3)]
    f, g = [f for f, _ in pairs], [g for _, g in pairs]
    found, log_p = predictions(f, g), log_probabilities(f, g)
    torch.testing.assert_close(found.kl, torch.stack([kl(p, log_p).mean(1) for p in log_p]), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.js, js_sum(log_p) / 5000, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.lowest, log_p.amin((1, 2)))
    assert found.likeliest.equal(log_p.argmax(-1))
    assert float(found.agreement[0, 1]) == float((log_p[0].argmax(1) == log_p[1].argmax(1)).double().mean())
    torch.testing.assert_close(found.log_partitions, torch.stack([(a @ b.T).logsumexp(1) for a, b in pairs]))


def test_probabilities_that_underflow() -> None:
    log_p = torch.tensor([[[0.0, -2000.0]], [[-2000.0, 0.0]]], dtype=torch.float64)
    assert js_sum(log_p)[0, 1] == pytest.approx(torch.log(torch.tensor(2.0)).item())
