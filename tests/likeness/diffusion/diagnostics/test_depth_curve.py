"""The bound at other depths, against the closed forms of Gaussian data."""

import math

import pytest
import torch

from likeness.diffusion.diagnostics.bound_profiles import depth_curve
from likeness.diffusion.variance_ratio import LearnedRatio
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, gaussian_model
from tests.likeness.diffusion.gaussian_batches import LEVELS, VARIANCE, four_rows, middles

NODES = 3_000  # times, a multiple of every T


def bits(signal_to_noise: torch.Tensor) -> torch.Tensor:
    """log2(1 + c^2 SNR) / 2."""
    return 0.5 * torch.log2(1 + VARIANCE * signal_to_noise)


def test_gaussian_data_at_every_depth() -> None:
    """With equal variances the steps' divergences in closed form; with the fitted ratio infinite depth's at every T."""
    model = gaussian_model(VARIANCE, levels=LEVELS)
    batches = [four_rows(middles(NODES))]
    points = depth_curve(model, (4, 10, 30), batches, batches)
    limit = float(bits(torch.tensor(math.exp(-GAMMA_0))) - bits(torch.tensor(math.exp(-GAMMA_1))))
    rest = batches[0].terms(model)
    offset = float((rest.reconstruction + rest.latent).mean()) / math.log(2)
    assert [point.num_steps for point in points] == [4, 10, 30, None]
    assert points[-1].bpd == points[-1].fitted == pytest.approx(offset + limit, rel=1e-6)
    for point in points[:-1]:
        gamma = torch.linspace(GAMMA_0, GAMMA_1, (point.num_steps or 0) + 1, dtype=torch.float64)
        remaining = VARIANCE / (1 + VARIANCE * torch.exp(-gamma[1:]))
        steps = 0.5 * torch.exp(-gamma[1:]) * torch.expm1(gamma.diff()) * remaining / math.log(2)
        assert point.bpd == pytest.approx(offset + float(steps.sum()), rel=1e-6)
        assert point.fitted == pytest.approx(offset + limit, rel=1e-6)
        assert point.excess == pytest.approx(point.bpd - points[-1].bpd, abs=1e-9)
        assert point.fitted_excess == pytest.approx(point.fitted - points[-1].fitted, abs=1e-9)


def test_standard_errors_are_those_of_the_mean_over_samples() -> None:
    model = gaussian_model(VARIANCE, levels=LEVELS)
    batch = four_rows(middles(50))
    values = batch.terms(model).total / math.log(2)
    point = depth_curve(model, [10], [batch], [batch])[-1]
    assert point.bpd == pytest.approx(float(values.mean()), rel=1e-12)
    assert point.bpd_se == pytest.approx(float(values.std()) / math.sqrt(len(values)), rel=1e-12)
    assert point.excess == point.excess_se == 0


def test_the_model_is_left_as_it_was_and_its_own_ratio_out() -> None:
    ratio = LearnedRatio().double()
    torch.nn.init.ones_(ratio.head.bias)
    model = gaussian_model(VARIANCE, levels=LEVELS, num_steps=7, ratio=ratio)
    alone = gaussian_model(VARIANCE, levels=LEVELS)
    batches = [four_rows(middles(70))]
    assert depth_curve(model, [10], batches, batches) == depth_curve(alone, [10], batches, batches)
    assert model.num_steps == 7
    assert model.ratio is ratio
