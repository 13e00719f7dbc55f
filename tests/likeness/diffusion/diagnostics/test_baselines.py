"""Uniform and per-pixel histogram models against counting by hand and scikit-learn's smoothing."""

import math

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import CategoricalNB

from likeness.diffusion.diagnostics.baselines import LevelHistogram, uniform_bits


def images(size: int, seed: int, levels: int = 5) -> torch.Tensor:
    return torch.randint(0, levels, (size, 2, 3, 2), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_no_knowledge_is_the_logarithm_of_the_levels() -> None:
    assert uniform_bits(17) == pytest.approx(4.0874628)
    empty = LevelHistogram((2, 3, 2), 5)
    assert empty.bits_per_dim(images(4, 0)).tolist() == pytest.approx([math.log2(5)] * 4)


def test_it_is_a_naive_bayes_model_with_laplace_smoothing() -> None:
    train, test = images(40, 0), images(9, 1)
    histogram = LevelHistogram((2, 3, 2), 5)
    for batch in train.split(7):
        histogram.add(batch)
    model = CategoricalNB(alpha=1, min_categories=5).fit(train.flatten(1).numpy(), np.zeros(40))
    nats = -model.predict_joint_log_proba(test.flatten(1).numpy())[:, 0]
    assert histogram.bits_per_dim(test).numpy() == pytest.approx(nats / (12 * math.log(2)), rel=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.full((1, 2, 3, 2), 5, dtype=torch.uint8), r"0\.\.4, got 5\.\.5"),
        (torch.zeros(1, 2, 3, dtype=torch.uint8), r"\[1, 2, 3\] are not of shape \[B, 2, 3, 2\]"),
    ],
)
def test_what_does_not_fit_is_named(wrong: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LevelHistogram((2, 3, 2), 5).add(wrong)
