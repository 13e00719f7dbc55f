"""Learned and optimal ratios against the closed form of Gaussian data."""

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from likeness.diffusion.diagnostics.bound_profiles import ratio_profile
from likeness.diffusion.variance_ratio import LearnedRatio, VarianceRatio
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, gaussian_model
from tests.likeness.diffusion.gaussian_batches import LEVELS, VARIANCE, four_rows, middles


class Slope(VarianceRatio):
    """rho = gamma_t - 2 gamma_s, of one or of each dimension."""

    def __init__(self, copies: int | None) -> None:
        super().__init__()
        self.copies = copies

    @override
    def forward(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        rho = gamma_t - 2 * gamma_s
        return rho if self.copies is None else rho[:, None].expand(-1, self.copies)


def test_the_optimum_of_gaussian_data() -> None:
    """rho* of a step is log (1 + c^2 SNR(s)) / (1 + c^2 SNR(t)), which is why the steps telescope."""
    model = gaussian_model(VARIANCE, levels=LEVELS, num_steps=20)
    profile = ratio_profile(model, [four_rows(middles(20)[:11]), four_rows(middles(20)[11:])])
    gamma = torch.linspace(GAMMA_0, GAMMA_1, 21, dtype=torch.float64)
    expected = -torch.log1p(VARIANCE * torch.exp(-gamma)).diff()
    torch.testing.assert_close(profile.optimal, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(profile.gamma, (gamma[1:] + gamma[:-1]) / 2, rtol=1e-6, atol=1e-9)
    assert not profile.rho.any()


@pytest.mark.parametrize("copies", [None, 1])
def test_the_model_s_own_ratio(copies: int | None) -> None:
    model = gaussian_model(VARIANCE, levels=LEVELS, num_steps=5, ratio=Slope(copies))
    gamma = torch.linspace(GAMMA_0, GAMMA_1, 6, dtype=torch.float64)
    profile = ratio_profile(model, [four_rows(middles(5))])
    torch.testing.assert_close(profile.rho, gamma[1:] - 2 * gamma[:-1], rtol=1e-6, atol=1e-9)


def test_many_steps_share_bins() -> None:
    model = gaussian_model(VARIANCE, levels=LEVELS, num_steps=1000, ratio=LearnedRatio().double())
    profile = ratio_profile(model, [four_rows(middles(64))], max_bins=16)
    assert profile.optimal.shape == (16,)
    assert (profile.optimal > 0).all()


def test_a_bin_without_samples_is_undefined() -> None:
    model = gaussian_model(VARIANCE, levels=LEVELS, num_steps=4)
    assert ratio_profile(model, [four_rows(middles(4)[:1])]).optimal.isnan().tolist() == [False, True, True, True]


def test_infinite_depth_has_no_steps() -> None:
    with pytest.raises(ValueError, match="infinite depth"):
        ratio_profile(gaussian_model(VARIANCE, levels=LEVELS), [four_rows(middles(4))])
