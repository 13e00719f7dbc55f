"""The models of the MuLAN authors' JAX code answer here what they answer there, but for what a discrete context costs.

A gamma in float32 is off by 1e-5 in theirs, which the network's waves make 1e-3: through our own network at our own
gammas losses agree to 1e-4, of what theirs answered to 1e-5.
"""

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import VariationalDiffusion
from lightning_modules.checkpoints import load_module
from lightning_modules.published import load_published_diffusion
from lightning_modules.published.flax_weights import HEADS
from likeness.diffusion import DiffusionModel
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.flow import _with_divergence, velocity
from likeness.diffusion.hierarchy import Hierarchy
from likeness.diffusion.process import log_likelihood
from scripts.import_published import save
from tests.mulan_reference import EACH, EPSILON, VELOCITY, arrays, configuration, needs_mulan, parameters

pytestmark = needs_mulan
PREDICTIONS: dict[str, Any] = {EPSILON: "eps", VELOCITY: "v"}


@cache
def module(name: str) -> VariationalDiffusion:
    return load_published_diffusion(parameters(name), configuration(name), prediction=PREDICTIONS[name])


def model(name: str) -> DiffusionModel:
    return module(name).diffusion


def given(name: str) -> Hierarchy:
    """With the contexts that the authors drew."""
    return model(name).given(arrays(name)["c"])


def answering(name: str, answer: str) -> Hierarchy:
    """With what their network answered in place of ours."""
    known = given(name)
    known.network = Answers(arrays(name)[answer])
    return known


class Answers(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.answer


def noise(name: str) -> dict[str, Tensor]:
    stored = arrays(name)
    return {"t": stored["t"], "eps_0": stored["eps_0"], "eps": stored["eps_t"]}


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


@EACH
@torch.no_grad()
def test_schedule(name: str) -> None:
    """L15: gamma to 2e-5, its derivative to 2e-6 of the largest; the ends are theirs."""
    stored, schedule = arrays(name), given(name).schedule
    gamma, slope = schedule.with_derivative(stored["t"])
    torch.testing.assert_close(gamma, stored["gamma_t"], rtol=0, atol=2e-5)
    torch.testing.assert_close(slope, stored["dgamma_dt"], rtol=0, atol=2e-6 * stored["dgamma_dt"].max().item())
    for end, expected in zip(schedule.ends(gamma), (stored["gamma_0"], stored["gamma_1"]), strict=True):
        torch.testing.assert_close(end.expand_as(expected), expected, rtol=0, atol=4e-6)


@EACH
@torch.no_grad()
def test_terms_of_the_bound(name: str) -> None:
    """L15."""
    stored = arrays(name)
    for known, tolerance in ((given(name), 1e-4), (answering(name, "score_out"), 1e-5)):
        terms = known.elbo_terms(stored["images"], **noise(name))
        torch.testing.assert_close(terms.diffusion, stored["loss_diff"], rtol=tolerance, atol=0)
        torch.testing.assert_close(terms.latent, stored["loss_klz"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(terms.reconstruction, stored["loss_recon"], rtol=1e-4, atol=5e-5)


@torch.no_grad()
def test_the_gaussian_context_and_its_divergence() -> None:
    stored, own = arrays(EPSILON), model(EPSILON)
    drawn = own.context.draw(stored["x_scaled"], stored["latent_noise"])
    assert_close(drawn.value, stored["c"])
    torch.testing.assert_close(drawn.kl, stored["kl_c"], rtol=1e-5, atol=0)
    terms = own.elbo_terms(stored["images"], **noise(EPSILON), eps_context=stored["latent_noise"])
    bits = bits_per_dim(terms.total, own.dims).mean()
    torch.testing.assert_close(bits, stored["loss_bpd"], rtol=1e-4, atol=0)


def normal_noise() -> Tensor:
    """Of which the noise of their choice is the Gumbel noise."""
    return torch.special.ndtri(torch.exp(-torch.exp(-arrays(VELOCITY)["latent_noise"].double()))).float()


def of_one_softmax(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || uniform), [B]."""
    log_q = logits.log_softmax(1)
    return (log_q.exp() * log_q).sum(1) + math.log(logits.shape[1])


@torch.no_grad()
def test_the_context_of_k_of_m_is_theirs_and_its_price_is_not() -> None:
    """Their noise gives the same choice. They charge the divergence of one softmax, which is less than a bound must."""
    stored, own = arrays(VELOCITY), model(VELOCITY)
    drawn = own.context.draw(stored["x_scaled"], normal_noise())
    assert torch.equal(drawn.value, stored["c"].round())
    theirs = of_one_softmax(stored["latent_logits"])
    torch.testing.assert_close(theirs, stored["kl_c"])
    assert (drawn.kl > 2 * theirs).all()
    terms = own.elbo_terms(stored["images"], **noise(VELOCITY), eps_context=normal_noise())
    corrected = bits_per_dim(terms.total - terms.context + theirs, own.dims).mean()
    torch.testing.assert_close(corrected, stored["loss_bpd"], rtol=1e-4, atol=0)


class Values(nn.Module):
    """A schedule with the values of theirs at one t and the gradient of ours."""

    def __init__(self, schedule: nn.Module, stored: dict[str, Tensor]) -> None:
        super().__init__()
        self.ends, self.clock = schedule.ends, schedule.clock
        self.found = schedule.with_derivative(stored["t"])
        self.values = stored["gamma_t"], stored["dgamma_dt"]

    multivariate = True

    def with_derivative(self, t: Tensor) -> tuple[Tensor, ...]:
        return tuple(ours + (theirs - ours).detach() for ours, theirs in zip(self.found, self.values, strict=True))


@EACH
def test_gradients(name: str) -> None:
    """Of the mean of their loss, to 1e-3: through the schedule, and straight through a choice, with their divergence.

    At their gammas: in the last digits of a gamma float64 and float32 differ as well, and gradients then by a tenth.
    """
    stored, own = arrays(name), copy.deepcopy(model(name))
    noise_of_context = normal_noise() if name == VELOCITY else stored["latent_noise"]
    drawn = own.context.draw(stored["x_scaled"], noise_of_context)
    known = own.given(drawn.value)
    known.schedule = Values(known.schedule, stored)
    divergence = of_one_softmax(own.context.network(stored["x_scaled"])) if name == VELOCITY else drawn.kl
    total = known.elbo_terms(stored["images"], **noise(name)).total + divergence
    bits_per_dim(total, own.dims).mean().backward()
    expected = parameters(name, "grad:")
    found = {path: gradient for path, gradient in gradients(own).items() if path in expected}
    assert found.keys() == expected.keys()
    for path, gradient in found.items():
        assert_close(gradient, torch.from_numpy(expected[path]), 1e-3)


def gradients(own: DiffusionModel) -> dict[str, Tensor]:
    """Of some parameters, by their paths and in their layouts."""
    network, schedule, inferred = own.network, own.schedule, own.context.network
    layers = {"score_model/conv_in": network.conv_in, "score_model/conv_out": network.conv_out}
    layers |= {"encoder_model/conv_out": inferred.conv_out}
    layers |= {f"gamma/dense_{i + 1}": layer for i, layer in enumerate(schedule.hidden)}
    heads = HEADS[len(inferred.heads)]
    layers |= {f"encoder_model/{path}": head for path, head in zip(heads, inferred.heads, strict=True)}
    found = {f"{path}/bias": layer.bias.grad for path, layer in layers.items()}
    for path, head in zip("abc", (schedule.head_a, schedule.head_b, schedule.head_raw), strict=True):
        found[f"gamma/dense_out_{path}/bias"] = head.bias.grad.reshape(own.input_shape).permute(1, 2, 0).flatten()
    return found | {"score_model/conv_in/kernel": network.conv_in.weight.grad.permute(2, 3, 1, 0)}


@torch.no_grad()
def test_finite_depth() -> None:
    """L15: the loss of their steps, from increments that they take as differences."""
    stored, own = arrays(EPSILON), model(EPSILON)
    place = (stored["x_scaled"], stored["t"], stored["eps_t"])
    own.num_steps = int(stored["T"])
    try:
        for known, tolerance in ((given(EPSILON), 2e-4), (answering(EPSILON, "score_out_T"), 1e-5)):
            step = known.step_error(*place)
            torch.testing.assert_close(step.gamma_t, stored["gamma_t_T"], rtol=0, atol=2e-5)
            torch.testing.assert_close(step.gamma_s, stored["gamma_s_T"], rtol=0, atol=2e-5)
            torch.testing.assert_close(known.diffusion_loss(*place), stored["loss_diff_T"], rtol=tolerance, atol=0)
    finally:
        own.num_steps = None


@EACH
@torch.no_grad()
def test_a_step_of_the_sampler(name: str) -> None:
    """L15, with the noise of theirs: along their maps to 1e-5, along ours to 1e-4."""
    stored, known = arrays(name), given(name)
    i, steps = stored["sample_step_i"].tolist()
    ours = [known.schedule(torch.full((6,), (steps - j) / steps)) for j in (i, i + 1)]
    theirs = [stored[f"sample_step_gamma_{end}"] for end in "ts"]
    z = stored["score_in_z"]
    for (gamma_t, gamma_s), tolerance in ((ours, 1e-4), (theirs, 1e-5)):
        mean, variance = known.generative_step(z, gamma_s, gamma_t, known.predict(z, gamma_t))
        assert_close(mean + variance.sqrt() * stored["sample_step_eps"], stored["sample_step_out"], tolerance)


@EACH
def test_the_flow_and_its_divergence(name: str) -> None:
    """L15: dz/dt at their gammas to 1e-5, and for one sample at ours, with the exact trace, to 1e-4."""
    stored, known = arrays(name), given(name)
    with torch.no_grad():
        speed = stored["dgamma_dt"] * velocity(known, stored["score_in_z"], stored["gamma_t"])
    assert_close(speed, stored["flow_dz_dt"])
    first = model(name).given(stored["c"][:1])
    speed, divergence = _with_divergence(first, stored["score_in_z"][:1], stored["t"][0], None, None)
    assert_close(speed, stored["flow_dz_dt"][:1], 1e-4)
    assert_close(divergence, stored["flow_divergence"][:1], 1e-4)


@EACH
@torch.no_grad()
def test_decoder_far_from_the_data(name: str) -> None:
    stored, own = arrays(name), model(name)
    z = stored["x_scaled"] + 0.01 * stored["probe_z"]
    gamma_0, _ = own.schedule.ends(z)
    found = log_likelihood(stored["images"], z, gamma_0, own.levels, own.reach).flatten(1).sum(1)
    torch.testing.assert_close(found, stored["logprob_of_x_at_x_plus_0.01z"], rtol=1e-4, atol=0)


@EACH
@torch.no_grad()
def test_the_imported_checkpoint_is_the_model(name: str, tmp_path: Path) -> None:
    save(module(name), tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt").eval()
    images, size = arrays(name)["images"], model(name).context_size
    eps = torch.randn(6, size, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(
        module(name).elbo_terms(images, **noise(name), eps_context=eps),
        loaded.elbo_terms(images, **noise(name), eps_context=eps),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"prediction": None}, "v or eps, got None"),
        ({}, {"input_shape": [1, 4, 8]}, r"of 1 channels and 64 positions, .* got \[1, 4, 8\]"),
        ({"latent_type": "vq"}, {}, "latent_type 'vq'"),
        ({"unet_type": "dit"}, {}, "unet_type 'dit'"),
        ({"gamma_type": "linear"}, {}, "gamma_type 'linear', only poly_fixedend is known"),
        ({"velocity_from_epsilon": True}, {}, "velocity_from_epsilon True"),
        ({"latent_size": 13}, {}, r"score_model/dense0/kernel is \[44, 128\]"),
        ({"latent_type": "topk", "latent_size": 12}, {}, "there is no encoder_model/dense_layer_final/kernel"),
    ],
)
def test_what_is_not_theirs(change: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_published_diffusion(
            parameters(EPSILON), configuration(EPSILON) | change, **({"prediction": "eps"} | options)
        )


def test_parameters_that_do_not_fit_are_listed() -> None:
    params = dict(parameters(EPSILON))
    params["gamma/dense_3/kernel"] = params.pop("gamma/dense_2/kernel")
    del params["encoder_model/dense_layer_final_sigma/bias"]
    with pytest.raises(
        ValueError, match="missing: encoder_model/dense_layer_final_sigma/bias, gamma/dense_2/"
    ) as caught:
        load_published_diffusion(params, configuration(EPSILON), prediction="eps")
    assert "unexpected: gamma/dense_3/kernel" in str(caught.value)
