"""Bins of gamma against brute force and against integrals in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from likeness.diffusion.diagnostics.bound_profiles import bin_sums, from_sums, gamma_edges
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.schedules import LinearSchedule, NoiseSchedule, PolynomialSchedule
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, gaussian_model
from tests.likeness.diffusion.gaussian_batches import LEVELS, VARIANCE, four_rows, middles

EDGES = gamma_edges(torch.tensor(-3.0), torch.tensor(2.0), 8)


def samples(seed: int, size: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """gamma, dgamma/dt and losses."""
    source = torch.Generator().manual_seed(seed)
    gamma = -3 + 5 * torch.rand(size, generator=source)
    return gamma, 1 + torch.rand(size, generator=source), torch.rand(size, generator=source)


def test_each_bin_holds_the_statistics_of_its_samples() -> None:
    gamma, slope, loss = samples(0)
    binned = from_sums(EDGES, bin_sums(EDGES, gamma, slope, loss))
    for low, high, *found in zip(EDGES[:-1], EDGES[1:], *binned[1:], strict=True):
        inside = (gamma >= low) & (gamma < high)
        losses = loss[inside].double().numpy()
        rates = losses / slope[inside].double().numpy()
        expected = (
            inside.sum(),
            losses.mean(),
            losses.var(ddof=1),
            rates.mean(),
            rates.std(ddof=1) / math.sqrt(len(rates)),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-10)


@given(cut=st.integers(1, 199))
def test_batches_add_up(cut: int) -> None:
    whole = samples(1)
    first, second = (bin_sums(EDGES, *(part[own] for part in whole)) for own in (slice(cut), slice(cut, None)))
    torch.testing.assert_close(first + second, bin_sums(EDGES, *whole), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("schedule", [LinearSchedule(-7.0, 5.0), PolynomialSchedule(-7.0, 5.0)])
def test_the_area_is_the_integral_over_gamma_whatever_the_schedule(schedule: NoiseSchedule) -> None:
    """Of sech^2(gamma / 2) / 4, the derivative of the logistic function."""
    t = middles(200_000)
    gamma, slope = schedule.with_derivative(t)
    loss = slope * torch.sigmoid(gamma) * torch.sigmoid(-gamma)
    edges = gamma_edges(*schedule.ends(t), 40)
    binned = from_sums(edges, bin_sums(edges, gamma, slope, loss))
    exact = torch.sigmoid(edges[-1]) - torch.sigmoid(edges[0])
    assert binned.area == pytest.approx(float(exact), rel=2e-3)
    torch.testing.assert_close(
        binned.share.cumsum(0), (edges[1:].sigmoid() - edges[0].sigmoid()) / exact, atol=2e-3, rtol=0
    )


def test_the_integrand_of_gaussian_data() -> None:
    """VDM with the optimal network: the integral over gamma is log(1 + c^2 SNR) / 2, in each bin and over all."""
    model = gaussian_model(VARIANCE, levels=LEVELS)
    batch = four_rows(middles(5_000))
    x = model.scale(batch.images, torch.float64)
    loss = bits_per_dim(model.diffusion_loss(x, batch.noise.t, batch.noise.eps), batch.dims)
    edges = gamma_edges(*model.schedule.ends(batch.noise.t), 50)
    binned = from_sums(edges, bin_sums(edges, *model.schedule.with_derivative(batch.noise.t), loss))
    exact = -0.5 * torch.log1p(VARIANCE * torch.exp(-edges)).diff() / math.log(2)
    torch.testing.assert_close(binned.integrand * binned.width, exact, rtol=1e-4, atol=0)
    total = 0.5 * math.log((1 + VARIANCE * math.exp(-GAMMA_0)) / (1 + VARIANCE * math.exp(-GAMMA_1))) / math.log(2)
    assert binned.area == pytest.approx(total, rel=1e-6)


def test_a_bin_without_samples_is_undefined_and_costs_the_area_nothing() -> None:
    gamma, slope, loss = (torch.tensor([value]) for value in (0.1, 2.0, 3.0))
    binned = from_sums(EDGES, bin_sums(EDGES, gamma, slope, loss))
    assert binned.samples.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
    assert binned.loss.isnan().sum() == 7
    assert binned.variance.isnan().all()
    assert binned.area == pytest.approx(1.5 * 5 / 8)
    assert binned.share.tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_gammas_beyond_the_edges_count_in_the_outermost_bins() -> None:
    ones = torch.ones(2)
    assert bin_sums(EDGES, torch.tensor([-9.0, 9.0]), ones, ones)[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 1]
