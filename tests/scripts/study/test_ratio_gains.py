"""What variance ratios gain: the prediction and the learned ratio on data whose best ratio is known.

Data of variance c^2 with the optimal network for Gaussian data of that variance: the loss is quadratic, so grey levels
0 and 1 (x = -1/2 and 1/2) have the expectations of N(0, 1/4).
"""

import math

import pytest
import torch
from torch import Tensor

from datamodules import Digits
from datamodules.splits import TensorSplit
from likeness.diffusion.model import DiffusionModel
from scripts.evaluate.bounds import at_depth
from scripts.evaluate.data import EvaluatedSplit
from scripts.study.diffenc_vs_vdm import POINTS, loss_rates, predicted_gain, train_ratio
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, gaussian_model
from tests.likeness.diffusion.gaussian_batches import LEVELS, VARIANCE, four_rows, middles

LIMIT = 5.956014634  # nats in infinite depth, whatever the schedule: Kingma et al. 2021, of variance 1/4


@pytest.fixture
def model() -> DiffusionModel:
    return gaussian_model(VARIANCE, levels=LEVELS)


@pytest.fixture
def split() -> EvaluatedSplit:
    """2,000 samples of each grey level."""
    x = (torch.arange(4000) % LEVELS).to(torch.uint8)[:, None]
    return EvaluatedSplit(
        Digits(), "train", TensorSplit(x, torch.zeros(len(x), dtype=torch.long)), len(x), 1000, torch.device("cpu")
    )


def exact_rates(variance: float) -> Tensor:
    """l(t) = (dgamma/dt) p / 2 with p = c^2 SNR / (1 + c^2 SNR)."""
    gamma = GAMMA_0 + (GAMMA_1 - GAMMA_0) * middles(POINTS)
    p = 1 / (1 + torch.exp(gamma) / variance)
    return 0.5 * (GAMMA_1 - GAMMA_0) * p


def expected_loss(model: DiffusionModel) -> float:
    """The mean over x and eps of the diffusion term in the model's depth, in nats."""
    assert model.num_steps is not None
    rows = four_rows(middles(model.num_steps))
    return float(model.diffusion_loss(model.scale(rows.images, model.dtype), rows.noise.t, rows.noise.eps).mean())


def test_the_prediction_is_the_excess_of_gaussian_data_to_first_order() -> None:
    """Which the best ratio takes away at every T: (g1 - g0) / (4 T) (2 L - p0 + p1), with variance 1 and T = 1000."""
    assert predicted_gain(exact_rates(1.0), 1000, dims=1) * math.log(2) == pytest.approx(0.0562724, rel=1e-4)
    assert predicted_gain(exact_rates(1.0), 10, dims=1) == pytest.approx(
        100 * predicted_gain(exact_rates(1.0), 1000, 1)
    )


def test_the_prediction_of_independent_dimensions_is_that_of_one() -> None:
    rates = exact_rates(0.25)
    assert predicted_gain(3 * rates, 50, dims=3) == pytest.approx(predicted_gain(rates, 50, dims=1))


def test_rates_are_the_mean_over_samples_and_noise(model: DiffusionModel, split: EvaluatedSplit) -> None:
    rates, exact = loss_rates(model, split, seed=0), exact_rates(VARIANCE)
    deviation = math.sqrt(2 / split.size) * exact  # of chi^2: at most this
    assert ((rates - exact) / deviation).abs().max() < 4
    assert float(rates.mean()) == pytest.approx(LIMIT, rel=0.02)
    assert torch.equal(rates, loss_rates(model, split, seed=0))


@pytest.mark.parametrize("num_steps", [1, 4, 50])
def test_a_learned_ratio_comes_near_the_best_one(model: DiffusionModel, split: EvaluatedSplit, num_steps: int) -> None:
    """With which the bound is that of infinite depth, at any T."""
    with at_depth(model, num_steps, None, None):
        equal = expected_loss(model)
    ratio = train_ratio(model, num_steps, split, ratio_steps=300, seed=0)
    with at_depth(model, num_steps, ratio.double(), None):
        learned = expected_loss(model)
    assert learned >= LIMIT - 1e-6
    assert learned - LIMIT < 0.05 * (equal - LIMIT)
    assert (model.num_steps, model.ratio) == (None, None)
    assert not any(parameter.requires_grad for parameter in ratio.parameters())


def test_training_a_ratio_depends_on_its_seed_alone(model: DiffusionModel, split: EvaluatedSplit) -> None:
    first, again, other = (train_ratio(model, 4, split, ratio_steps=3, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    state = torch.get_rng_state()
    train_ratio(model, 4, split, ratio_steps=1, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
