"""The models of the DiffEnc authors' JAX code answer here what they answer there."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules import DiffEnc, VariationalDiffusion
from lightning_modules.checkpoints import load_module
from lightning_modules.published import load_published_diffusion
from likeness.diffusion.process import log_likelihood
from scripts.import_published import save
from tests.reference import FOLDER

NAMES = ("vdm_v_8x8x1", "diffenc_nontrainable_8x8x3", "diffenc_trainable_16x16x3")
TOLERANCE = 1e-4  # relative to the largest entry; both sides are float32
needs_files = pytest.mark.skipif(not (FOLDER / "diffenc").exists(), reason=f"no reference data in {FOLDER}")


class Reference:
    """What their code was given and answered, channels first."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / "diffenc" / f"{name}.npz") as file:
            self.arrays = dict(file)
        self.config: dict[str, Any] = json.loads(str(self.arrays["model_config"]))
        named = self.arrays.items()
        self.params = {name.removeprefix("param:"): value for name, value in named if name.startswith("param:")}

    def __getitem__(self, name: str) -> Tensor:
        value = torch.from_numpy(self.arrays[name])
        return value.permute(0, 3, 1, 2) if value.dim() == 4 else value

    def load(self) -> VariationalDiffusion:
        return load_published_diffusion(self.params, self.config)


@pytest.fixture(scope="module", params=NAMES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE * expected.abs().max().item())


@needs_files
@torch.no_grad()
def test_terms_of_the_bound(reference: Reference) -> None:
    model = reference.load()
    terms = model.elbo_terms(reference["images"], t=reference["t"], eps_0=reference["eps_0"], eps=reference["eps_t"])
    for found, name in zip(terms, ("loss_recon", "loss_klz", "loss_diff"), strict=True):
        torch.testing.assert_close(found, reference[name], rtol=TOLERANCE, atol=0)


@needs_files
@torch.no_grad()
def test_schedule_scaling_and_score_network(reference: Reference) -> None:
    diffusion = reference.load().diffusion
    gamma = diffusion.schedule(reference["t"])
    assert_close(gamma, reference["gamma_t"])
    assert_close(diffusion.scale(reference["images"]), reference["x_scaled"])
    assert_close(diffusion.network(reference["score_in_z"], gamma), reference["score_out"])


@needs_files
@torch.no_grad()
def test_trainable_encoder_and_its_derivative() -> None:
    reference = Reference("diffenc_trainable_16x16x3")
    encoder = reference.load().diffusion.encoder
    x, gamma = reference["x_scaled"], reference["gamma_t"]
    assert_close(encoder.network(x, gamma), reference["y_t"])
    x_t, derivative = encoder.with_derivative(x, gamma)
    assert_close(x_t, reference["x_t"])
    assert_close(derivative, reference["dx_t_dgamma"])


@needs_files
@torch.no_grad()
def test_an_ancestral_step(reference: Reference) -> None:
    diffusion = reference.load().diffusion
    i, steps = reference["sample_step_i"].tolist()
    gamma_t, gamma_s = diffusion.schedule(torch.tensor([(steps - i) / steps, (steps - i - 1) / steps]))
    z = reference["score_in_z"]
    step = diffusion.generative_step(z, gamma_s, gamma_t, diffusion.predict(z, gamma_t.expand(len(z))))
    found = step.mean + step.variance.sqrt() * reference["sample_step_eps"]
    assert_close(found, reference["sample_step_out"])


@needs_files
@torch.no_grad()
def test_decoder_far_from_the_data(reference: Reference) -> None:
    diffusion = reference.load().diffusion
    z = reference["x_scaled"] + 0.01 * reference["score_in_z"]
    gamma_0 = diffusion.schedule(torch.tensor(0.0))
    found = log_likelihood(reference["images"], z, gamma_0, diffusion.levels, diffusion.reach)
    torch.testing.assert_close(
        found.flatten(1).sum(1), reference["logprob_of_x_at_x_plus_0.01z"], rtol=TOLERANCE, atol=0
    )


@needs_files
@torch.no_grad()
def test_the_imported_checkpoint_is_the_model(reference: Reference, tmp_path: Path) -> None:
    model = reference.load()
    save(model, tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt").eval()
    noise = {"t": reference["t"], "eps_0": reference["eps_0"], "eps": reference["eps_t"]}
    for mine, theirs in zip(
        model.elbo_terms(reference["images"], **noise), loaded.elbo_terms(reference["images"], **noise), strict=True
    ):
        assert torch.equal(mine, theirs)


@needs_files
def test_kinds_become_the_modules_of_their_names() -> None:
    models = {name: Reference(name).load() for name in NAMES}
    assert isinstance(models["vdm_v_8x8x1"], VariationalDiffusion)
    assert isinstance(models["diffenc_trainable_16x16x3"], DiffEnc)
    assert not list(models["diffenc_nontrainable_8x8x3"].diffusion.encoder.parameters())
    counts = {name: sum(p.numel() for p in model.diffusion.parameters()) for name, model in models.items()}
    assert counts == {name: json.loads(str(Reference(name).arrays["meta"]))["n_params"] for name in NAMES}


@needs_files
@torch.no_grad()
def test_eps_prediction() -> None:
    reference = Reference("vdm_v_8x8x1")
    model = load_published_diffusion(reference.params, reference.config | {"ddpm_type": "VDM2"})
    noise = {"t": reference["t"], "eps_0": reference["eps_0"], "eps": reference["eps_t"]}
    found = model.elbo_terms(reference["images"], **noise).diffusion
    gamma = reference["gamma_t"][:, None, None, None]
    z = torch.sigmoid(-gamma).sqrt() * reference["x_scaled"] + torch.sigmoid(gamma).sqrt() * reference["eps_t"]
    error = reference["eps_t"] - model.diffusion.network(z, reference["gamma_t"])
    torch.testing.assert_close(found, 0.5 * 18.3 * error.square().sum((1, 2, 3)), rtol=1e-5, atol=0)


@needs_files
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ddpm_type": "S5"}, "ddpm_type 'S5'"),
        ({"gamma_type": "cosine"}, "gamma_type 'cosine'"),
        ({"vocab_size": 1}, "levels must be at least 2, got 1"),
        ({"gamma_min": 6.0}, "gamma_min"),
    ],
)
def test_configurations_that_are_not_theirs(change: dict[str, Any], message: str) -> None:
    reference = Reference("vdm_v_8x8x1")
    with pytest.raises(ValueError, match=message):
        load_published_diffusion(reference.params, reference.config | change)


@needs_files
def test_parameters_that_do_not_fit_are_listed() -> None:
    reference = Reference("diffenc_trainable_16x16x3")
    params = copy.copy(reference.params)
    params["score_model/conv_middle/kernel"] = params.pop("score_model/conv_in/kernel")
    params["score_model/conv_in/bias"] = params["score_model/conv_in/bias"][:-1]
    with pytest.raises(ValueError, match="score_model/conv_in/kernel") as caught:
        load_published_diffusion(params, reference.config)
    assert "score_model/conv_middle/kernel" in str(caught.value)
    assert "[31]" in str(caught.value)
    with pytest.raises(ValueError, match="there is no score_model/conv_out/bias"):
        load_published_diffusion({}, reference.config)
