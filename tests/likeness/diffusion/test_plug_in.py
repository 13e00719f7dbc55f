"""Generative steps that take the change of the mean from the encoder, applied to the prediction."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from likeness.diffusion import MultivariatePolynomial
from likeness.diffusion.coding import Coder
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.flow import log_density
from likeness.diffusion.likelihoods import log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, diffuse, posterior
from likeness.diffusion.volatility import LearnedVolatility
from tests.likeness.diffusion.exact_models import Smooth, four_signs, gaussian_model, model_of
from tests.likeness.diffusion.test_gaussian_data import expected_diffusion
from tests.likeness.diffusion.test_volatility import Known, best_of

ENCODERS = {"identity": IdentityEncoder, "parameter-free": ParameterFreeEncoder, "trained": lambda: trained()}


def trained() -> TrainableEncoder:
    torch.manual_seed(4)
    return TrainableEncoder(Smooth())


def drawn(count: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, count, 3, generator=source, dtype=torch.float64)
    return x, torch.rand(count, generator=source, dtype=torch.float64), eps


class Knowing(torch.nn.Module):
    """Answers the clean data."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.x


def plugged(encoder: DepthEncoder, network: torch.nn.Module | None = None, **options: object) -> DiffusionModel:
    torch.manual_seed(1)
    return model_of(network or Smooth(), encoder, dims=3, plug_in=True, prediction="x", **options)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("num_steps", [None, 1, 20])
@pytest.mark.parametrize("kappa", [0.4, 1.0, 3.0])
def test_knowing_the_data_costs_nothing(name: str, num_steps: int | None, kappa: float) -> None:
    """L10: x_hat = x gives 0 for every encoder, volatility and depth; with the counter-term it does not."""
    x, t, eps = drawn()
    volatility = Known(lambda gamma: torch.full_like(gamma, kappa))
    model = plugged(ENCODERS[name](), Knowing(x), num_steps=num_steps, volatility=volatility)
    assert model.diffusion_loss(x, t, eps).max() < 1e-18
    if name != "identity":
        model.plug_in, model.counter_term = False, True
        assert model.diffusion_loss(x, t, eps).max() > 1e-6


@pytest.mark.parametrize("num_steps", [None, 7])
def test_the_identity_is_vdm(num_steps: int | None) -> None:
    """L10, to 1e-12."""
    x, t, eps = drawn()
    model = plugged(IdentityEncoder(), num_steps=num_steps)
    found = model.diffusion_loss(x, t, eps)
    model.plug_in = False
    torch.testing.assert_close(found, model.diffusion_loss(x, t, eps), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kappa", [1.0, 2.0])
def test_the_parameter_free_encoder_in_closed_form(kappa: float) -> None:
    """L10: exp(-gamma) alpha^4 ((1 + kappa) / 2 + sigma^2)^2 / kappa |x_hat - x|^2 / 2; to 1e-10."""
    x, t, eps = drawn()
    model = plugged(ParameterFreeEncoder(), volatility=Known(lambda gamma: torch.full_like(gamma, kappa)))
    gamma, slope = model.schedule.with_derivative(t)
    variance = torch.sigmoid(gamma)
    z = diffuse(x * broadcast(1 - variance, x), gamma, eps)
    miss = (model.predict(z, gamma) - x).square().sum(1)
    expected = torch.exp(-gamma) * (1 - variance) ** 2 * (0.5 * (1 + kappa) + variance) ** 2 / kappa * miss / 2
    torch.testing.assert_close(model.diffusion_loss(x, t, eps), slope * expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("volatile", "nats"), [(False, 6.7114512), (True, 6.6499990)])
def test_gaussian_data_cost_what_they_do_with_the_counter_term(volatile: bool, nats: float) -> None:
    """4.2 b: the parameter-free encoder with the best network, which answers E[x | z]; to 1e-7."""
    model = gaussian_model(1.0, 0.0, True, prediction="x")
    model.network, model.counter_term, model.plug_in = Posterior(), False, True
    if volatile:
        model.volatility = best_of(0.0)
    assert expected_diffusion(model, 1.0) == pytest.approx(nats, abs=1e-7)


class Posterior(torch.nn.Module):
    """E[x | z] of x from N(0, 1) and z = alpha^3 x + sigma eps."""

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        signal = torch.sigmoid(-gamma)[:, None] ** 1.5
        return signal * z / (signal.square() + torch.sigmoid(gamma)[:, None])


@pytest.mark.parametrize("num_steps", [1, 5, 50])
def test_a_step_is_the_divergence_of_its_gaussians(num_steps: int) -> None:
    """KL of the posterior of the true means from that of the prediction's, by torch.distributions; to 1e-9.

    With the sampler's own step, a trained encoder and a volatility of each dimension.
    """
    x, _, eps = drawn(1)
    volatility = LearnedVolatility(dims=(3,)).double()
    torch.nn.init.normal_(volatility.head.bias, 0.3, 0.2)
    model = plugged(trained(), num_steps=num_steps, volatility=volatility)
    t = torch.tensor([(num_steps // 2 + 0.5) / num_steps], dtype=torch.float64)
    step = model.step(x, t, eps)
    x_s, x_t = (model.encoder(x, gamma) for gamma in (step.gamma_s, step.gamma_t))
    z = diffuse(x_t, step.gamma_t, eps)
    kappa = model.step_volatility(step.gamma_s, step.gamma_t)
    q = posterior(z, x_s, x_t, step.gamma_s, step.gamma_t, kappa)
    p = model.generative_step(z, step.gamma_s[0], step.gamma_t[0], model.predict(z, step.gamma_t))
    expected = kl_divergence(*(Normal(part.mean, part.variance.sqrt().expand_as(z)) for part in (q, p))).sum()
    found = model.diffusion_loss(x, t, eps).sum() / num_steps
    assert found.item() == pytest.approx(expected.item(), rel=1e-8)


def test_short_steps_tend_to_the_rate() -> None:
    """The excess of T steps over infinite depth falls as 1 / T."""
    x, t, eps = drawn()
    model = plugged(trained(), volatility=best_of(0.0))
    t = (t * 1000).ceil() / 1000  # the end of a step at both depths
    limit = model.diffusion_loss(x, t, eps)
    gaps = []
    for num_steps in (1000, 10_000):
        model.num_steps = num_steps
        gaps.append((model.diffusion_loss(x, t - 1e-9, eps) / limit - 1).abs().mean().item())
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1)


def test_gradients_pass_through_the_prediction() -> None:
    """Of the loss by the network's weights, through the encoder at x_hat, against central differences; to 1e-6."""
    x, t, eps = drawn()
    model = plugged(trained())
    weight = model.network.last.bias  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(model.diffusion_loss(x, t, eps).mean(), weight)  # type: ignore[arg-type]
    with torch.no_grad():
        ends = []
        for change in (1e-5, -2e-5):
            weight[0] += change  # type: ignore[operator, index]
            ends.append(model.diffusion_loss(x, t, eps).mean().item())
    assert gradient[0].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_paths_samples_flow_and_coder() -> None:
    """Weights of paths are finite, the coder reads back what it wrote, and the parameter-free flow is VDM-like."""
    model = plugged(trained(), num_steps=6)
    images = torch.randint(0, 256, (20, 3), generator=torch.Generator().manual_seed(0))
    assert log_weight(model, images, torch.Generator().manual_seed(1)).isfinite().all()
    pytest.importorskip("constriction")
    coder = Coder(model, batch_size=8)
    assert torch.equal(coder.decode(coder.encode(images)), images)


def test_the_flow_of_the_parameter_free_encoder() -> None:
    """Its head answers E[x | z]: the density of z_0 is that of the Gaussian marginals, to 1e-6."""
    plain = gaussian_model(1.0, 0.0, True)
    model = gaussian_model(1.0, 0.0, True, prediction="x")
    model.network, model.counter_term, model.plug_in = Posterior(), False, True
    z_0 = four_signs(1.3)[0]
    torch.testing.assert_close(log_density(model, z_0, tolerance=1e-8), log_density(plain, z_0, tolerance=1e-8))


def test_refused_pairs() -> None:
    with pytest.raises(ValueError, match="plug_in does not go with counter_term: both model how the mean changes"):
        model_of(Smooth(), trained(), dims=3, plug_in=True, counter_term=True)
    with pytest.raises(ValueError, match="plug_in does not go with MultivariatePolynomial"):
        model_of(Smooth(), trained(), MultivariatePolynomial(), 3, plug_in=True)
    assert math.isfinite(plugged(trained()).diffusion_loss(*drawn()).sum().item())
