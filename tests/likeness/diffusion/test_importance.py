"""The importance-weighted bound: its weights, its mean, and what more samples do."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.likelihoods import importance_weighted_bound, log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import alpha, diffuse, log_likelihood, posterior, scaled, sigma
from likeness.diffusion.schedules import LinearSchedule
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.diffusion.volatility import LearnedVolatility
from tests.likeness.diffusion.exact_models import (
    DiscreteHead,
    Proportional,
    Smooth,
    encoder_of,
    factor_of,
    model_of,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_model(num_steps: int | None = 3, with_ratio: bool = True) -> DiffusionModel:
    """Nothing about it is simple: a trained encoder, the counter-term, a ratio of each dimension."""
    torch.manual_seed(0)
    ratio = LearnedRatio(dims=(3,)) if with_ratio else None
    model = model_of(Smooth(), TrainableEncoder(Smooth()), dims=3, counter_term=True, num_steps=num_steps, ratio=ratio)
    if ratio is not None:
        nn.init.normal_(ratio.head.bias, 0.5, 0.1)
    return model


def two_levels(num_steps: int, kappa: float) -> DiffusionModel:
    """The denoiser of data that are level 1 with probability 2 / 3 and level 0 otherwise."""
    values = scaled(torch.tensor([0, 1, 1]), 2, torch.float64)
    head = DiscreteHead(values, factor_of(kappa), "v", kappa != 1)
    schedule = LinearSchedule(-3.0, 4.0)  # the levels overlap at gamma_0
    return model_of(head, encoder_of(kappa), schedule, levels=2, counter_term=kappa != 1, num_steps=num_steps)


@pytest.mark.parametrize("volatility", [False, True])
def test_weight_is_the_ratio_of_the_joint_densities(volatility: bool) -> None:
    """log p(x, z) - log q(z | x) of the sampled path, factor by factor with torch.distributions; to 1e-9."""
    model, images = a_model(), torch.tensor([[0, 100, 255], [7, 8, 9]])
    if volatility:
        model.volatility = LearnedVolatility(dims=(3,)).double()
        nn.init.normal_(model.volatility.head.bias, 0.5, 0.3)
    found = log_weight(model, images, generator())
    torch.testing.assert_close(found, by_hand(model, images, generator()), rtol=1e-9, atol=1e-9)


def by_hand(model: DiffusionModel, images: Tensor, source: torch.Generator) -> Tensor:
    x, total = scaled(images, 256, torch.float64), torch.zeros(len(images), dtype=torch.float64)
    gammas = model.schedule(torch.linspace(1, 0, 4, dtype=torch.float64))
    means = [model.encoder(x, gamma.expand(len(x))) for gamma in gammas]

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=source, dtype=torch.float64)

    z = diffuse(means[0], gammas[0], noise())
    q = Normal(alpha(gammas[0]) * means[0], sigma(gammas[0]))
    total += (Normal(torch.zeros_like(z), 1).log_prob(z) - q.log_prob(z)).sum(1)
    for i in range(3):
        gamma_t, gamma_s = gammas[i], gammas[i + 1]
        kappa = None if model.volatility is None else model.volatility((gamma_s + gamma_t)[None] / 2)
        truth = posterior(z, means[i + 1], means[i], gamma_s, gamma_t, kappa)
        guess = model.generative_step(z, gamma_s, gamma_t, model.predict(z, gamma_t.expand(len(x))), model.ratio)
        z = truth.mean + truth.variance.sqrt() * noise()
        p, q = (Normal(step.mean, step.variance.sqrt().expand_as(z)) for step in (guess, truth))
        total += (p.log_prob(z) - q.log_prob(z)).sum(1)
    return total + log_likelihood(images, z / alpha(gammas[-1]), gammas[-1], 256).sum(1)


@pytest.mark.parametrize("with_ratio", [True, False])
def test_one_sample_is_the_elbo_in_expectation(with_ratio: bool) -> None:
    """The means of 4000 weights and of the ELBO's terms at all steps agree within 4 standard errors."""
    model, count = a_model(with_ratio=with_ratio), 4000
    images = torch.tensor([[20, 100, 230]]).expand(count, -1)
    weights = -log_weight(model, images, generator())
    drawn = torch.randn(2, count, 3, generator=generator(1), dtype=torch.float64)
    totals = []
    for number in range(3):
        t = torch.full((count,), (number + 0.5) / 3, dtype=torch.float64)
        totals.append(model.elbo_terms(images, t=t, eps_0=drawn[0], eps=drawn[1]).total)
    elbo = torch.stack(totals).mean(0)
    error = ((weights.var() + elbo.var()) / count).sqrt().item()
    assert weights.mean().item() == pytest.approx(elbo.mean().item(), abs=4 * error)


@pytest.mark.parametrize("kappa", [1.0, 0.0])
@pytest.mark.parametrize("level", [0, 1])
def test_more_samples_come_closer_to_the_likelihood(kappa: float, level: int) -> None:
    """One dimension, where p(x) can be had on a grid: falling in k, above it, and within .02 bits for 256 samples."""
    model, images = two_levels(4, kappa), torch.full((400, 1), level)
    samples = (1, 16, 256)
    bits = [importance_weighted_bound(model, images, k, generator()).mean().item() / math.log(2) for k in samples]
    exact = likelihood_bits(model, level)
    assert exact == pytest.approx(math.log2(3) - level, abs=0.2)  # the denoiser's data
    assert bits[0] > bits[1] > bits[2]
    assert bits[0] > exact + 0.1
    assert bits[2] == pytest.approx(exact, abs=0.02)


def likelihood_bits(model: DiffusionModel, level: int) -> float:
    """-log2 p(x) by integrating p(x | z_0) over each generative step in turn, on a grid of z."""
    z = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    assert model.num_steps is not None
    gammas = model.schedule(torch.linspace(0, 1, model.num_steps + 1, dtype=torch.float64))
    answer = log_likelihood(torch.full_like(z, level), z / alpha(gammas[0]), gammas[0], 2).exp()
    for gamma_s, gamma_t in pairwise(gammas):
        x_hat = model.predict(z[:, None], gamma_t.expand(len(z)))
        mean, variance = model.generative_step(z[:, None], gamma_s, gamma_t, x_hat)
        answer = Normal(mean, variance.sqrt()).log_prob(z).softmax(1) @ answer
    return -math.log2((Normal(0.0, 1.0).log_prob(z).softmax(0) @ answer).item())


def test_k_samples_are_the_mean_of_k_weights() -> None:
    model, images = a_model(), torch.tensor([[0, 100, 255]])
    source = generator(3)
    weights = torch.stack([log_weight(model, images, source) for _ in range(5)])
    expected = -(weights.exp().mean(0)).log()
    torch.testing.assert_close(importance_weighted_bound(model, images, 5, generator(3)), expected)


def test_images_and_labels_of_any_shape() -> None:
    torch.manual_seed(0)
    model = model_of(Smooth(12, num_labels=2), dims=12, num_steps=4)
    images = torch.randint(0, 256, (5, 3, 2, 2), generator=generator(), dtype=torch.uint8)
    one, other = (log_weight(model, images, generator(), torch.full((5,), label)) for label in (0, 1))
    assert one.shape == (5,)
    assert not torch.equal(one, other)


def test_weights_of_a_float32_model_are_summed_in_float64() -> None:
    weight = log_weight(a_model().float(), torch.tensor([[0, 100, 255]]), generator())
    assert weight.dtype == torch.float64


def test_infinite_depth_has_no_paths() -> None:
    with pytest.raises(ValueError, match="needs finite depth, got num_steps=None"):
        log_weight(a_model(None, with_ratio=False), torch.zeros(1, 3).long(), generator())


def test_number_of_samples_is_checked() -> None:
    model = model_of(Smooth(), TrainableEncoder(Proportional(0.5)), dims=3, num_steps=2)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        importance_weighted_bound(model, torch.zeros(1, 3).long(), 0, generator())
