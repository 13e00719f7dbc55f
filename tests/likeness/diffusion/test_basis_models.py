"""Models whose latent variables live in another basis: bounds, steps, samples, densities and streams."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from likeness.diffusion import likelihoods
from likeness.diffusion.basis import CascadeSchedule, Composed, Haar, OpponentColours
from likeness.diffusion.coding import Coder
from likeness.diffusion.dequantisation import fit_dequantisation
from likeness.diffusion.diagnostics.by_depth import direction_at, mean_at, mean_change
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.flow import log_density
from likeness.diffusion.likelihoods import dequantised_bound, flow_bound, log_weight
from likeness.diffusion.model import Basis, DiffusionModel
from likeness.diffusion.process import scaled
from likeness.diffusion.sampling import sample
from likeness.diffusion.schedules import AffineSchedule, LinearSchedule, NoiseSchedule, gamma_grid
from tests.likeness.diffusion.exact_models import GAMMA_0, GAMMA_1, DiscreteHead, Smooth, factor_of, legendre
from tests.likeness.diffusion.source_models import BLUNT, SOURCES

SHAPE = (3, 2, 2)
DIMS = 12
BASIS = Composed([OpponentColours(), Haar()])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(kind: str = "VDM", basis: Basis | None = BASIS, **options: object) -> DiffusionModel:
    """Small networks that have learned nothing; the same whatever the basis."""
    torch.manual_seed(0)
    encoder: DepthEncoder = {"VDM": IdentityEncoder, "NT": ParameterFreeEncoder}.get(kind, IdentityEncoder)()
    network = Smooth(DIMS)
    if kind == "DiffEnc":
        encoder = TrainableEncoder(Smooth(DIMS))
    return DiffusionModel(
        network, encoder, LinearSchedule(), SHAPE, 256, counter_term=kind != "VDM", basis=basis, **options
    ).double()


@pytest.mark.parametrize("kind", ["VDM", "NT", "DiffEnc"])
@pytest.mark.parametrize("num_steps", [None, 5])
@pytest.mark.parametrize("lean", [False, True])
def test_with_one_gamma_it_is_the_model_of_pixels(kind: str, num_steps: int | None, lean: bool) -> None:
    """All terms of the model fed R^T eps, to 1e-6 relative."""
    images = torch.randint(0, 256, (6, *SHAPE), generator=generator())
    eps_0, eps = (torch.randn(6, *SHAPE, generator=generator(seed), dtype=torch.float64) for seed in (1, 2))
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    rotated, plain = smooth(kind, num_steps=num_steps), smooth(kind, None, num_steps=num_steps)
    found = rotated.elbo_terms(images, t=t, eps_0=eps_0, eps=eps, lean=lean)
    expected = plain.elbo_terms(images, t=t, eps_0=BASIS.inverse(eps_0), eps=BASIS.inverse(eps), lean=lean)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    wrong = plain.elbo_terms(images, t=t, eps_0=eps_0, eps=eps, lean=lean)
    assert (wrong.diffusion / expected.diffusion - 1).abs().max() > 1e-3


def test_the_plug_in_drift_and_what_is_looked_at() -> None:
    """The encoder at x_hat and its dual pass too; means and directions are shown in pixels."""
    images, t = torch.randint(0, 256, (4, *SHAPE), generator=generator()), torch.linspace(0.1, 0.9, 4).double()
    eps = torch.randn(4, *SHAPE, generator=generator(1), dtype=torch.float64)
    pair = []
    for basis, noise in ((BASIS, eps), (None, BASIS.inverse(eps))):
        model = smooth("DiffEnc", basis)
        model.counter_term, model.plug_in = False, True
        rates = model.diffusion_loss(model.scale(images), t, noise)
        model.num_steps = 3
        steps = model.diffusion_loss(model.scale(images), t, noise)
        shown = (mean_at(model, images, 0.5), direction_at(model, images, 0.5), mean_change(model, images, 0.4, 0.5))
        middle = model.features(images, t)
        pair.append((rates, steps, *shown, middle))
    torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", ["ancestral", "flow"])
@pytest.mark.parametrize("clip_quantile", [None, 0.6])
def test_samples_are_images(method: str, clip_quantile: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rotated noise the same grey levels and the same path, which is kept in pixels; clipped there too."""
    grid, options = gamma_grid(LinearSchedule(), 6), {"clip_quantile": clip_quantile, "keep_every": 2}
    plain = sample(smooth(basis=None), 5, grid, generator(), method, **options)
    original = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **named: BASIS(original(*size, **named)))
    found = sample(smooth(), 5, grid, generator(), method, **options)
    assert torch.equal(found.levels, plain.levels)
    for one, other in zip(found.path, plain.path, strict=True):
        torch.testing.assert_close(one.z, other.z, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(one.x_hat, other.x_hat, rtol=1e-6, atol=1e-9)


def test_decoders_and_cells_are_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the flow's bounds and of a weighted path, with the same rotated noise; the density is one that is known."""
    images = torch.randint(0, 256, (2, *SHAPE), generator=generator())
    eps = 3 * torch.randn(2, *SHAPE, generator=generator(1), dtype=torch.float64)
    model, plain = smooth(num_steps=3), smooth(basis=None, num_steps=3)

    def known(model: DiffusionModel, z: Tensor, *_: object) -> Tensor:
        return model.pixels(z)[:, 0].flatten(1).exp().sum(1)

    monkeypatch.setattr(likelihoods, "log_density", known)
    found, expected = flow_bound(model, images, eps), flow_bound(plain, images, BASIS.inverse(eps))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert (flow_bound(plain, images, eps) - expected).abs().min() > 0.2
    for draws in (eps[None], torch.stack([eps, -eps])):
        found, expected = (dequantised_bound(each, images, draws) for each in (model, plain))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    expected = log_weight(plain, images, generator())
    original = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **named: BASIS(original(*size, **named)))
    torch.testing.assert_close(log_weight(model, images, generator()), expected, rtol=1e-6, atol=0)


def test_the_density_is_that_of_pixels() -> None:
    """Within the solver's tolerance: the map has determinant 1."""
    z = torch.randn(1, *SHAPE, generator=generator(), dtype=torch.float64)
    found, expected = (
        log_density(smooth(), BASIS(z), tolerance=1e-4),
        log_density(smooth(basis=None), z, tolerance=1e-4),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1)
    assert expected.abs().item() > 3


def test_a_dequantisation_is_of_pixels() -> None:
    """It is learned alike in both."""
    images = torch.randint(0, 256, (3, *SHAPE), generator=generator())
    x, tau = scaled(images, 256, torch.float64), torch.ones((), dtype=torch.float64)
    fits = [fit_dequantisation(each, [(images, None)], generator(), 5, 0.1) for each in (smooth(), smooth(basis=None))]
    one, other = (fit(x, tau).shift for fit in fits)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert one.abs().max() > 1e-3


class GaussianImages(nn.Module):
    """The exact network, in eps, of images from N(0, covariance), at a gamma of each coefficient of a basis."""

    def __init__(self, covariance: Tensor, basis: Basis) -> None:
        super().__init__()
        self.covariance, self.basis = covariance, basis

    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        rows = self.basis(torch.eye(DIMS, dtype=z.dtype).reshape(DIMS, *SHAPE)).flatten(1)  # R^T
        gamma = gamma.reshape(len(z), -1).expand(len(z), DIMS)
        signal, noise = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma)
        of_coefficients = rows.T @ self.covariance @ rows
        mixed = signal[:, :, None] * of_coefficients * signal[:, None, :] + torch.diag_embed(noise)
        seen = self.basis(z).flatten(1)
        eps_hat = noise.sqrt() * torch.linalg.solve(mixed, seen[..., None])[..., 0]
        return self.basis.inverse(eps_hat.reshape(z.shape))


def cascade(floor: float = 0.1, gamma_0: float = GAMMA_0) -> CascadeSchedule:
    return CascadeSchedule(gamma_0, GAMMA_1, floor)


@pytest.mark.parametrize("schedule", [LinearSchedule(GAMMA_0, GAMMA_1), cascade(), cascade(0.0)])
def test_no_cascade_gains_anything_of_an_exact_vdm(schedule: NoiseSchedule) -> None:
    """L4 for images, to 1e-6: the ratio of two determinants, whatever the path; pixels and colours are correlated."""
    root = torch.randn(DIMS, DIMS, generator=generator(), dtype=torch.float64) / DIMS**0.5
    covariance = root @ root.T
    head = GaussianImages(covariance, BASIS)
    model = DiffusionModel(head, IdentityEncoder(), schedule, SHAPE, 256, "eps", basis=BASIS).double()
    ends = [torch.logdet(torch.eye(DIMS).double() + math.exp(-gamma) * covariance) for gamma in (GAMMA_0, GAMMA_1)]
    half, weights = legendre(80)
    t, weights = torch.cat([half / 2, half / 2 + 0.5]), torch.cat([weights, weights]) / 2  # of both sides of the corner
    points = math.sqrt(2 * DIMS) * torch.eye(2 * DIMS, dtype=torch.float64)  # over which a quadratic has its mean
    x, eps = points[:, :DIMS] @ torch.linalg.cholesky(covariance).T, points[:, DIMS:]
    total = 0.0
    for at, weight in zip(t, weights, strict=True):
        loss = model.diffusion_loss(BASIS(x.reshape(-1, *SHAPE)), at.expand(len(x)), eps.reshape(-1, *SHAPE))
        total += (weight * loss.mean()).item()
    assert total == pytest.approx(((ends[0] - ends[1]) / 2).item(), abs=1e-6)


class LevelsOfBlocks(DiscreteHead):
    """The exact network of four independent pixels, each of two levels, at any path: by all sixteen images."""

    @override
    def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        basis, images = Haar(), torch.cartesian_prod(*[self.values] * 4).reshape(-1, 1, 2, 2)
        gamma = gamma.reshape(len(z), -1, 1, 1) if gamma.dim() == 1 else gamma
        signal, noise = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
        away = (basis(z)[:, None] - signal[:, None] * basis(images)) / noise[:, None]
        chances = (-0.5 * away.square().flatten(2).sum(2)).softmax(1)
        x_hat = basis((chances @ images.flatten(1)).reshape(z.shape))
        return basis.inverse((signal * basis(z) - x_hat) / noise)


def block_model(schedule: NoiseSchedule, num_steps: int | None = None) -> DiffusionModel:
    head = LevelsOfBlocks(scaled(SOURCES["two levels"], 256, torch.float64), factor_of(1.0), "v", False)
    return DiffusionModel(head, IdentityEncoder(), schedule, (1, 2, 2), 256, num_steps=num_steps, basis=Haar()).double()


def block_images(count: int) -> Tensor:
    return SOURCES["two levels"][torch.randint(0, 2, (count, 1, 2, 2), generator=generator(5))]


@pytest.mark.parametrize("gamma_0", [GAMMA_0, BLUNT])
def test_along_a_cascade_no_bound_falls_below_the_entropy(gamma_0: float) -> None:
    """L8's two levels, 1 bit a pixel: of the ELBO by 20,000 draws, of the others by a few, and three standard errors.

    L8's own numbers hold as no path gains anything: 1.010462 and 3.771381.
    """
    model, images = block_model(cascade(gamma_0=gamma_0)), block_images(20_000)
    eps_0, eps = (torch.randn(images.shape, generator=generator(seed), dtype=torch.float64) for seed in (1, 2))
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = {
        "ELBO": model.elbo_terms(images, t=t, eps_0=eps_0, eps=eps).total,
        "ODE": flow_bound(model, images[:4], eps_0[:4], tolerance=1e-3),
        "ODE-TN": dequantised_bound(model, images[:4], eps_0[None, :4], tolerance=1e-3),
    }
    model.num_steps = 40
    found["IW"] = -log_weight(model, images[:200], generator(3))
    bits = {name: nats / (4 * math.log(2)) for name, nats in found.items()}
    errors = {name: 3 * each.std().item() / math.sqrt(len(each)) for name, each in bits.items()}
    for name, each in bits.items():
        assert each.mean().item() + errors[name] >= 1 - 1e-5, name
    known = 1.010462 if gamma_0 == GAMMA_0 else 3.771381
    assert bits["ELBO"].mean().item() == pytest.approx(known, abs=errors["ELBO"])
    assert errors["ELBO"] < 0.12


def test_the_low_band_of_a_sample_is_made_first() -> None:
    """In the middle of the cascade the blocks' sums are what they will be, and nothing else is."""
    model = block_model(cascade())
    kept = sample(model, 50, gamma_grid(model.schedule, 40), generator(), keep_every=20)
    middle, end = (Haar()(state.z) for state in kept.path)
    low = Haar().low((1, 2, 2))
    assert (middle - end)[:, low].abs().max() < 0.02
    assert (middle - end)[:, ~low].abs().mean() > 0.3
    assert torch.isin(kept.levels, SOURCES["two levels"]).float().mean() > 0.95


def test_streams_hold_images() -> None:
    pytest.importorskip("constriction")
    images = block_images(30)
    coder = Coder(block_model(cascade(), 8).eval(), batch_size=15)
    assert torch.equal(coder.decode(coder.encode(images)), images)


class Hidden(DepthEncoder):
    """Of which nothing is known."""


def test_refusals() -> None:
    network = Smooth(DIMS)
    for schedule, encoder, basis, message in [
        (cascade(), IdentityEncoder(), None, "CascadeSchedule says when the low band of a basis is made: set basis"),
        (AffineSchedule(), IdentityEncoder(), BASIS, "ends that stay the same for all coefficients, AffineSchedule"),
        (LinearSchedule(), IdentityEncoder(), Haar(2), r"sides that 4 divides, got \[3, 2, 2\]"),
        (LinearSchedule(), Hidden(), BASIS, "Hidden has no form in another basis, such as Composed"),
        (cascade(0.0), TrainableEncoder(Smooth(DIMS)), BASIS, "set a floor"),
    ]:
        with pytest.raises(ValueError, match=message):
            DiffusionModel(network, encoder, schedule, SHAPE, 256, basis=basis)


def test_gammas_of_a_cascade_fall_in_order() -> None:
    """Of each coefficient, so that a sampler takes the grid."""
    for later, earlier in pairwise(gamma_grid(block_model(cascade(), 9).schedule, 9)):
        assert (earlier < later).all()
