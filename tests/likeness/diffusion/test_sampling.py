"""Samplers against the variance that their recursion has on Gaussian data, and against plain formulas."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.fitting import observe_steps
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import nearest_level
from likeness.diffusion.sampling import ancestral, clipped, decode, flow, sample
from likeness.diffusion.schedules import gamma_grid
from likeness.diffusion.variance_ratio import ConstantRatio, FittedRatio, LearnedRatio
from tests.likeness.diffusion.exact_models import Echo, Proportional, Smooth, four_signs, gaussian_model, model_of


def variance_after(model: DiffusionModel, gammas: Tensor, fitted: bool = False) -> float:
    """Var(z_0) over alpha_0^2 c^2 + sigma_0^2 (here 1) by the recursion V_s = A^2 V_t + sigma_P^2 of linear steps."""
    variance, one = 1.0, torch.ones(1, 1, dtype=torch.float64)
    for gamma_t, gamma_s in pairwise(gammas):
        x_hat = model.predict(one, gamma_t[None])
        step = model.generative_step(one, gamma_s, gamma_t, x_hat, model.ratio if fitted else None)
        variance = step.mean.item() ** 2 * variance + step.variance.item()
    return variance


@pytest.mark.parametrize(("num_steps", "expected"), [(10, 0.4588), (100, 0.9138), (1000, 0.99091), (10_000, 0.999086)])
def test_variance_of_samples_is_the_recursion_s(num_steps: int, expected: float) -> None:
    """O14: too small by 9.15 / T, as the posterior's variance is below that of q(z_s | z_t); to the digits given."""
    model = gaussian_model(1.0)
    found = variance_after(model, gamma_grid(model.schedule, num_steps))
    assert found == pytest.approx(expected, abs=6e-5 if num_steps < 1000 else 6e-6)


@pytest.mark.parametrize("num_steps", [1, 4, 10, 100])
def test_best_ratio_samples_the_right_variance(num_steps: int) -> None:
    """O14: with the closed-form ratio the variance is exact at every number of steps; to 1e-10."""
    model = gaussian_model(1.0, num_steps=num_steps)
    ratio = FittedRatio(num_steps)
    observe_steps(model, ratio, *four_signs(1.0))
    model.ratio = ratio
    found = variance_after(model, gamma_grid(model.schedule, num_steps), fitted=True)
    assert found == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize(("num_steps", "with_ratio"), [(10, False), (100, False), (10, True)])
def test_samples_have_that_variance(num_steps: int, with_ratio: bool) -> None:
    """O14: Monte-Carlo of the sampler itself, within 4 standard errors; the ratio is used on the model's own steps."""
    model, count = gaussian_model(1.0, num_steps=num_steps), 20_000
    gammas = gamma_grid(model.schedule, num_steps)
    if with_ratio:
        ratio = FittedRatio(num_steps)
        observe_steps(model, ratio, *four_signs(1.0))
        model.ratio = ratio
    generator = torch.Generator().manual_seed(0)
    z_1 = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    *_, last = ancestral(model, z_1, gammas, generator)
    expected = 1.0 if with_ratio else variance_after(model, gammas)
    assert last.z.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / count))
    assert last.z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(count))


def test_one_ancestral_step_in_plain_formulas() -> None:
    """DiffEnc's step: (alpha_s / alpha_t) e^(-dgamma) z + alpha_s r x_hat + alpha_s dgamma sigma_t^2 x_hat."""
    torch.manual_seed(0)
    model = model_of(Smooth(), TrainableEncoder(Smooth()), dims=3, counter_term=True)
    z = torch.randn(5, 3, dtype=torch.float64)
    gammas = torch.tensor([1.0, -0.5], dtype=torch.float64)
    (state,) = ancestral(model, z, gammas, torch.Generator().manual_seed(1))
    eps = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    var_t, var_s = 1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(0.5))
    alpha_t, alpha_s, kept = math.sqrt(1 - var_t), math.sqrt(1 - var_s), 1 - math.exp(-1.5)
    x_hat = alpha_t * z - math.sqrt(var_t) * model.network(z, torch.ones(5, dtype=torch.float64))
    mean = alpha_s / alpha_t * math.exp(-1.5) * z + alpha_s * (kept + 1.5 * var_t) * x_hat
    torch.testing.assert_close(state.z, mean + math.sqrt(var_s * kept) * eps)
    torch.testing.assert_close(state.x_hat, x_hat)
    assert state.gamma.item() == -0.5


def test_a_grid_of_any_shape() -> None:
    """Samples have the variance of the recursion on that grid, which depends on where the steps are."""
    model, count = gaussian_model(1.0), 10_000
    even = gamma_grid(model.schedule, 20, "gamma")
    torch.testing.assert_close(even, gamma_grid(model.schedule, 20))
    dense = torch.cat([torch.linspace(5, -2, 16), torch.linspace(-2, -13.3, 6)[1:]]).double()
    assert len(dense) == len(even)
    generator = torch.Generator().manual_seed(0)
    z_1 = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    *_, last = ancestral(model, z_1, dense, generator)
    expected = variance_after(model, dense)
    assert last.z.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / count))
    assert abs(expected - variance_after(model, even)) > 0.05


def test_ratio_is_used_only_where_it_belongs() -> None:
    """A ratio made for T steps is left out on another grid; theta fits any."""
    torch.manual_seed(0)
    model = model_of(Smooth(), dims=3, num_steps=10)
    z_1 = torch.randn(4, 3, dtype=torch.float64)

    def last(gammas: Tensor) -> Tensor:
        *_, state = ancestral(model, z_1, gammas, torch.Generator().manual_seed(0))
        return state.z

    own, other = gamma_grid(model.schedule, 10), gamma_grid(model.schedule, 12)
    plain = [last(grid) for grid in (own, other)]
    constant, learned = ConstantRatio().double(), LearnedRatio().double()
    torch.nn.init.constant_(constant.rho, 0.5)
    torch.nn.init.constant_(learned.head.bias, 0.5)
    model.ratio = constant
    assert not torch.equal(last(own), plain[0])
    assert torch.equal(last(other), plain[1])
    model.ratio = learned
    assert not torch.equal(last(own), plain[0])
    assert not torch.equal(last(other), plain[1])


def test_ratio_of_each_dimension_widens_each_dimension() -> None:
    model = model_of(Echo(), dims=2, num_steps=1)
    model.ratio = FittedRatio(1, dims=(2,))
    model.ratio.observe(torch.tensor([-13.3]), torch.tensor([5.0]), torch.tensor([[1.5, 0.0]]))
    gamma_s, gamma_t = torch.tensor([-13.3, 5.0], dtype=torch.float64)
    z = torch.zeros(3, 2, dtype=torch.float64)
    plain = model.generative_step(z, gamma_s, gamma_t, z)
    wide = model.generative_step(z, gamma_s, gamma_t, z, model.ratio)
    torch.testing.assert_close(wide.variance, plain.variance * torch.tensor([[4.0, 1.0]], dtype=torch.float64))


def test_clipping_is_imagen_s() -> None:
    """The quantile of each sample's |x_hat|: above 1, clip and divide; otherwise clip to 1."""
    x_hat = torch.stack([torch.linspace(-4, 4, 9), torch.linspace(-0.5, 0.5, 9)])
    found = clipped(x_hat, 0.5)
    torch.testing.assert_close(found[0], (x_hat[0] / 2).clamp(-1, 1))
    assert torch.equal(found[1], x_hat[1])
    assert clipped(x_hat, None) is x_hat
    for quantile in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"clip_quantile must lie in \(0, 1\], got {quantile}"):
            clipped(x_hat, quantile)


@pytest.mark.parametrize("method", ["ancestral", "flow"])
def test_clipping_bounds_the_samples(method: str) -> None:
    """A network that answers z asks for data far outside of (-1, 1)."""
    model = model_of(Echo(), dims=12, prediction="x")
    options = {"gammas": gamma_grid(model.schedule, 10), "method": method, "keep_every": 1}
    wild = sample(model, 8, generator=torch.Generator().manual_seed(0), **options)
    tame = sample(model, 8, generator=torch.Generator().manual_seed(0), clip_quantile=0.9, **options)
    assert max(state.x_hat.abs().max() for state in wild.path) > 2
    assert max(state.x_hat.abs().max() for state in tame.path) <= 1


@pytest.mark.parametrize("method", ["ancestral", "flow"])
@pytest.mark.parametrize("levels", [256, 17, 2])
def test_samples_of_gaussian_data(method: str, levels: int) -> None:
    """Grey levels of the right spread, reproducible from the generator, and the path that was asked for."""
    model = gaussian_model(0.04, levels=levels)
    options = {"gammas": gamma_grid(model.schedule, 50), "method": method, "keep_every": 20}
    found = sample(model, 1000, generator=torch.Generator().manual_seed(0), **options)
    again = sample(model, 1000, generator=torch.Generator().manual_seed(0), **options)
    assert torch.equal(found.levels, again.levels)
    assert found.levels.shape == (1000, 1)
    assert found.levels.dtype == torch.int64
    assert 0 <= found.levels.min() <= found.levels.max() < levels
    x = 2 * (found.levels.double() + 0.5) / levels - 1
    rounding = (2 / levels) ** 2 / 12
    if levels > 2:
        assert x.var().item() == pytest.approx(0.04 + rounding, rel=0.25)
    assert [state.gamma.item() for state in found.path] == pytest.approx([5 - 18.3 * s / 50 for s in (20, 40, 50)])
    assert torch.equal(found.levels, decode(found.path[-1].z, found.path[-1].gamma, levels))


def test_categorical_levels_differ_from_the_likeliest_where_noise_is_left() -> None:
    model = gaussian_model(0.04, levels=256)
    gammas = gamma_grid(model.schedule, 20)[:-6]  # ends at gamma = -7.81, with noise of 2.6 levels
    likeliest = sample(model, 500, gammas, torch.Generator().manual_seed(0))
    drawn = sample(model, 500, gammas, torch.Generator().manual_seed(0), categorical=True)
    spread = (drawn.levels - likeliest.levels).double().std().item()
    assert spread == pytest.approx(128 * math.exp(0.5 * gammas[-1].item()), rel=0.15)


@pytest.mark.parametrize("counter_term", [True, False])
@pytest.mark.parametrize("kappa", [1.0, 0.0])
def test_flow_carries_gaussians_along_their_deviation(kappa: float, counter_term: bool) -> None:
    """z(gamma) = sqrt(V(gamma) / V(gamma_1)) z_1 with V = alpha^2 m^2 c^2 + sigma^2; the error falls as 1 / T."""
    model, z_1 = gaussian_model(0.25, kappa, counter_term), torch.tensor([[-1.0], [0.3]], dtype=torch.float64)

    def variance(gamma: Tensor) -> Tensor:
        m = torch.ones_like(gamma) if kappa else torch.sigmoid(-gamma)
        return torch.sigmoid(-gamma) * m**2 * 0.25 + torch.sigmoid(gamma)

    errors = []
    for num_steps in (250, 1000):
        gammas = gamma_grid(model.schedule, num_steps)
        *_, last = flow(model, z_1, gammas)
        expected = (variance(gammas[-1]) / variance(gammas[0])).sqrt() * z_1
        errors.append(((last.z - expected) / expected).abs().max().item())
    assert errors[1] < 0.02
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_flow_of_a_trained_encoder_is_refused() -> None:
    model = model_of(Echo(), TrainableEncoder(Proportional(0.5)), counter_term=True)
    with pytest.raises(ValueError, match="probability flow of TrainableEncoder is unknown"):
        sample(model, 2, gamma_grid(model.schedule, 3), torch.Generator(), method="flow")


def test_float32_samples_are_float64_s() -> None:
    """A thousand steps in float32 with the coefficients of a float64 grid."""
    torch.manual_seed(0)
    model = gaussian_model(0.25)
    gammas, z_1 = gamma_grid(model.schedule, 1000), torch.randn(50, 1, dtype=torch.float64)
    *_, double = flow(model, z_1, gammas)
    *_, single = flow(model, z_1.float(), gammas)
    assert single.z.dtype == torch.float32
    torch.testing.assert_close(single.z.double(), double.z, rtol=1e-4, atol=1e-5)


def test_labels_reach_the_network() -> None:
    torch.manual_seed(0)
    model = model_of(Smooth(num_labels=2), dims=3)
    gammas = gamma_grid(model.schedule, 5)
    for method in ("ancestral", "flow"):
        one, other = (
            sample(model, 4, gammas, torch.Generator().manual_seed(0), method, torch.full((4,), label))
            for label in (0, 1)
        )
        assert not torch.equal(one.levels, other.levels)


def test_decoding_divides_by_alpha() -> None:
    gamma_0 = torch.tensor(-2.0, dtype=torch.float64)
    z_0 = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    expected = nearest_level(z_0 / math.sqrt(1 / (1 + math.exp(-2.0))), 17)
    assert torch.equal(decode(z_0, gamma_0, 17), expected)


@pytest.mark.parametrize("gammas", [[5.0], [1.0, 2.0], [3.0, 3.0], [3.0, math.nan], []])
def test_grids_must_decrease(gammas: list[float]) -> None:
    model = model_of(Echo())
    with pytest.raises(ValueError, match="at least two decreasing numbers"):
        sample(model, 1, torch.tensor(gammas), torch.Generator())


def test_unknown_methods_are_refused() -> None:
    model = model_of(Echo())
    with pytest.raises(ValueError, match="method must be one of ancestral, flow, got 'ddim'"):
        sample(model, 1, gamma_grid(model.schedule, 2), torch.Generator(), method="ddim")  # type: ignore[arg-type]
