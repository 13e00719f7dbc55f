"""No estimate that is reported as a bound falls below the entropy of a source: a registry, which later ones join."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from likeness.diffusion import likelihoods
from likeness.diffusion.dequantisation import centred, fit_dequantisation, truncation
from likeness.diffusion.elbo import ElboTerms
from likeness.diffusion.likelihoods import (
    BOUNDS,
    dequantised_bound,
    flow_bound,
    importance_weighted_bound,
)
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled
from likeness.diffusion.schedules import LinearSchedule
from tests.likeness.diffusion.exact_models import (
    GAMMA_0,
    GAMMA_1,
    Smooth,
    gaussian_model,
    legendre,
    model_of,
    normal_grid,
)
from tests.likeness.diffusion.source_models import (
    BLUNT,
    SOURCES,
    cell_bits,
    random_dequantisation,
    source_model,
)
from tests.likeness.diffusion.test_discrete_data import expected_terms


def half(data: Tensor) -> Tensor:
    """Of all levels, as the other half is its mirror image."""
    return data[128:] if len(data) == 256 else data


@functools.cache
def elbo_of_all(gamma_0: float) -> ElboTerms:
    """The terms of the ELBO of all levels, in bits."""
    data = SOURCES["all"]
    return expected_terms(source_model(data, gamma_0), half(data), 48, 0.25, 6.5)


def elbo_bits(model: DiffusionModel, data: Tensor) -> float:
    if len(data) == 256:
        return elbo_of_all(model.schedule.gamma_min).total.item()
    return expected_terms(model, data, 60, 0.2).total.item()


def flow_bits(model: DiffusionModel, data: Tensor) -> float:
    """The flow's bound with the decoder, in expectation over the noise; of many levels a few stand for all."""
    eps, weights = normal_grid(0.5, 6.0)
    own = half(data)[:: max(1, len(data) // 16)]
    images = own.repeat(len(eps))[:, None]
    nats = flow_bound(model, images, eps.repeat_interleave(len(own))[:, None])
    return (weights @ nats.reshape(len(eps), -1).mean(1)).item() / math.log(2)


def truncated_bits(model: DiffusionModel, data: Tensor) -> float:
    tolerance = 1e-6 if len(data) == 256 else 1e-7
    return cell_bits(data, model.schedule.gamma_min, centred, half(data), tolerance)


def learned_bits(model: DiffusionModel, data: Tensor) -> float:
    """After a short fit; of many levels a few, with the two at the ends."""
    batches = [(data[:, None].repeat(max(1, 32 // len(data)), 1), None)]
    learned = fit_dequantisation(model, batches, torch.Generator().manual_seed(0), 40, learning_rate=0.02)
    return cell_bits(data, model.schedule.gamma_min, learned, data[:: max(1, len(data) // 15)])


def weighted_bits(model: DiffusionModel, data: Tensor) -> float:
    """Four weighted paths of 40 steps: a mean over 100 samples, and three of its standard errors."""
    model.num_steps = 40
    images = half(data)[torch.arange(100) % len(half(data))][:, None]
    bits = importance_weighted_bound(model, images, 4, torch.Generator().manual_seed(0)) / math.log(2)
    return (bits.mean() + 3 * bits.std() / math.sqrt(len(bits))).item()


ESTIMATES: dict[str, Callable[[DiffusionModel, Tensor], float]] = {
    "ELBO": elbo_bits,
    "IW": weighted_bits,
    "ODE": flow_bits,
    "ODE-TN": truncated_bits,
    "ODE-VD": learned_bits,
}
KNOWN = {  # L8
    ("ELBO", "two levels", GAMMA_0): 1.010462,
    ("ELBO", "two levels", BLUNT): 3.771381,
    ("ELBO", "sixteen", GAMMA_0): 4.010460,
    ("ELBO", "sixteen", BLUNT): 6.771307,
    ("ELBO", "all", GAMMA_0): 8.000007,
    ("ELBO", "all", BLUNT): 8.000007,
    ("ODE-TN", "two levels", GAMMA_0): 1.003667,
    ("ODE-TN", "two levels", BLUNT): 3.071915,
    ("ODE-TN", "sixteen", GAMMA_0): 4.003667,
    ("ODE-TN", "sixteen", BLUNT): 6.071915,
    ("ODE-TN", "all", GAMMA_0): 8.000492,
    ("ODE-TN", "all", BLUNT): 8.008886,
    ("ODE-VD", "two levels", GAMMA_0): 1.003667,  # of levels far apart none is better
    ("ODE-VD", "two levels", BLUNT): 3.071915,
    ("ODE-VD", "sixteen", GAMMA_0): 4.003667,
    ("ODE-VD", "sixteen", BLUNT): 6.071915,
}


def test_every_bound_is_held_against_entropies() -> None:
    """A new kind of bound needs an entry above."""
    assert ESTIMATES.keys() == BOUNDS.keys()


@pytest.mark.parametrize("kind", ESTIMATES)
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("gamma_0", [GAMMA_0, BLUNT])
def test_none_is_below_the_entropy(kind: str, name: str, gamma_0: float) -> None:
    """L8: with exact denoisers, at the papers' gamma_0 and at one whose noise hides the grey levels; to 1e-5 bits.

    The numbers of the oracle are met to 1e-5, those of the flow to the 2e-5 of its solver.
    """
    data = SOURCES[name]
    found = ESTIMATES[kind](source_model(data, gamma_0), data)
    assert found >= math.log2(len(data)) - 1e-5
    if (kind, name, gamma_0) in KNOWN:
        assert found == pytest.approx(KNOWN[kind, name, gamma_0], abs=1e-5 if kind == "ELBO" else 2e-5)


@pytest.mark.parametrize("name", ["two levels", "all"])
@pytest.mark.parametrize("gamma_0", [GAMMA_0, BLUNT])
def test_a_network_that_never_learned_gives_a_bound(name: str, gamma_0: float) -> None:
    """Jensen's inequality asks nothing of q but its support: of random weights the bound is loose, and one."""
    data = SOURCES[name]
    few = data[:: max(1, len(data) // 5)]
    found = cell_bits(data, gamma_0, random_dequantisation((1,), 1.0), few, 1e-6)
    assert found >= math.log2(len(data)) + 0.01


@pytest.mark.parametrize(("gamma_0", "bits"), [(GAMMA_0, 7.989595), (BLUNT, 5.245195)])
def test_without_a_decoder_there_is_no_bound(gamma_0: float, bits: float) -> None:
    """L8's forbidden number: -log p(z_0) + log q(z_0 | x) alone falls below the entropy, here 8; to 1e-5."""
    terms = elbo_of_all(gamma_0)
    found = (terms.latent + terms.diffusion).item()
    assert found == pytest.approx(bits, abs=1e-5)
    assert found < 8


@pytest.mark.parametrize(("gamma_0", "bits"), [(BLUNT, 6.902648), (-6.0, 5.004871), (0.0, 2.105069)])
def test_another_weight_and_a_constant_decoder_make_no_bound(gamma_0: float, bits: float) -> None:
    """L8's forbidden numbers, to 1e-5: the "IT bound" of Shen et al. 2025, of all 256 levels.

    Its weight is alpha^2 and its reconstruction the entropy of z_1: as low as one likes, by raising gamma_0.
    """
    data = SOURCES["all"]
    model, own = source_model(data, gamma_0), half(data)
    (t, of_t), (eps, of_eps) = legendre(48), normal_grid(0.25, 6.5)
    x = model.scale(own.repeat(len(eps))[:, None], torch.float64)
    noise, total = eps.repeat_interleave(len(own))[:, None], 0.0
    for at, weight in zip(t, of_t, strict=True):
        error, slope = model.rate_error(x, at.expand(len(x)), noise)
        rate = (of_eps @ error.square().reshape(len(eps), -1).mean(1)) * slope[0] / 2
        total += (weight * torch.sigmoid(-model.schedule(at)) * rate).item()
    precision = 1 / (1 + math.exp(GAMMA_1))
    square = scaled(data, 256, torch.float64).square().mean().item()
    last = 0.5 * math.log2(2 * math.pi) + (1 - precision + precision * square) / (2 * math.log(2))
    assert last + total / math.log(2) == pytest.approx(bits, abs=1e-5)
    assert bits < 8


@pytest.mark.parametrize(
    ("levels", "gamma_0", "tau", "mass"), [(256, GAMMA_0, 3.01868877, 0.99746129), (17, -7.9, 3.05502, None)]
)
def test_constants_of_the_cut_noise(levels: int, gamma_0: float, tau: float, mass: float | None) -> None:
    """L12: tau and the mass within it; the entropy that is lost, -.01522085, by sampling, 3 standard errors."""
    model = gaussian_model(1.0, levels=levels, schedule=LinearSchedule(gamma_0, GAMMA_1))
    found = truncation(model, torch.tensor(gamma_0, dtype=torch.float64))
    assert found.item() == pytest.approx(tau, abs=1e-5 if mass is None else 1e-8)
    if mass is not None:
        assert torch.erf(found / math.sqrt(2)).item() == pytest.approx(mass, abs=1e-8)
        eps = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        cut = centred(eps, found).cut(eps)
        assert cut.abs().max() <= found
        log_q = -0.5 * cut.square() - 0.5 * math.log(2 * math.pi) - math.log(mass)
        plain = -0.5 * math.log(2 * math.pi * math.e)
        error = log_q.std().item() / math.sqrt(len(eps))
        assert -log_q.mean().item() + plain == pytest.approx(-0.01522085, abs=3 * error)


def test_more_draws_are_tighter() -> None:
    """Of a network that is far from the data's, so that the weights of draws differ: by more than twice the error."""
    torch.manual_seed(0)
    model, images = model_of(Smooth(2), dims=2, levels=4), torch.randint(0, 4, (60, 2))
    eps = torch.randn(16, 60, 2, dtype=torch.float64)
    one, many = (dequantised_bound(model, images, eps[:k], tolerance=1e-3) for k in (1, 16))
    gained = one - many
    assert gained.mean() > 2 * gained.std() / math.sqrt(len(gained))


def test_all_draws_share_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """L14: K weights whose traces have noise of their own give a number below the bound; the exact one has none."""
    torch.manual_seed(0)
    model, images = model_of(Smooth(), dims=3), torch.randint(0, 256, (2, 3))
    probes: list[Tensor | None] = []

    def record(model: DiffusionModel, z: Tensor, labels: object, probe: Tensor | None, tolerance: float) -> Tensor:
        probes.append(probe)
        return torch.zeros(len(z), dtype=torch.float64)

    monkeypatch.setattr(likelihoods, "log_density", record)
    probe = torch.randn(2, 3)
    dequantised_bound(model, images, torch.randn(3, 2, 3), probe=probe)
    dequantised_bound(model, images, torch.randn(3, 2, 3))
    assert all(given is probe for given in probes[:3])
    assert probes[3:] == [None] * 3


def test_the_weights_of_draws_against_their_definition() -> None:
    """-log of the mean of p(z_0) / q(z_0 | x), with torch's own truncated normal by its density; Gaussian marginals."""
    model, images = gaussian_model(0.3, levels=256), torch.tensor([[3], [200]])
    eps = torch.randn(5, 2, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gamma = torch.tensor(GAMMA_0, dtype=torch.float64)
    tau = truncation(model, gamma)
    cut = centred(eps, tau).cut(eps)
    alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
    z_0 = alpha * scaled(images, 256, torch.float64) + sigma * cut
    spread = 0.3 * alpha**2 + sigma**2
    last = torch.tensor(GAMMA_1, dtype=torch.float64)
    spread = spread / (0.3 * torch.sigmoid(-last) + torch.sigmoid(last))
    p = torch.distributions.Normal(0.0, spread.sqrt()).log_prob(z_0)
    q = torch.distributions.Normal(0.0, 1.0).log_prob(cut) - sigma.log() - torch.erf(tau / math.sqrt(2)).log()
    expected = -(p - q).sum(-1).exp().mean(0).log()
    torch.testing.assert_close(dequantised_bound(model, images, eps, tolerance=1e-8), expected, rtol=1e-5, atol=1e-5)


def test_no_draws() -> None:
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        dequantised_bound(gaussian_model(1.0), torch.zeros(1, 1).long(), torch.zeros(0, 1, 1).double())
