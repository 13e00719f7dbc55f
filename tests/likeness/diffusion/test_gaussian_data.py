"""Gaussian data with the optimal network: every term of the ELBO is known, in infinite and in finite depth."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from likeness.diffusion.elbo import Prediction, latent_loss
from likeness.diffusion.fitting import observe_steps
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.schedules import MonotoneSchedule, PolynomialSchedule
from likeness.diffusion.variance_ratio import FittedRatio
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, four_signs, gaussian_model, legendre

PREDICTIONS: tuple[Prediction, ...] = ("v", "eps", "x")
STEPS = (1, 2, 4, 10, 100, 1000)


def infinite_depth(variance: float) -> float:
    """VDM's diffusion term: the bound is tight."""
    return 0.5 * (math.log1p(variance * math.exp(-GAMMA_0)) - math.log1p(variance * math.exp(-GAMMA_1)))


def expected_diffusion(model: DiffusionModel, variance: float, nodes: int = 300) -> float:
    """The expectation over data, noise and times of the model's diffusion term."""
    if model.num_steps is None:
        t, weights = legendre(nodes)
    else:
        t = (torch.arange(model.num_steps, dtype=torch.float64) + 0.5) / model.num_steps
        weights = torch.full_like(t, 1 / model.num_steps)
    x, eps = four_signs(math.sqrt(variance))
    loss = model.diffusion_loss(x.repeat(len(t), 1), t.repeat_interleave(4), eps.repeat(len(t), 1))
    return (weights * loss.reshape(-1, 4).mean(1)).sum().item()


def entropy_and_prior(variance: float) -> float:
    """The negative ELBO of a tight bound: the entropy of z_0 / alpha_0 and the divergence of q(z_1) from the prior."""
    total = variance + math.exp(GAMMA_0)
    last = (variance + math.exp(GAMMA_1)) / (1 + math.exp(GAMMA_1))
    return 0.5 * math.log(2 * math.pi * math.e * total) + 0.5 * (last - 1 - math.log(last))


def negative_elbo(model: DiffusionModel, variance: float) -> float:
    """With the decoder N(z_0 / alpha_0, exp(gamma_0)), which is the exact one of continuous data."""
    x, eps_0 = four_signs(math.sqrt(variance))
    gamma_0, gamma_1 = torch.tensor([GAMMA_0, GAMMA_1], dtype=torch.float64)
    z_0 = model.encoder(x, gamma_0.expand(4)) + torch.exp(0.5 * gamma_0) * eps_0
    reconstruction = -torch.distributions.Normal(z_0, torch.exp(0.5 * gamma_0)).log_prob(x).mean().item()
    latent = latent_loss(model.encoder(x, gamma_1.expand(4)), gamma_1).mean().item()
    return reconstruction + latent + expected_diffusion(model, variance)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("variance", "nats"), [(1.0, 6.646643163), (0.25, 5.956014634)])
def test_infinite_depth_vdm_is_the_closed_form(variance: float, nats: float, prediction: Prediction) -> None:
    """O10, to 1e-8."""
    found = expected_diffusion(gaussian_model(variance, prediction=prediction), variance)
    assert found == pytest.approx(infinite_depth(variance), abs=1e-8)
    assert found == pytest.approx(nats, abs=1e-8)


@pytest.mark.parametrize("variance", [1.0, 0.25, 3.0])
def test_total_of_vdm_is_the_entropy(variance: float) -> None:
    """O11, to 1e-9: reconstruction, latent and diffusion together."""
    assert negative_elbo(gaussian_model(variance), variance) == pytest.approx(entropy_and_prior(variance), abs=1e-9)


def test_total_of_white_data() -> None:
    """O11's number: half the log of 2 pi e, as q(z_1) is the prior."""
    assert negative_elbo(gaussian_model(1.0), 1.0) == pytest.approx(1.4189393705, abs=1e-9)


@pytest.mark.parametrize("make", [PolynomialSchedule, partial(MonotoneSchedule, width=16)])
def test_the_schedule_between_the_ends_changes_nothing(make: type[PolynomialSchedule]) -> None:
    """O23: the same integral whatever the path of gamma, to 1e-6 (the schedules' own ends are float32)."""
    torch.manual_seed(0)
    model = gaussian_model(1.0, schedule=make(GAMMA_0, GAMMA_1))
    assert expected_diffusion(model, 1.0) == pytest.approx(infinite_depth(1.0), abs=1e-6)


@pytest.mark.parametrize("variance", [1.0, 0.25])
@pytest.mark.parametrize("num_steps", STEPS)
def test_finite_depth_costs_what_the_steps_say(variance: float, num_steps: int) -> None:
    """O12: with q_i of each step in closed form, to 1e-9 relative."""
    gammas = GAMMA_0 + (GAMMA_1 - GAMMA_0) * torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    expected = closed_form_steps(variance, gammas).sum().item()
    found = expected_diffusion(gaussian_model(variance, num_steps=num_steps), variance)
    assert found == pytest.approx(expected, rel=1e-9)


def closed_form_steps(variance: float, gammas: Tensor) -> Tensor:
    """q_i = SNR(t) expm1(gamma_t - gamma_s) var(x | z_t) / 2, the steps' expected divergence at equal variances."""
    gamma_t, dgamma = gammas[1:], gammas.diff()
    remaining = variance / (1 + variance * torch.exp(-gamma_t))
    return 0.5 * torch.exp(-gamma_t) * torch.expm1(dgamma) * remaining


def test_a_thousand_steps_against_the_asymptote() -> None:
    """O12's numbers: .0566032 more than infinite depth, of which the leading term is .0562724."""
    excess = expected_diffusion(gaussian_model(1.0, num_steps=1000), 1.0) - infinite_depth(1.0)
    assert excess == pytest.approx(0.0566032, abs=1e-7)
    share = [1 / (1 + math.exp(gamma)) for gamma in (GAMMA_0, GAMMA_1)]
    leading = (GAMMA_1 - GAMMA_0) / 4000 * (2 * infinite_depth(1.0) - (share[0] - share[1]))
    assert leading == pytest.approx(0.0562724, abs=1e-7)
    assert excess == pytest.approx(leading, rel=0.01)


@pytest.mark.parametrize("variance", [1.0, 0.25])
@pytest.mark.parametrize("num_steps", STEPS)
def test_with_the_best_ratio_every_depth_costs_the_same(variance: float, num_steps: int) -> None:
    """O12: the closed-form ratio makes the steps telescope to infinite depth's value, even one step; to 1e-10."""
    model = gaussian_model(variance, num_steps=num_steps)
    ratio = FittedRatio(num_steps, gamma_min=GAMMA_0, gamma_max=GAMMA_1)
    observe_steps(model, ratio, *four_signs(math.sqrt(variance)))
    model.ratio = ratio
    assert expected_diffusion(model, variance) == pytest.approx(infinite_depth(variance), rel=1e-10)


@pytest.mark.parametrize(
    ("kappa", "total"),
    [(0.0, 1.4804019), (0.5, 1.4316621), (-1.0, 1.7435332), (1.0, 1.4189394)],
)
@pytest.mark.parametrize("counter_term", [True, False])
def test_encoders_of_the_mean_leave_a_gap(kappa: float, total: float, counter_term: bool) -> None:
    """O13, to 1e-6: y = kappa x with the best network; the bound is not tight but at kappa = 1, which is VDM."""
    found = negative_elbo(gaussian_model(1.0, kappa, counter_term), 1.0)
    assert found == pytest.approx(total, abs=1e-6)
    assert found >= entropy_and_prior(1.0) - 1e-9


def test_the_parameter_free_encoder_s_diffusion_term() -> None:
    """O13's number for the diffusion term alone."""
    assert expected_diffusion(gaussian_model(1.0, 0.0, True), 1.0) == pytest.approx(6.7114511662, abs=1e-8)


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_more_steps_tend_to_infinite_depth_with_an_encoder(kappa: float) -> None:
    """The excess of T steps falls as 1 / T, with counter-term and encoder in every step."""
    limit = expected_diffusion(gaussian_model(1.0, kappa, True), 1.0)
    excess = [
        expected_diffusion(gaussian_model(1.0, kappa, True, num_steps=steps), 1.0) - limit for steps in (1000, 4000)
    ]
    assert excess[0] / excess[1] == pytest.approx(4, rel=0.02)
