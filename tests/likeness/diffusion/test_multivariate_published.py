"""The MuLAN authors' numbers at random weights, as far as no network is needed: schedule, losses, steps, the flow."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.diffusion.encoders import IdentityEncoder
from likeness.diffusion.flow import velocity
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.multivariate import LEAST, MultivariatePolynomial, MultivariateSchedule
from tests.reference import FOLDER

EPSILON, VELOCITY = "mulan_epsilon_gaussian_perpixel_8x8x1", "mulan_velocity_topk_8x8x3"
EACH = pytest.mark.parametrize("name", [EPSILON, VELOCITY])
pytestmark = pytest.mark.skipif(
    not (FOLDER / "mulan" / f"{VELOCITY}.npz").exists(), reason=f"no reference data in {FOLDER / 'mulan'}"
)


@cache
def arrays(name: str) -> dict[str, Tensor]:
    """Channels last, as theirs."""
    with np.load(FOLDER / "mulan" / f"{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key]) for key in file.files if ":" not in key and file[key].dtype.kind in "fi"
        }


class OfEachSample(MultivariateSchedule):
    """A polynomial for each sample, as a context makes it, of the coefficients that the authors' network answered."""

    def __init__(self, stored: dict[str, Tensor]) -> None:
        super().__init__()
        shape = stored["images"].shape[1:]
        self.each = nn.ModuleList(MultivariatePolynomial(floor=0.0, dims=shape) for _ in stored["images"])
        with torch.no_grad():
            for schedule, a, b, k in zip(self.each, *(stored[f"poly_{name}"] for name in "abc"), strict=True):
                schedule.a.copy_(a.reshape(shape))
                schedule.b.copy_(b.reshape(shape))
                schedule.raw.copy_(torch.log(torch.expm1(k.double() - LEAST)).reshape(shape))

    @override
    def with_derivative(self, t: Tensor) -> tuple[Tensor, Tensor]:
        found = [schedule.with_derivative(at) for schedule, at in zip(self.each, t, strict=True)]
        gamma, slope = (torch.stack(values) for values in zip(*found, strict=True))
        return gamma, slope

    @override
    def increment(self, t: Tensor, width: float) -> Tensor:
        return torch.stack([schedule.increment(at, width) for schedule, at in zip(self.each, t, strict=True)])


class Answers(nn.Module):
    """What the authors' score network answered."""

    answer: Tensor

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.answer


@cache
def model(name: str) -> DiffusionModel:
    stored = arrays(name)
    schedule, prediction = OfEachSample(stored), "eps" if name == EPSILON else "v"
    shape = stored["images"].shape[1:]
    return DiffusionModel(Answers(), IdentityEncoder(), schedule, shape, 256, prediction).requires_grad_(False)


@EACH
def test_schedule(name: str) -> None:
    """L15: gamma to 2e-5, its derivative to 2e-6 of the largest; the ends are theirs."""
    stored, schedule = arrays(name), model(name).schedule
    gamma, slope = schedule.with_derivative(stored["t"])
    torch.testing.assert_close(gamma, stored["gamma_t"], rtol=0, atol=2e-5)
    largest = stored["dgamma_dt"].max().item()
    torch.testing.assert_close(slope, stored["dgamma_dt"], rtol=0, atol=2e-6 * largest)
    for end, expected in zip(schedule.ends(gamma), (stored["gamma_0"], stored["gamma_1"]), strict=True):
        torch.testing.assert_close(end.expand_as(expected), expected, rtol=0, atol=4e-6)


@EACH
def test_terms_of_the_bound(name: str) -> None:
    """L15: without the context's divergence; the diffusion term to 1e-5 relative."""
    stored, own = arrays(name), model(name)
    own.network.answer = stored["score_out"]
    terms = own.elbo_terms(stored["images"], t=stored["t"], eps_0=stored["eps_0"], eps=stored["eps_t"])
    torch.testing.assert_close(terms.diffusion, stored["loss_diff"], rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.latent, stored["loss_klz"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(terms.reconstruction, stored["loss_recon"], rtol=1e-4, atol=5e-5)


def test_finite_depth() -> None:
    """L15: the loss of their steps to 1e-5 relative, from increments that they take as differences."""
    stored, own = arrays(EPSILON), model(EPSILON)
    own.network.answer = stored["score_out_T"]
    own.num_steps = int(stored["T"])
    try:
        step = own.step_error(stored["x_scaled"], stored["t"], stored["eps_t"])
        torch.testing.assert_close(step.gamma_t, stored["gamma_t_T"], rtol=0, atol=2e-5)
        torch.testing.assert_close(step.gamma_s, stored["gamma_s_T"], rtol=0, atol=2e-5)
        loss = own.diffusion_loss(stored["x_scaled"], stored["t"], stored["eps_t"])
        torch.testing.assert_close(loss, stored["loss_diff_T"], rtol=1e-5, atol=0)
    finally:
        own.num_steps = None


@EACH
def test_a_step_of_the_sampler(name: str) -> None:
    """L15: along their maps, with their noise, to 1e-5."""
    stored, own = arrays(name), model(name)
    own.network.answer = stored["sample_step_score_out"]
    z, gamma_t, gamma_s = (stored[key] for key in ("score_in_z", "sample_step_gamma_t", "sample_step_gamma_s"))
    mean, variance = own.generative_step(z, gamma_s, gamma_t, own.predict(z, gamma_t))
    expected = stored["sample_step_out"]
    torch.testing.assert_close(mean + variance.sqrt() * stored["sample_step_eps"], expected, rtol=1e-5, atol=2e-5)


@EACH
def test_velocity_of_the_flow(name: str) -> None:
    """L15: dz/dt to 1e-5 relative."""
    stored, own = arrays(name), model(name)
    own.network.answer = stored["score_out"]
    gamma, slope = own.schedule.with_derivative(stored["t"])
    found = slope * velocity(own, stored["score_in_z"], gamma)
    torch.testing.assert_close(
        found, stored["flow_dz_dt"], rtol=1e-5, atol=1e-5 * stored["flow_dz_dt"].abs().max().item()
    )
