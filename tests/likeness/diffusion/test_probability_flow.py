"""The probability flow's density against the exact one of Gaussian and of discrete data."""

import math

import pytest
import torch
from torch import Tensor

from likeness.diffusion.elbo import Prediction
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.flow import log_density, velocity
from likeness.diffusion.likelihoods import flow_bound
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled
from tests.likeness.diffusion.exact_models import (
    GAMMA_0,
    GAMMA_1,
    DiscreteHead,
    Proportional,
    Smooth,
    encoder_of,
    factor_of,
    gaussian_model,
    model_of,
    normal_grid,
)

BOTH = pytest.mark.parametrize("kappa", [1.0, 0.0], ids=["VDM", "parameter-free"])


def variance_of_z(gamma: Tensor, variance: float, kappa: float) -> Tensor:
    m = torch.ones_like(gamma) if kappa else torch.sigmoid(-gamma)
    return torch.sigmoid(-gamma) * m**2 * variance + torch.sigmoid(gamma)


def ends() -> Tensor:
    return torch.tensor([GAMMA_0, GAMMA_1], dtype=torch.float64)


def discrete_model(kappa: float, counter_term: bool, levels: int) -> DiffusionModel:
    values = scaled(torch.arange(levels), levels, torch.float64)
    head = DiscreteHead(values, factor_of(kappa), "v", counter_term)
    return model_of(head, encoder_of(kappa), levels=levels, counter_term=counter_term)


@BOTH
@pytest.mark.parametrize("counter_term", [True, False])
@pytest.mark.parametrize("prediction", ["v", "eps", "x"])
def test_velocity_is_that_of_scaled_gaussians(kappa: float, counter_term: bool, prediction: Prediction) -> None:
    """O22: along z = sqrt(V) z_1, dz/dgamma = V' / (2 V) z; to 1e-9."""
    model = gaussian_model(0.25, kappa, counter_term, prediction)
    z = torch.tensor([[-1.3], [0.2]], dtype=torch.float64)
    for at in (-12.0, -3.0, 0.0, 4.0):
        gamma = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        spread = variance_of_z(gamma, 0.25, kappa)
        (slope,) = torch.autograd.grad(spread, gamma)
        expected = slope / (2 * spread.detach()) * z
        torch.testing.assert_close(velocity(model, z, gamma.detach()), expected, rtol=1e-9, atol=1e-12)


def test_velocity_of_vdm_is_the_spec_s() -> None:
    """O22: dz/dgamma = (sigma eps_hat - sigma^2 z) / 2 for any network."""
    torch.manual_seed(0)
    model, z = model_of(Smooth(), dims=3, prediction="eps"), torch.randn(5, 3, dtype=torch.float64)
    gamma = torch.tensor(-2.0, dtype=torch.float64)
    eps_hat, variance = model.network(z, gamma.expand(5)), torch.sigmoid(gamma)
    expected = 0.5 * (variance.sqrt() * eps_hat - variance * z)
    torch.testing.assert_close(velocity(model, z, gamma), expected, rtol=1e-10, atol=1e-12)


@BOTH
@pytest.mark.parametrize("counter_term", [True, False])
@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_density_of_gaussian_data_is_exact(kappa: float, counter_term: bool, variance: float) -> None:
    """O22: z_0 is from N(0, V(gamma_0) / V(gamma_1)), as z_1 is taken to be from N(0, I); to 1e-6."""
    model = gaussian_model(variance, kappa, counter_term)
    z_0 = torch.tensor([[-2.0], [-0.3], [0.0], [0.7]], dtype=torch.float64)
    first, last = variance_of_z(ends(), variance, kappa)
    expected = torch.distributions.Normal(0.0, (first / last).sqrt()).log_prob(z_0).squeeze(1)
    torch.testing.assert_close(log_density(model, z_0, tolerance=1e-8), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_density(model, z_0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["VDM", "parameter-free"])
def test_density_in_more_dimensions_integrates_to_one(kind: str) -> None:
    """Any network's density: its integral over a plane, by the trapezoidal rule, is 1 to 1e-3."""
    torch.manual_seed(0)
    model = model_of(Smooth(2), encoder_of(1.0 if kind == "VDM" else 0.0), dims=2, counter_term=kind != "VDM")
    places = torch.linspace(-15, 15, 61, dtype=torch.float64)
    z_0 = torch.cartesian_prod(places, places)
    total = log_density(model, z_0, tolerance=1e-6).exp().sum().item() * 0.5**2
    assert total == pytest.approx(1, abs=1e-3)


def test_hutchinson_s_estimate() -> None:
    """Signs as probes: exact for one dimension or a diagonal Jacobian, unbiased over all signs otherwise."""
    torch.manual_seed(0)
    model, z_0 = model_of(Smooth(), dims=3), torch.randn(4, 3, dtype=torch.float64)
    exact = log_density(model, z_0, tolerance=1e-7)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    estimates = torch.stack([log_density(model, z_0, probe=sign.expand(4, 3), tolerance=1e-7) for sign in signs])
    torch.testing.assert_close(estimates.mean(0), exact, rtol=1e-5, atol=1e-5)
    assert estimates.std(0).min() > 1e-3


@BOTH
def test_bound_is_the_entropy_of_discrete_data(kappa: float) -> None:
    """With an exact denoiser: H(x) + KL(q(z_1) || N(0, 1)), to 1e-4 bits.

    VDM's ELBO has the same expectation; that of the parameter-free encoder is .04 bits above (O13, O15).
    """
    levels, images = 2, torch.tensor([[1]])  # the other one is its mirror image
    model = discrete_model(kappa, bool(kappa == 0), levels)
    eps, weights = normal_grid(0.25, 6.0)
    nats = flow_bound(model, images.expand(len(eps), 1), eps[:, None], tolerance=1e-7)
    found = (weights * nats).sum().item() / math.log(2)
    assert found == pytest.approx(1 + prior_bits(levels, kappa), abs=1e-4)


def prior_bits(levels: int, kappa: float) -> float:
    gamma = ends()[1]
    m, _ = factor_of(kappa)(gamma)
    means = torch.sigmoid(-gamma).sqrt() * m * scaled(torch.arange(levels), levels, torch.float64)
    z, weights = normal_grid(0.05, 9.0)
    mixture = torch.distributions.Normal(means, torch.sigmoid(gamma).sqrt()).log_prob(z[:, None]).logsumexp(-1)
    ratio = mixture - math.log(levels) - torch.distributions.Normal(0.0, 1.0).log_prob(z)
    return ((weights * ratio.exp() * ratio).sum() / math.log(2)).item()


def test_bound_is_below_the_parameter_free_elbo() -> None:
    """O22: the likelihood of the flow is at least the ELBO of an exact denoiser, here by the gap of O13."""
    model = discrete_model(0.0, True, 2)
    eps, weights = normal_grid(0.25, 6.0)
    images = torch.ones(len(eps), 1, dtype=torch.long)
    flow = (weights * flow_bound(model, images, eps[:, None])).sum()
    t = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    elbo = torch.stack(
        [
            (
                weights * model.elbo_terms(images, t=at.expand(len(eps)), eps_0=eps[:, None], eps=eps[:, None]).total
            ).sum()
            for at in t
        ]
    ).mean()
    assert flow.item() < elbo.item() - 0.02


def test_bound_is_decoder_density_and_entropy() -> None:
    """-log p(x | z_0) - log p(z_0) + log q(z_0 | x) from its parts, on Gaussian marginals in several dimensions."""
    model = gaussian_model(0.3)
    model.input_shape = (2, 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 2, 3), generator=generator)
    eps_0 = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    gamma = ends()[0]
    x = scaled(images, 256, torch.float64)
    encoded = torch.distributions.Normal(torch.sigmoid(-gamma).sqrt() * x, torch.sigmoid(gamma).sqrt())
    z_0 = encoded.mean + encoded.stddev * eps_0
    first, last = variance_of_z(ends(), 0.3, 1.0)
    density = torch.distributions.Normal(0.0, (first / last).sqrt()).log_prob(z_0)
    reconstruction = model.elbo_terms(images, t=torch.zeros(4).double(), eps_0=eps_0, eps=eps_0).reconstruction
    expected = reconstruction + (encoded.log_prob(z_0) - density).flatten(1).sum(1)
    torch.testing.assert_close(flow_bound(model, images, eps_0, tolerance=1e-8), expected, rtol=1e-6, atol=1e-5)


def test_float32_answers_what_float64_does() -> None:
    torch.manual_seed(0)
    model, z_0 = gaussian_model(0.25), torch.randn(6, 1, dtype=torch.float64)
    single = log_density(model, z_0.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), log_density(model, z_0), rtol=1e-3, atol=1e-3)


def test_labels_reach_the_network() -> None:
    torch.manual_seed(0)
    model, z_0 = model_of(Smooth(num_labels=2), dims=3), torch.randn(4, 3, dtype=torch.float64)
    one, other = (log_density(model, z_0, torch.full((4,), label)) for label in (0, 1))
    assert not torch.allclose(one, other)


def test_no_gradients_are_left_behind() -> None:
    model = model_of(Smooth(), dims=3)
    assert not log_density(model, torch.zeros(2, 3, dtype=torch.float64)).requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_trained_encoder_is_refused() -> None:
    """Its flow needs E[dx_t/dgamma | z], which the head does not answer; the message names the encoder."""
    model = model_of(Smooth(), TrainableEncoder(Proportional(0.5)), dims=3, counter_term=True)
    images = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="probability flow of TrainableEncoder is unknown"):
        flow_bound(model, images, torch.zeros(2, 3, dtype=torch.float64))
