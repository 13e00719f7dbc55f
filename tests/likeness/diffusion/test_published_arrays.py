"""The authors' float32 numbers at random weights, as far as no network is needed: the mathematics alone."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import broadcast, log_likelihood
from likeness.diffusion.schedules import LinearSchedule
from tests.likeness.diffusion.exact_models import Echo
from tests.reference import FOLDER

WITHOUT_ENCODER_NETWORK = ("vdm_v_8x8x1", "diffenc_nontrainable_8x8x3")
NAMES = (*WITHOUT_ENCODER_NETWORK, "diffenc_trainable_16x16x3")
PATHS = {name: FOLDER / "diffenc" / f"{name}.npz" for name in NAMES}

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in PATHS.values()), reason=f"no reference data in {FOLDER / 'diffenc'}"
)


class Stored(nn.Module):
    """An inner encoder that answers what the authors' answered."""

    def __init__(self, y: Tensor, derivative: Tensor) -> None:
        super().__init__()
        self.y, self.derivative = y, derivative

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.y

    def with_derivative(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.y, self.derivative


@cache
def arrays(name: str) -> dict[str, Tensor]:
    with np.load(PATHS[name]) as stored:
        found = {key: stored[key] for key in stored.files if not key.startswith(("param:", "meta", "model_config"))}
    return {key: torch.from_numpy(value) for key, value in found.items()}


@cache
def model(name: str) -> DiffusionModel:
    with np.load(PATHS[name]) as stored:
        meta, config = (json.loads(str(stored[key])) for key in ("meta", "model_config"))
    counter_term = meta["kind"] != "VDM2_V"
    schedule = LinearSchedule(*meta["gamma"])
    levels = config["vocab_size"]
    encoder: DepthEncoder = ParameterFreeEncoder() if counter_term else IdentityEncoder()
    return DiffusionModel(Echo(), encoder, schedule, meta["shape"], levels, counter_term=counter_term)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_and_schedule(name: str) -> None:
    stored, found = arrays(name), model(name)
    torch.testing.assert_close(found.scale(stored["images"]), stored["x_scaled"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.schedule(stored["t"]), stored["gamma_t"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", WITHOUT_ENCODER_NETWORK)
def test_reconstruction_and_latent(name: str) -> None:
    """To 1e-5 relative, float32's rounding of z_0 and of the latent term's constant included."""
    stored, found = arrays(name), model(name)
    terms = found.elbo_terms(stored["images"], t=stored["t"], eps_0=stored["eps_0"], eps=stored["eps_t"])
    torch.testing.assert_close(terms.reconstruction, stored["loss_recon"], rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.latent, stored["loss_klz"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_decoder(name: str) -> None:
    """log p(x | z_0) eight deviations from the data, to 1e-5 relative."""
    stored, found = arrays(name), model(name)
    z = stored["x_scaled"] + 0.01 * stored["score_in_z"]
    gamma_0 = torch.tensor(found.schedule.gamma_min)
    for reach in (None, found.reach):
        logs = log_likelihood(stored["images"], z, gamma_0, found.levels, reach).flatten(1).sum(1)
        torch.testing.assert_close(logs, stored["logprob_of_x_at_x_plus_0.01z"], rtol=1e-5, atol=0)


def test_mean_of_the_trained_encoder() -> None:
    """x_t from the stored y; its derivative, less sigma^2 (y - x_t), is sigma^2 times one of y that is of order one."""
    stored = arrays("diffenc_trainable_16x16x3")
    variance = torch.sigmoid(broadcast(stored["gamma_t"], stored["y_t"]))
    of_y = stored["dx_t_dgamma"] / variance - (stored["y_t"] - stored["x_t"])
    encoder = TrainableEncoder(Stored(stored["y_t"], of_y))
    x_t, derivative = encoder.with_derivative(stored["x_scaled"], stored["gamma_t"])
    torch.testing.assert_close(x_t, stored["x_t"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(derivative, stored["dx_t_dgamma"], rtol=1e-4, atol=1e-8)
    assert of_y.abs().max() < 10
