"""Data of a few grey levels with the exact posterior mean: the whole negative ELBO is the entropy of the data.

The test that goes from integers to bits per dimension through every term at once.
"""

import math

import pytest
import torch
from torch import Tensor

from likeness.diffusion.elbo import AnyTerms, Prediction, bits_per_dim
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled
from tests.likeness.diffusion.exact_models import (
    GAMMA_1,
    DiscreteHead,
    encoder_of,
    factor_of,
    legendre,
    model_of,
    normal_grid,
)


def discrete_model(
    data: Tensor, kappa: float = 1.0, counter_term: bool = False, prediction: Prediction = "v", levels: int = 256
) -> DiffusionModel:
    values = scaled(data, levels, torch.float64)
    head = DiscreteHead(values, factor_of(kappa), prediction, counter_term)
    return model_of(head, encoder_of(kappa), counter_term=counter_term, prediction=prediction, levels=levels)


def expected_terms(model: DiffusionModel, data: Tensor, times: int, step: float, reach: float = 7.0) -> AnyTerms:
    """The expectations of the terms in bits, over equally likely ``data`` [K], both noises and times."""
    (t, of_t), (eps, of_eps) = legendre(times), normal_grid(step, reach)
    weights = (of_eps[:, None] / len(data)).expand(-1, len(data)).flatten()
    noise, images = eps.repeat_interleave(len(data))[:, None], data.repeat(len(eps))[:, None]
    total = torch.zeros(len(model.terms_kind._fields), dtype=torch.float64)
    others = {} if model.context is None else {"eps_context": noise}
    for at, weight in zip(t, of_t, strict=True):
        terms = model.elbo_terms(images, t=at.expand(len(images)), eps_0=noise, eps=noise, **others)
        total += weight * torch.stack([(weights * bits_per_dim(term, 1)).sum() for term in terms])
    return model.terms_kind(*total)


def prior_bits(data: Tensor, levels: int = 256) -> float:
    """KL(q(z_1) || N(0, 1)) of the mixture q(z_1), in bits."""
    precision = 1 / (1 + math.exp(GAMMA_1))
    means, deviation = math.sqrt(precision) * scaled(data, levels, torch.float64), math.sqrt(1 - precision)
    z, weights = normal_grid(0.05, 9.0)
    components = torch.distributions.Normal(means, torch.tensor(deviation, dtype=torch.float64))
    ratio = components.log_prob(z[:, None]).logsumexp(-1) - math.log(len(data))
    ratio = ratio - torch.distributions.Normal(0.0, 1.0).log_prob(z)
    return ((weights * ratio.exp() * ratio).sum() / math.log(2)).item()


@pytest.mark.parametrize("prediction", ["v", "eps", "x"])
def test_two_points_are_one_bit(prediction: Prediction) -> None:
    """O15: 1.00000919 bits, of which .998786 are diffusion; to 1e-7.

    That is without the reconstruction, which does not know that only two of the 256 levels occur.
    """
    data = torch.tensor([64, 192])
    terms = expected_terms(discrete_model(data, prediction=prediction), data, 60, 0.1)
    assert (terms.latent + terms.diffusion).item() == pytest.approx(1.00000919, abs=1e-7)
    assert (terms.latent + terms.diffusion).item() == pytest.approx(1 + prior_bits(data), abs=1e-7)
    assert terms.diffusion.item() == pytest.approx(0.998786, abs=1e-6)
    assert terms.reconstruction.item() == pytest.approx(0.0104531880, abs=1e-9)


def test_sixteen_points_are_four_bits() -> None:
    """O15: to 1e-6, again without the reconstruction."""
    data = torch.arange(8, 256, 16)
    terms = expected_terms(discrete_model(data), data, 60, 0.2)
    assert (terms.latent + terms.diffusion).item() == pytest.approx(4 + prior_bits(data), abs=1e-6)


def test_uniform_pixels_are_eight_bits() -> None:
    """O15: 8.0000072 bits, to 1e-6, of all 256 levels: so close that the reconstruction takes part."""
    data = torch.arange(256)
    terms = expected_terms(discrete_model(data), data[128:], 48, 0.25, 6.5)  # the other half is its mirror image
    assert terms.total.item() == pytest.approx(8 + prior_bits(data), abs=1e-6)
    assert terms.total.item() == pytest.approx(8.0000072, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 17])
def test_uniform_data_of_fewer_levels(levels: int) -> None:
    """O15 for other numbers of grey levels: the entropy is their logarithm."""
    data = torch.arange(levels)
    terms = expected_terms(discrete_model(data, levels=levels), data, 60, 0.2)
    assert terms.total.item() == pytest.approx(math.log2(levels) + prior_bits(data, levels), abs=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.5, -1.0])
@pytest.mark.parametrize("counter_term", [True, False])
def test_no_encoder_gets_below_the_entropy(kappa: float, counter_term: bool) -> None:
    """O15: with y = kappa x and the best network the bound is above the entropy, which VDM alone reaches."""
    data = torch.tensor([64, 192])
    terms = expected_terms(discrete_model(data, kappa, counter_term), data, 60, 0.2)
    assert (terms.latent + terms.diffusion).item() > 1.001
