"""The probability flow of a trained encoder by a second network: exact ones, and what trains it."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from datamodules import Digits
from lightning_modules.checkpoints import load_module
from likeness.diffusion.dequantisation import fit_dequantisation
from likeness.diffusion.elbo import Prediction
from likeness.diffusion.flow import flow_matching_loss, log_density, require_flow, velocity
from likeness.diffusion.likelihoods import dequantised_bound, flow_bound
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import alpha, broadcast, scaled, sigma
from likeness.diffusion.sampling import sample
from likeness.diffusion.schedules import gamma_grid
from likeness.seeding import generator
from tests.lightning_modules.test_multivariate_training import QUIET
from tests.lightning_modules.tiny_diffusion import diffenc
from tests.likeness.diffusion.exact_models import (
    GAMMA_0,
    GAMMA_1,
    DiscreteHead,
    Echo,
    GaussianHead,
    encoder_of,
    factor_of,
    four_signs,
    gaussian_model,
    legendre,
    model_of,
)
from tests.likeness.diffusion.source_models import SOURCES

VARIANCE, KAPPA = 0.3, 0.5


class FlowHead(nn.Module):
    """E[x_t - 2 dx_t/dgamma | z] = (m - 2 m') E[x | z] of a head that knows E[x | z], as a network answers it."""

    def __init__(self, known: GaussianHead | DiscreteHead, prediction: Prediction, gain: float = 1.0) -> None:
        super().__init__()
        self.known, self.prediction = known, prediction
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    @override
    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        gamma = broadcast(gamma, z)
        a, s, (m, rate) = alpha(gamma), sigma(gamma), self.known.factor(gamma)
        q = self.gain * (m - 2 * rate) * self.known.posterior_mean(z, a * m, s)
        if self.prediction == "x":
            return q
        return (a * z - q) / s if self.prediction == "v" else (z - a * q) / s


def gaussian(prediction: Prediction = "v", kappa: float = KAPPA) -> DiffusionModel:
    """Of N(0, VARIANCE) under a "trained" encoder y = kappa x, whose score network says nothing of the flow."""
    known = GaussianHead(VARIANCE, factor_of(kappa), prediction, False)
    head = FlowHead(known, prediction)
    return model_of(Echo(), encoder_of(kappa), prediction=prediction, flow_head=head)


def spread(gamma: float, kappa: float) -> float:
    """The standard deviation of z."""
    at = torch.tensor(gamma, dtype=torch.float64)
    m, _ = factor_of(kappa)(at)
    return float((torch.sigmoid(-at) * m**2 * VARIANCE + torch.sigmoid(at)).sqrt())


@pytest.mark.parametrize("prediction", ["v", "eps", "x"])
def test_the_density_of_gaussian_data_is_known(prediction: Prediction) -> None:
    """The flow stretches z from its deviation at gamma_0 to that at gamma_1, where it is taken to be 1."""
    z = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    stretch = spread(GAMMA_1, KAPPA) / spread(GAMMA_0, KAPPA)
    expected = -0.5 * ((stretch * z[:, 0]) ** 2 + math.log(2 * math.pi)) + math.log(stretch)
    torch.testing.assert_close(log_density(gaussian(prediction), z, tolerance=1e-8), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_it_is_the_flow_where_that_is_known(kappa: float) -> None:
    """Of the identity and the parameter-free encoder, as their own networks tell it."""
    z, gamma = torch.randn(6, 1, generator=generator()).double(), torch.tensor(-2.0, dtype=torch.float64)
    own = gaussian_model(VARIANCE, kappa, counter_term=kappa != 1)
    torch.testing.assert_close(velocity(gaussian(kappa=kappa), z, gamma), velocity(own, z, gamma))


def test_the_loss_is_least_at_the_exact_head() -> None:
    """Its gradient with respect to a gain is zero there, on quadratures that are exact, and nowhere else; nothing
    but the head has one."""
    (t, weight), (x, eps) = legendre(20), four_signs(math.sqrt(VARIANCE))
    gradients = []
    for gain in (1.0, 0.9, 1.1):
        model = gaussian()
        nn.init.constant_(model.flow_head.gain, gain)  # type: ignore[union-attr, arg-type]
        losses = [flow_matching_loss(model, x, at.expand(4), eps).mean() for at in t]
        (torch.stack(losses) * weight).sum().backward()
        gradients.append(model.flow_head.gain.grad.item())  # type: ignore[union-attr]
        assert [name for name, p in model.named_parameters() if p.grad is not None] == ["flow_head.gain"]
    assert abs(gradients[0]) < 1e-10
    assert gradients[1] < -1e-3
    assert gradients[2] > 1e-3


def test_of_vdm_it_is_the_diffusion_term() -> None:
    model = gaussian(kappa=1.0)
    model.flow_head = model.network
    x, eps = torch.rand(5, 1, generator=generator()).double(), torch.randn(5, 1, generator=generator()).double()
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    torch.testing.assert_close(flow_matching_loss(model, x, t, eps), model.diffusion_loss(x, t, eps))


@pytest.mark.parametrize(("name", "entropy"), [("two levels", 1.0), ("sixteen", 4.0)])
def test_its_bounds_are_none_below_the_entropy(name: str, entropy: float) -> None:
    """Exact heads of a trained encoder on sources of known entropy: close above it, a wrong head further up."""
    data = SOURCES[name]
    known = DiscreteHead(scaled(data, 256, torch.float64), factor_of(KAPPA), "v", False)
    found = []
    for gain in (1.0, 0.99):
        model = model_of(Echo(), encoder_of(KAPPA), flow_head=FlowHead(known, "v", gain))
        images = data.repeat(160 // len(data))[:, None]
        eps = torch.randn(1, len(images), 1, generator=generator(2)).double()
        nats = dequantised_bound(model, images, eps, tolerance=1e-5), flow_bound(model, images, eps[0], tolerance=1e-5)
        found.append([float(each.mean()) / math.log(2) for each in nats])
        error = max(float(each.std()) for each in nats) / math.log(2) / math.sqrt(len(images))
        assert min(found[-1]) > entropy - 1e-5 - 3 * error
    assert found[0] == pytest.approx([entropy + 0.0037, entropy + 0.0105], abs=0.01 + 3 * error)
    assert found[1][0] > found[0][0]


def test_samples_run_along_it() -> None:
    """Two levels come back as two levels, by the exact head's flow in steps of the first order."""
    known = DiscreteHead(scaled(SOURCES["two levels"], 256, torch.float64), factor_of(KAPPA), "v", False)
    model = model_of(Echo(), encoder_of(KAPPA), flow_head=FlowHead(known, "v"))
    levels = sample(model, 200, gamma_grid(model.schedule, 200), generator(), "flow").levels
    away = torch.stack([(levels - 64).abs(), (levels - 192).abs()]).amin(0)
    assert away.max() <= 1
    assert (away == 0).float().mean() > 0.97
    assert 60 < int((levels < 128).sum()) < 140


def test_without_one_the_flow_is_refused() -> None:
    require_flow(gaussian())
    with pytest.raises(ValueError, match=r"flow of TrainableEncoder is unknown.*trained with a flow_head"):
        require_flow(model_of(Echo(), encoder_of(KAPPA)))
    with pytest.raises(ValueError, match="flow matching trains a flow head, but the model has none"):
        flow_matching_loss(model_of(Echo()), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1))


def test_training_it_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    """Three steps with a head and three without end in the same weights of everything else, and the head has moved."""
    trained = []
    for head in (False, True):
        module = diffenc(flow_head=head, seed=1)
        trainer = pl.Trainer(default_root_dir=tmp_path, max_steps=3, limit_val_batches=0, log_every_n_steps=1, **QUIET)
        trainer.fit(module, Digits(batch_size=8, seed=1))
        trained.append(module)
    plain, own = (module.state_dict() for module in trained)
    assert all(torch.equal(weight, own[name]) for name, weight in plain.items())
    assert float(trainer.logged_metrics["train/flow_matching"]) > 0
    start = diffenc(flow_head=True, seed=1).state_dict()
    assert any(not torch.equal(start[name], own[name]) for name in own if "flow_head" in name)
    trainer.save_checkpoint(tmp_path / "head.ckpt")
    model = load_module(tmp_path / "head.ckpt").eval().diffusion
    learned = fit_dequantisation(model, _images(), generator(), 2)
    assert learned.out.weight.abs().max() > 0


def _images() -> list[tuple[Tensor, None]]:
    return [(torch.randint(0, 17, (2, 1, 8, 8), generator=generator()), None)]
