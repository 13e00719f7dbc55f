"""Models along paths on which the dimensions do not keep step: bounds, steps, samples and densities."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from likeness.diffusion.diagnostics.bound_profiles import (
    bin_sums,
    from_sums,
    gamma_edges,
    ratio_profile,
    volatility_profile,
)
from likeness.diffusion.diagnostics.by_depth import depth_profile, mean_at, noisy_batches
from likeness.diffusion.elbo import continuous_loss
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.fitting import fit_ratio, fit_volatility
from likeness.diffusion.flow import log_density
from likeness.diffusion.likelihoods import dequantised_bound, flow_bound, log_weight
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.multivariate import MultivariatePolynomial
from likeness.diffusion.process import alpha, diffuse, log_likelihood, posterior, scaled, sigma, step_of
from likeness.diffusion.sampling import Method, ancestral, flow, sample
from likeness.diffusion.schedules import LinearSchedule, gamma_grid
from likeness.diffusion.variance_ratio import LearnedRatio
from likeness.diffusion.volatility import LearnedVolatility
from tests.likeness.diffusion.exact_models import (
    GAMMA_0,
    GAMMA_1,
    DiscreteHead,
    Smooth,
    encoder_of,
    factor_of,
    legendre,
    model_of,
)
from tests.likeness.diffusion.multivariate_paths import (
    COVARIANCE,
    CorrelatedHead,
    MeanBeliever,
    Path,
    Shares,
    cubes,
    cubes_with_floor,
    eight_rows,
    in_turn,
    lines,
)
from tests.likeness.diffusion.test_multivariate import bent
from tests.likeness.diffusion.test_volatility import best_of, generator

PATHS = pytest.mark.parametrize("shares", [lines, in_turn, cubes])
VDM = 12.7824780135


def model_along(shares: Shares, head: CorrelatedHead, kappa: float = 1.0) -> DiffusionModel:
    """kappa = 0 is the encoder without parameters."""
    options = {"prediction": head.prediction, "counter_term": kappa == 0}
    return model_of(head, encoder_of(kappa), Path(shares), dims=2, **options)


def expected_diffusion(model: DiffusionModel, nodes: int = 200) -> float:
    """Over data, noise and times, which are taken in two halves as paths may have a corner in the middle."""
    half, weights = legendre(nodes)
    t, weights = torch.cat([half / 2, half / 2 + 0.5]), torch.cat([weights, weights]) / 2
    x, eps = eight_rows()
    loss = model.diffusion_loss(x.repeat(len(t), 1), t.repeat_interleave(8), eps.repeat(len(t), 1))
    return (weights * loss.reshape(-1, 8).mean(1)).sum().item()


@PATHS
def test_no_path_gains_anything_of_an_exact_vdm(shares: Shares) -> None:
    """L4, to 1e-7: the ratio of two determinants."""
    found = expected_diffusion(model_along(shares, CorrelatedHead(factor_of(1.0))))
    ends = [torch.logdet(torch.eye(2).double() + math.exp(-gamma) * COVARIANCE) for gamma in (GAMMA_0, GAMMA_1)]
    assert found == pytest.approx(((ends[0] - ends[1]) / 2).item(), abs=1e-7)
    assert found == pytest.approx(VDM, abs=1e-7)


@pytest.mark.parametrize(("shares", "nats"), [(lines, 12.8960024561), (in_turn, 12.8821336326), (cubes, 12.8821337111)])
def test_paths_differ_with_an_encoder(shares: Shares, nats: float) -> None:
    """L4, to 1e-7: without parameters; at the best volatility, 1 + 2 sigma_i^2, there is no difference again."""
    model = model_along(shares, CorrelatedHead(factor_of(0.0), counter_term=True), kappa=0.0)
    assert expected_diffusion(model) == pytest.approx(nats, abs=1e-7)
    model.volatility = model.network.volatility = best_of(0.0)
    assert expected_diffusion(model) == pytest.approx(12.7891753768, abs=1e-7)


@PATHS
def test_a_wrong_prior_costs_the_same_on_every_path(shares: Shares) -> None:
    """L4, to 1e-7."""
    wrong = torch.tensor([[0.7, -0.2], [-0.2, 1.3]], dtype=torch.float64)
    found = expected_diffusion(model_along(shares, CorrelatedHead(factor_of(1.0), covariance=wrong)))
    assert found == pytest.approx(13.5569775140, abs=1e-7)


@pytest.mark.parametrize(
    ("bend", "nats"), [(0.0, VDM), (0.5, 12.88903265), (1.0, 13.24615216), (2.0, 15.34356447), (4.0, 43.13335306)]
)
def test_a_network_must_be_told_the_map(bend: float, nats: float) -> None:
    """L5, to 1e-6: what it costs to take each dimension's gamma for the mean."""

    def shares(t: Tensor) -> tuple[Tensor, Tensor]:
        off = 4 * bend * t * (1 - t) / (GAMMA_1 - GAMMA_0)
        return t + off, t - off

    head = MeanBeliever(factor_of(1.0), prediction="x")
    assert expected_diffusion(model_along(shares, head)) == pytest.approx(nats, abs=1e-6)


def test_density_of_the_flow() -> None:
    """L6, to 1e-7: from N(0, I) at gamma_1; where gamma_1 leaves nothing of the data, that of the marginal."""
    z_0 = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    model = model_along(cubes_with_floor, CorrelatedHead(factor_of(1.0)))
    assert log_density(model, z_0, tolerance=1e-8).item() == pytest.approx(-3.8605894932, abs=1e-7)
    model.schedule = Path(cubes_with_floor, GAMMA_0, 25.0)
    assert log_density(model, z_0, tolerance=1e-8).item() == pytest.approx(-3.8659269646, abs=1e-7)


class OfMean(Smooth):
    """A small network that is told the mean gamma, and the map through z."""

    def forward(self, x: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
        if gamma.dim() == 1:
            return super().forward(x, gamma, labels)
        return super().forward(x + 0.1 * gamma, gamma.mean(1), labels)


def trained(num_steps: int | None = None, counter_term: bool = True, seed: int = 0) -> DiffusionModel:
    """Along a bent path, with networks at random weights, in float64."""
    torch.manual_seed(seed)
    encoder, schedule = TrainableEncoder(Smooth()), bent((3,))
    return model_of(OfMean(), encoder, schedule, 3, counter_term=counter_term, num_steps=num_steps)


def rows(size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """x, t and eps."""
    source = generator(5)
    x, eps = torch.randn(2, size, 3, generator=source, dtype=torch.float64)
    return x.tanh(), torch.rand(size, generator=source, dtype=torch.float64) * 0.9 + 0.05, eps


@pytest.mark.parametrize("counter_term", [True, False])
def test_the_rate_is_that_of_the_mean_s_motion(counter_term: bool) -> None:
    """e^-gamma_i ((1 + c sigma_i^2) x_hat - x_ti + (dx_ti/dt) / g_i')^2 g_i' / 2, with dx_t/dt by differences in t."""
    model, (x, t, eps) = trained(counter_term=counter_term), rows()
    gamma, slope = model.schedule.with_derivative(t)
    x_t = model.mean(x, t)
    change = (model.mean(x, t + 1e-5) - model.mean(x, t - 1e-5)) / 2e-5
    x_hat = model.predict(diffuse(x_t, gamma, eps), gamma)
    off = (1 + counter_term * torch.sigmoid(gamma)) * x_hat - x_t + change / slope
    expected = 0.5 * (slope * torch.exp(-gamma) * off.square()).sum(1)
    torch.testing.assert_close(model.diffusion_loss(x, t, eps), expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("variances", ["equal", "learned"])
def test_a_step_is_the_divergence_of_its_posteriors(variances: str) -> None:
    """Against torch's Gaussians, whose variances keep fewer digits than ours; to 1e-8."""
    model, (x, t, eps) = trained(num_steps=7), rows(1)
    if variances == "learned":
        model.ratio, model.volatility = LearnedRatio(dims=(3,)).double(), LearnedVolatility().double()
        for part in (model.ratio, model.volatility):
            nn.init.normal_(part.head.weight)
    s, t = step_of(t, 7)
    gamma_s, gamma_t = model.schedule(s), model.schedule(t)
    x_s, x_t = model.mean(x, s), model.mean(x, t)
    z = diffuse(x_t, gamma_t, eps)
    kappa = None if model.volatility is None else model.volatility((gamma_s + gamma_t) / 2)
    q = posterior(z, x_s, x_t, gamma_s, gamma_t, kappa)
    p = model.generative_step(z, gamma_s, gamma_t, model.predict(z, gamma_t), model.ratio)
    normals = [torch.distributions.Normal(one.mean, one.variance.sqrt()) for one in (q, p)]
    expected = 7 * torch.distributions.kl_divergence(*normals).sum(1)
    torch.testing.assert_close(model.diffusion_loss(x, t - 0.01, eps), expected, rtol=1e-8, atol=0)


def test_steps_tend_to_the_rate() -> None:
    """With an error that falls as 1 / T."""
    model, (x, t, eps) = trained(), rows()
    limit, errors = model.diffusion_loss(x, t, eps), []
    for num_steps in (1_000, 10_000):
        model.num_steps = num_steps
        middle = (t * num_steps).round() / num_steps
        ends = model.diffusion_loss(x, middle, eps), model.diffusion_loss(x, middle + 1e-9, eps)  # on either side of it
        model.num_steps = None
        limit = model.diffusion_loss(x, middle, eps)
        errors.append((sum(ends) / 2 - limit).abs().max().item())
    assert errors[0] < 0.2 * limit.abs().max()
    assert errors[0] / errors[1] > 8


def test_it_starts_as_the_scalar_model() -> None:
    """L3, in float32: losses in infinite and finite depth, samples and the flow's density."""
    torch.manual_seed(0)
    models = [model_of(Smooth(), TrainableEncoder(Smooth()), LinearSchedule(), 3, counter_term=True).float()]
    models.append(model_of(OfMean(), models[0].encoder, MultivariatePolynomial(), 3, counter_term=True).float())
    models[1].network.load_state_dict(models[0].network.state_dict())
    models[1].network.forward = lambda z, gamma, labels=None: models[0].network(z, gamma.mean(1))  # type: ignore[method-assign]
    images = torch.randint(256, (6, 3), generator=generator(1))
    noise = dict(zip(("t", "eps"), (values.float() for values in rows()[1:]), strict=True))
    for num_steps in (None, 5):
        found = []
        for model in models:
            model.num_steps = num_steps
            found.append(torch.stack([*model.elbo_terms(images, eps_0=noise["eps"], **noise)]))
        torch.testing.assert_close(found[1], found[0], rtol=2e-6, atol=2e-5)
    paths = []
    for model in models:
        z_1 = torch.randn(4, 3, generator=generator())
        *_, last = ancestral(model, z_1, gamma_grid(model.schedule, 20), generator(1))
        assert last.z.dtype == torch.float32
        paths.append(last.z)
    torch.testing.assert_close(paths[1], paths[0], rtol=1e-5, atol=1e-5)
    for model in models:
        model.encoder, model.counter_term = encoder_of(1.0), False
    densities = [log_density(model, z_1, tolerance=1e-6) for model in models]
    torch.testing.assert_close(densities[1], densities[0], rtol=1e-4, atol=1e-4)


def test_weights_of_a_path_are_ratios_of_densities() -> None:
    """log p(x, z) - log q(z | x) of the same path, from Gaussians of the steps; to 1e-9."""
    model, images = trained(num_steps=4), torch.randint(256, (5, 3), generator=generator(2))
    found = log_weight(model, images, generator(3))
    source, x = generator(3), model.scale(images, torch.float64)

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=source, dtype=torch.float64)

    def at(t: float) -> tuple[Tensor, Tensor]:
        times = x.new_full((5,), t)
        return model.schedule(times), model.mean(x, times)

    def log_prob(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return torch.distributions.Normal(mean, variance.sqrt()).log_prob(value).sum(1)

    gamma_t, x_t = at(1.0)
    z = diffuse(x_t, gamma_t, noise())
    total = log_prob(z, torch.zeros_like(z), torch.ones_like(z)) - log_prob(
        z, alpha(gamma_t) * x_t, sigma(gamma_t) ** 2
    )
    for number in (3, 2, 1, 0):
        gamma_s, x_s = at(number / 4)
        q = posterior(z, x_s, x_t, gamma_s, gamma_t)
        p = model.generative_step(z, gamma_s[:1], gamma_t[:1], model.predict(z, gamma_t))
        z = q.mean + q.variance.sqrt() * noise()
        total = total + log_prob(z, *p) - log_prob(z, *q)
        gamma_t, x_t = gamma_s, x_s
    gamma_0 = torch.tensor(GAMMA_0, dtype=torch.float64)
    total = total + log_likelihood(images, z / alpha(gamma_0), gamma_0, 256).sum(1)
    torch.testing.assert_close(found, total, rtol=1e-9, atol=1e-7)


def covariance_after(grid: Tensor, method: str) -> Tensor:
    """Of z_0 of the exact VDM, step by step in matrices, from N(0, I)."""
    covariance = torch.eye(2, dtype=torch.float64)
    for gamma_t, gamma_s in pairwise(grid.unbind()):
        signal = torch.diag(alpha(gamma_t))
        posterior_mean = (
            COVARIANCE @ signal @ torch.linalg.inv(signal @ COVARIANCE @ signal + torch.diag(torch.sigmoid(gamma_t)))
        )
        kept = torch.exp((1.0 if method == "ancestral" else 0.5) * (gamma_s - gamma_t))  # of the noise, of z_t in it
        ratio = (alpha(gamma_s) / alpha(gamma_t)) * kept
        step = torch.diag(ratio) + torch.diag(alpha(gamma_s) * (1 - kept)) @ posterior_mean
        covariance = step @ covariance @ step.T
        if method == "ancestral":
            covariance = covariance + torch.diag(torch.sigmoid(gamma_s) * (1 - kept))
    return covariance


@pytest.mark.parametrize("method", ["ancestral", "flow"])
def test_samples_have_the_covariance_of_the_steps(method: str) -> None:
    """Of correlated Gaussian data along a bent path, within 5 standard errors; in many steps it is the data's."""
    model = model_along(cubes_with_floor, CorrelatedHead(factor_of(1.0)))
    grid = gamma_grid(model.schedule, 50)
    z_1 = torch.randn(20_000, 2, generator=generator(), dtype=torch.float64)
    states = flow(model, z_1, grid) if method == "flow" else ancestral(model, z_1, grid, generator(1))
    *_, last = states
    torch.testing.assert_close(torch.cov(last.z.T), covariance_after(grid, method), rtol=0, atol=0.05)
    many = covariance_after(gamma_grid(model.schedule, 1000), method)
    torch.testing.assert_close(many, COVARIANCE, rtol=0, atol=0.05)


@pytest.mark.parametrize("method", ["ancestral", "flow"])
def test_the_path_of_a_sample(method: Method) -> None:
    """In the model's precision, with the map at each kept state, down to grey levels."""
    model = model_of(OfMean(), schedule=bent((3,)), dims=3).float()
    drawn = sample(model, 5, gamma_grid(model.schedule, 20), generator(), method, keep_every=10, categorical=True)
    assert drawn.levels.shape == (5, 3)
    for state, t in zip(drawn.path, (0.5, 0.0), strict=True):
        torch.testing.assert_close(state.gamma, model.schedule(torch.tensor([t])).double(), rtol=0, atol=2e-6)
        assert state.z.dtype == state.x_hat.dtype == torch.float32


@pytest.mark.parametrize("dims", [None, (3,)])
@pytest.mark.parametrize("num_steps", [None, 4])
def test_fitted_variances_lower_the_bound(dims: tuple[int, ...] | None, num_steps: int | None) -> None:
    """On the samples that they were fitted on: a volatility at every depth, a ratio in finite depth."""
    model, images = trained(num_steps=num_steps), torch.randint(0, 256, (600, 3), generator=generator())
    x, t = model.scale(images, torch.float64), torch.rand(600, generator=generator(2), dtype=torch.float64)
    eps = torch.randn(600, 3, generator=generator(3), dtype=torch.float64)
    plain = model.diffusion_loss(x, t, eps).mean()
    fitted = fit_volatility(model, [(images, None)], generator(), dims)
    if num_steps is not None:
        model.ratio = fit_ratio(model, [(images, None)], generator(), dims)
        assert model.diffusion_loss(x, t, eps).mean() < plain
        model.ratio = None
    model.volatility = fitted
    assert model.diffusion_loss(x, t, eps).mean() < plain


def test_gradients_reach_the_schedule() -> None:
    """Against differences of the loss in one of its numbers; also where steps are finite."""
    for num_steps in (None, 5):
        model, (x, t, eps) = trained(num_steps=num_steps), rows()
        for parameter in (model.schedule.a, model.schedule.b, model.schedule.raw):
            (gradient,) = torch.autograd.grad(model.diffusion_loss(x, t, eps).sum(), parameter)
            losses = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[1] += shift
                    losses.append(model.diffusion_loss(x, t, eps).sum())
                    parameter[1] -= shift
            assert gradient[1].item() == pytest.approx(((losses[0] - losses[1]) / 2e-5).item(), rel=1e-5)


def test_a_schedule_that_stops_is_refused_with_an_encoder_that_moves() -> None:
    """Not with one whose direction is the same at every depth."""
    schedule = MultivariatePolynomial(floor=0.0)
    with pytest.raises(
        ValueError, match="MultivariatePolynomial with floor=0 and TrainableEncoder: the mean would move"
    ):
        model_of(OfMean(), TrainableEncoder(Smooth()), schedule, 3)
    model_of(OfMean(), encoder_of(0.0), schedule, 3)


def test_bounds_of_the_flow_along_a_path() -> None:
    """Of independent dimensions with exact networks: what they are along a line, as each is a flow by itself."""
    paths = LinearSchedule(), Path(cubes_with_floor)
    images = torch.tensor([[64, 192]])
    head = DiscreteHead(scaled(torch.tensor([64, 192]), 256, torch.float64), factor_of(1.0), "v", False)
    eps_0 = torch.randn(1, 2, generator=generator(), dtype=torch.float64)
    options = {"tolerance": 1e-6}
    found = [
        torch.stack(
            [flow_bound(model, images, eps_0, **options), dequantised_bound(model, images, eps_0[None], **options)]
        )
        for model in (model_of(head, schedule=schedule, dims=2) for schedule in paths)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=5e-4)


def test_the_depth_profile_follows_each_dimension() -> None:
    """Du by differences in t over those of gamma, root mean square; gamma is the mean, variances are of each."""
    model, images = trained(), torch.randint(256, (50, 3), generator=generator(4))
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    profile, x = depth_profile(model, images, times, seed=0), model.scale(images, torch.float64)
    for row, at in enumerate(times):
        t = at.expand(50)
        after, before = model.direction(x, t + 1e-5), model.direction(x, t - 1e-5)
        derivative = (after[1] - before[1]) / (after[0] - before[0])
        gamma = model.schedule(at)
        assert profile.gamma[row].item() == pytest.approx(gamma.mean().item(), rel=1e-12)
        assert profile.derivative[row].item() == pytest.approx(derivative.square().mean().sqrt().item(), rel=1e-6)
        expected = (torch.sigmoid(-gamma) * x.var(0) + torch.sigmoid(gamma)).mean()
        assert profile.variance_of_vdm[row].item() == pytest.approx(expected.item(), rel=1e-12)
        x_t = model.mean(x, t)
        assert torch.equal(mean_at(model, images, at.item()), x_t)
        assert profile.shift[row].item() == pytest.approx((x_t - x).square().mean().sqrt().item(), rel=1e-12)


def test_bins_of_the_mean_gamma_are_bins_of_time() -> None:
    """Over equally spaced times: each bin has the times between its ends, and the area is the diffusion term."""
    model = model_along(cubes_with_floor, CorrelatedHead(factor_of(1.0)))
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    x, eps = eight_rows()
    loss = model.diffusion_loss(x.repeat(500, 1), t, eps.repeat(500, 1))
    edges = gamma_edges(*model.schedule.ends(t), 20)
    profile = from_sums(edges, bin_sums(edges, *model.schedule.with_derivative(t), loss))
    mean = model.schedule(t).mean(1)
    expected = [((mean >= low) & (mean < high)).sum().item() for low, high in pairwise(edges.tolist())]
    assert profile.samples.tolist() == expected
    assert profile.area == pytest.approx(loss.mean().item(), rel=0.02)


@pytest.mark.parametrize("num_steps", [None, 6])
def test_profiles_of_the_variances(num_steps: int | None) -> None:
    """The model's own are those of its parts, averaged over dimensions; the best ratio is above 0."""
    model, images = trained(num_steps=num_steps), torch.randint(256, (60, 3), generator=generator(4))
    model.volatility = LearnedVolatility(dims=(3,)).double()
    nn.init.constant_(model.volatility.head.bias, 0.3)
    batches = [*noisy_batches(model, images, torch.arange(60), None, 0, 0, 30)]
    volatility = volatility_profile(model, batches, 4)
    torch.testing.assert_close(volatility.kappa, torch.full_like(volatility.kappa, math.exp(0.3)))
    assert (volatility.gamma.diff() > 0).all()
    if num_steps is not None:
        ratio = ratio_profile(model, batches)
        known = ~ratio.gamma.isnan()  # not every bin of gamma has a step
        assert (ratio.optimal[known] > 0).all()
        assert not ratio.rho[known].any()


def test_the_best_volatility_of_a_path_is_that_of_its_loss() -> None:
    """In one bin a constant kappa that minimises the loss, dgamma_i/dt of each dimension included, by search."""
    model, images = trained(), torch.randint(256, (40, 3), generator=generator(5))
    batches = [*noisy_batches(model, images, torch.arange(40), None, 0, 0, 20)]
    (best,) = volatility_profile(model, batches, num_bins=1).optimal
    model.volatility = LearnedVolatility().double()

    def loss(log_kappa: float) -> float:
        nn.init.constant_(model.volatility.head.bias, log_kappa)  # type: ignore[union-attr]
        with torch.no_grad():
            return torch.cat([continuous_loss(*batch.rate_error(model)) for batch in batches]).mean().item()

    found = minimize_scalar(loss, bracket=(-0.5, 0.5), tol=1e-7)
    assert best.log().item() == pytest.approx(found.x, abs=1e-4)
    assert abs(found.x) > 0.01
