"""The volatility: the marginals stay, the bound moves, and the closed forms of the best one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from likeness.diffusion.diagnostics.bound_profiles import volatility_profile
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.fitting import fit_volatility
from likeness.diffusion.likelihoods import importance_weighted_bound
from likeness.diffusion.process import posterior
from likeness.diffusion.sampling import ancestral
from likeness.diffusion.schedules import MonotoneSchedule, PolynomialSchedule, gamma_grid
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.diffusion.volatility import FittedVolatility, LearnedVolatility, Volatility
from tests.likeness.diffusion.exact_models import Smooth, factor_of, four_signs, gaussian_model, model_of
from tests.likeness.diffusion.gaussian_batches import LEVELS, VARIANCE, four_rows, middles
from tests.likeness.diffusion.test_discrete_data import discrete_model, expected_terms
from tests.likeness.diffusion.test_gaussian_data import expected_diffusion, negative_elbo
from tests.likeness.diffusion.test_importance import likelihood_bits, two_levels

MAKE: dict[str, Callable[[], Volatility]] = {
    "learned": LearnedVolatility,
    "learned, per dimension": lambda: LearnedVolatility(dims=(3,)),
    "fitted": lambda: FittedVolatility(10),
    "fitted, per dimension": lambda: FittedVolatility(10, dims=(3,)),
}


class Known(Volatility):
    """kappa as a given function of gamma."""

    def __init__(self, of_gamma: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of_gamma = of_gamma

    @override
    def forward(self, gamma: Tensor) -> Tensor:
        return self.of_gamma(gamma)


def best_of(kappa: float) -> Known:
    """1 - 2 m'/m of the mean x_t = m(gamma) x with m = alpha^2 + kappa sigma^2: 1 + 2 sigma^2 without parameters."""

    def of_gamma(gamma: Tensor) -> Tensor:
        m, derivative = factor_of(kappa)(gamma)
        return 1 - 2 * derivative / m

    return Known(of_gamma)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("num_steps", [None, 10])
def test_all_start_at_one(make: Callable[[], Volatility], num_steps: int | None) -> None:
    """L9: the loss is the one without a volatility, bit for bit, in float32 and in float64."""
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        encoder = TrainableEncoder(Smooth())
        model = model_of(Smooth(), encoder, dims=3, counter_term=True, num_steps=num_steps).to(dtype)
        x, eps = torch.randn(2, 8, 3, dtype=dtype)
        t = torch.rand(8, dtype=dtype)
        expected = model.diffusion_loss(x, t, eps)
        model.volatility = make().to(dtype)
        assert torch.equal(model.diffusion_loss(x, t, eps), expected)


def test_the_marginals_stay() -> None:
    """z_s drawn by way of z_t has the mean alpha_s x_s and the variance sigma_s^2, whatever kappa; to 1e-14."""
    gamma_s, gamma_t = torch.tensor([-1.3, 0.4], dtype=torch.float64)
    x_s, x_t = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-0.7]], dtype=torch.float64)
    alpha_t, sigma_t = torch.sigmoid(-gamma_t).sqrt(), torch.sigmoid(gamma_t).sqrt()
    for kappa in (1e-3, 0.5, 1.0, 4.0, 50.0):
        kappas = torch.tensor([kappa], dtype=torch.float64)
        ends = [posterior(alpha_t * x_t + sigma_t * e, x_s, x_t, gamma_s, gamma_t, kappas) for e in (0.0, 1.0)]
        slope = ends[1].mean - ends[0].mean  # of the mean in eps_t
        assert ends[0].mean.item() == pytest.approx((torch.sigmoid(-gamma_s).sqrt() * x_s).item(), abs=1e-14)
        assert (slope**2 + ends[0].variance).item() == pytest.approx(torch.sigmoid(gamma_s).item(), abs=1e-14)


@pytest.mark.parametrize(
    ("kappa", "plain", "total"), [(0.0, 1.4804019354, 1.4189497810), (0.5, 1.4316621186, 1.4189450063)]
)
def test_the_best_volatility_closes_the_gap_of_the_encoder(kappa: float, plain: float, total: float) -> None:
    """L9's totals of Gaussian data, to 1e-9: at kappa = 1 those of DiffEnc, at 1 - 2 m'/m nearly VDM's."""
    model = gaussian_model(1.0, kappa, counter_term=True)
    assert negative_elbo(model, 1.0) == pytest.approx(plain, abs=1e-9)
    model.volatility = model.network.volatility = best_of(kappa)
    assert negative_elbo(model, 1.0) == pytest.approx(total, abs=1e-9)


def test_the_diffusion_term_without_parameters() -> None:
    """L9, to 1e-9: log((1 + s_0) / (1 + s_1)) / 2 with s = alpha^4 exp(-gamma)."""
    model = gaussian_model(1.0, 0.0, counter_term=True)
    model.volatility = best_of(0.0)
    assert expected_diffusion(model, 1.0) == pytest.approx(6.6499990118, abs=1e-9)


@pytest.mark.parametrize("kappa", [0.5, 2.0])
def test_vdm_has_nothing_to_gain(kappa: float) -> None:
    """L9: (1 + kappa)^2 / (4 kappa) times the diffusion term, 1.125 at both."""
    model = gaussian_model(1.0)
    plain = expected_diffusion(model, 1.0)
    model.volatility = Known(lambda gamma: torch.full_like(gamma, kappa))
    assert expected_diffusion(model, 1.0) == pytest.approx(1.125 * plain, rel=1e-12)


@pytest.mark.parametrize(
    ("data", "plain", "best", "counter_term"),
    [
        (torch.tensor([64, 192]), 1.042920, 1.010469, True),
        (torch.arange(8, 256, 16), 4.052791, 4.010469, True),
        (torch.arange(256), 8.042468, 8.000016, False),
    ],
    ids=["two levels", "sixteen", "all"],
)
def test_sources_of_known_entropy(data: Tensor, plain: float, best: float, counter_term: bool) -> None:
    """L9, to 2e-6 bits: the encoder without parameters costs .03 to .04 at kappa = 1, and next to nothing at the best.

    The decoder's prior is uniform over the 256 levels, so totals hold the .01 that it does not know.
    """
    half = data[128:] if len(data) == 256 else data  # the other half is its mirror image
    model = discrete_model(data, 0.0, counter_term)
    accuracy = (60, 0.2) if len(data) < 256 else (48, 0.25, 6.5)
    assert expected_terms(model, half, *accuracy).total.item() == pytest.approx(plain, abs=2e-6)
    model.volatility = model.network.volatility = best_of(0.0)
    found = expected_terms(model, half, *accuracy).total.item()
    assert found == pytest.approx(best, abs=2e-6)
    assert found >= math.log2(len(data)) - 1e-6


def test_the_gradient_vanishes_at_the_best() -> None:
    """L9, to 1e-8: of the expected loss by log kappa, at every depth by itself."""
    model = gaussian_model(1.0, 0.0, counter_term=True)
    t = torch.linspace(0.02, 0.98, 9, dtype=torch.float64)
    x, eps = four_signs(1.0)
    factor = torch.zeros(9, dtype=torch.float64, requires_grad=True)
    best = best_of(0.0)
    model.volatility = Known(lambda gamma: best(gamma) * torch.exp(factor).repeat_interleave(4))
    model.diffusion_loss(x.repeat(9, 1), t.repeat_interleave(4), eps.repeat(9, 1)).sum().backward()  # type: ignore[no-untyped-call]
    assert factor.grad is not None
    assert factor.grad.abs().max() < 1e-8


@pytest.mark.parametrize("num_steps", [3, 30])
@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_fitted_steps_are_the_best(num_steps: int, kappa: float) -> None:
    """Of each step by itself: no kappa near the fitted one costs less, in expectation over the fitted samples."""
    model = gaussian_model(0.25, kappa, counter_term=True, num_steps=num_steps, levels=2)
    images = torch.tensor([[0], [1]])
    fitted = fit_volatility(model, [(images.repeat(500, 1), None)], generator())

    def costs(factor: float) -> Tensor:
        """[num_steps], over the same noise as in the fit."""
        source, found = generator(), []
        model.volatility = Known(lambda gamma: factor * fitted(gamma))
        x = model.scale(images.repeat(500, 1), torch.float64)
        for index in range(num_steps):
            eps = torch.randn(1000, 1, generator=source, dtype=torch.float64)
            t = torch.full((1000,), (index + 0.5) / num_steps, dtype=torch.float64)
            found.append(model.diffusion_loss(x, t, eps).mean())
        return torch.stack(found)

    least = costs(1.0)
    for factor in (0.5, 0.98, 1.02, 2.0):
        assert (costs(factor) > least).all()
    assert fitted.kappa.max() > 1.05


def test_fitted_in_infinite_depth_is_the_closed_form() -> None:
    """1 + 2 sigma^2 at the bins' middles for Gaussian data without parameters, and exactly 1 for VDM."""
    images = torch.randint(0, 2, (4096, 1), generator=generator(1))  # +-1/2: of variance 1/4
    fitted = fit_volatility(gaussian_model(0.25, 0.0, counter_term=True, levels=2), [(images, None)], generator())
    middle = (fitted.edges[1:] + fitted.edges[:-1]) / 2
    torch.testing.assert_close(fitted.kappa, 1 + 2 * torch.sigmoid(middle), rtol=0.08, atol=0)
    vdm = fit_volatility(gaussian_model(0.25, levels=2), [(images, None)], generator())
    assert torch.equal(vdm.kappa, torch.ones(32, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [PolynomialSchedule, MonotoneSchedule])
@pytest.mark.parametrize("num_steps", [None, 4])
@pytest.mark.parametrize("dims", [None, (3,)])
def test_fitting_lowers_the_bound_of_a_trained_encoder(
    schedule: type[PolynomialSchedule], num_steps: int | None, dims: tuple[int, ...] | None
) -> None:
    """On the samples it was fitted on, in batches of any size; it survives a state dict."""
    torch.manual_seed(0)
    model = model_of(Smooth(), TrainableEncoder(Smooth()), schedule(), 3, counter_term=True, num_steps=num_steps)
    images = torch.randint(0, 256, (600, 3), generator=generator())
    x, t = model.scale(images, torch.float64), torch.rand(600, generator=generator(2), dtype=torch.float64)
    eps = torch.randn(600, 3, generator=generator(3), dtype=torch.float64)
    plain = model.diffusion_loss(x, t, eps).mean()
    fitted = fit_volatility(model, [(part, None) for part in images.split(250)], generator(), dims)
    model.volatility = FittedVolatility(len(fitted.kappa), dims)
    model.volatility.load_state_dict(fitted.state_dict())
    assert model.diffusion_loss(x, t, eps).mean() < plain


def test_learning_finds_the_best() -> None:
    """Gradient descent on Gaussian data lowers the diffusion term by what the closed form does, never by more."""
    torch.manual_seed(0)
    x, eps = four_signs(1.0)
    model = gaussian_model(1.0, 0.0, counter_term=True)
    plain = expected_diffusion(model, 1.0)
    model.volatility = LearnedVolatility().double()
    t = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    arguments = x.repeat(100, 1), t.repeat_interleave(4), eps.repeat(100, 1)
    optimizer = torch.optim.Adam(model.volatility.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        model.diffusion_loss(*arguments).mean().backward()
        optimizer.step()
    with torch.no_grad():
        gained = (plain - expected_diffusion(model, 1.0)) / (plain - 6.6499990118)
    assert 0.95 < gained <= 1 + 1e-9


@pytest.mark.parametrize("volatility", [0.4, 3.0])
def test_weighted_paths_find_the_likelihood(volatility: float) -> None:
    """256 paths come within .02 bits of p(x) of the sampler's steps, integrated on a grid; one path is far above."""
    model, images = two_levels(4, 0.0), torch.full((400, 1), 1)
    model.volatility = Known(lambda gamma: torch.full_like(gamma, volatility))
    one, many = (importance_weighted_bound(model, images, k, generator()).mean().item() / math.log(2) for k in (1, 256))
    exact = likelihood_bits(model, 1)
    assert one > exact + 0.1
    assert many == pytest.approx(exact, abs=0.02)


def test_samples_have_the_variance_of_the_data() -> None:
    """Of Gaussian data, by many steps at the best volatility: within 4 standard errors, and at 1 too."""
    model, count = gaussian_model(1.0, 0.0, counter_term=True), 20_000
    model.volatility = best_of(0.0)
    gammas = gamma_grid(model.schedule, 400)
    z_1 = torch.randn(count, 1, generator=generator(), dtype=torch.float64)
    *_, last = ancestral(model, z_1, gammas, generator(1))
    assert last.z.var().item() == pytest.approx(1.0, rel=4 * math.sqrt(2 / count) + 0.03)


def test_both_variances_at_once() -> None:
    """A ratio and a volatility of each dimension: the loss of a step is finite, and its gradients reach both."""
    torch.manual_seed(0)
    model = model_of(Smooth(), TrainableEncoder(Smooth()), dims=3, num_steps=5, ratio=LearnedRatio(dims=(3,)))
    model.volatility = LearnedVolatility(dims=(3,)).double()
    x, eps = torch.randn(2, 8, 3, dtype=torch.float64)
    model.diffusion_loss(x, torch.rand(8, dtype=torch.float64), eps).sum().backward()  # type: ignore[no-untyped-call]
    for module in (model.ratio, model.volatility):
        assert module is not None
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.head.parameters())  # type: ignore[union-attr]


def test_the_profile_of_gaussian_data() -> None:
    """The best kappa by gamma is the closed form, exactly, as four rows stand for the expectation; and the model's."""
    model = gaussian_model(VARIANCE, 0.0, True, levels=LEVELS, volatility=LearnedVolatility().double())
    profile = volatility_profile(model, [four_rows(middles(32))])
    torch.testing.assert_close(profile.optimal, best_of(0.0)(profile.gamma), rtol=1e-9, atol=0)
    torch.testing.assert_close(profile.without_parameters, best_of(0.0)(profile.gamma), rtol=1e-12, atol=0)
    assert (profile.kappa == 1).all()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        FittedVolatility(0)
    with pytest.raises(ValueError, match="a volatility needs at least one batch to be fitted on, got none"):
        fit_volatility(model_of(Smooth(), dims=3), [], generator())
