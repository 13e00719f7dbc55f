"""The model as a whole: known losses before training, float32, labels, the lean form, bad input."""

import copy
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from likeness.diffusion.elbo import Prediction, bits_per_dim
from likeness.diffusion.encoders import DepthEncoder, IdentityEncoder, ParameterFreeEncoder, TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import scaled, stratified
from likeness.diffusion.schedules import AffineSchedule, LinearSchedule, MonotoneSchedule, PolynomialSchedule
from likeness.diffusion.variance_ratio import ConstantRatio, LearnedRatio
from tests.likeness.diffusion.exact_models import Echo, Proportional, Smooth, legendre, model_of

SCHEDULES = [LinearSchedule, PolynomialSchedule, AffineSchedule, MonotoneSchedule]
ENCODERS = {
    "vdm": IdentityEncoder,
    "nt": ParameterFreeEncoder,
    "diffenc": lambda: TrainableEncoder(Smooth(4)),
}


def batch(size: int, dtype: torch.dtype = torch.float64, dims: int = 4, levels: int = 256) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, levels, (size, dims), generator=generator)
    eps_0, eps = torch.randn(2, size, dims, generator=generator, dtype=torch.float64).to(dtype)
    return {"images": images, "t": stratified(torch.tensor(0.4321, dtype=dtype), size), "eps_0": eps_0, "eps": eps}


def small_model(kind: str = "diffenc", **options: Any) -> DiffusionModel:
    torch.manual_seed(0)
    return model_of(Smooth(4), ENCODERS[kind](), dims=4, counter_term=kind != "vdm", **options)


@pytest.mark.parametrize(
    ("encoder", "prediction", "constant", "slope"),
    [
        (IdentityEncoder(), "eps", 7.597651, 9.589079),
        (IdentityEncoder(), "v", 7.327160, 11.850998),
        (ParameterFreeEncoder(), "v", 7.701271, 10.872745),
        (TrainableEncoder(Proportional(0.0)), "v", 7.701271, 10.872745),
    ],
)
@pytest.mark.parametrize("num_steps", [None, 100_000])
def test_diffusion_term_before_training(
    encoder: DepthEncoder, prediction: Prediction, constant: float, slope: float, num_steps: int | None
) -> None:
    """O19: a network that answers z costs these bits a dimension, linear in the mean square of the data.

    By quadrature to 2e-6; 1e5 steps agree to 1e-3.
    """
    counter = not isinstance(encoder, IdentityEncoder)
    model = model_of(Echo(), encoder, prediction=prediction, counter_term=counter, num_steps=num_steps)
    t, weights = legendre(200)
    for level in (0, 128, 200):
        image = torch.full((2 * len(t), 1), level)
        eps = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(len(t), 1)
        terms = model.elbo_terms(image, t=t.repeat_interleave(2), eps_0=eps, eps=eps)
        found = (weights * bits_per_dim(terms.diffusion, 1).reshape(-1, 2).mean(1)).sum().item()
        mean_square = scaled(torch.tensor(level), 256).item() ** 2
        digits = 2e-6 if num_steps is None else 1e-3
        assert found == pytest.approx(constant + slope * mean_square, rel=digits)


@pytest.mark.parametrize("kind", ["identity", "parameter-free", "y = -x"])
def test_data_of_one_point_cost_nothing(kind: str) -> None:
    """O20: (1 + c sigma^2) x_hat = x_t - D x_t makes the error vanish at every time."""
    encoder = {"identity": IdentityEncoder(), "parameter-free": ParameterFreeEncoder()}.get(kind)
    encoder = encoder or TrainableEncoder(Proportional(-1.0))
    point = torch.tensor([[0.3, -0.7, 0.0, 0.9]], dtype=torch.float64)
    counter = kind != "identity"

    class Knowing(nn.Module):
        def forward(self, z: Tensor, gamma: Tensor, labels: Tensor | None = None) -> Tensor:
            x_t, derivative = encoder.with_derivative(point.expand_as(z), gamma)
            return (x_t - derivative) / (1 + counter * torch.sigmoid(gamma)[:, None])

    model = model_of(Knowing(), encoder, dims=4, prediction="x", counter_term=counter)
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    eps = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = model.diffusion_loss(point.expand(50, -1), t, eps)
    assert loss.max().item() < 1e-22 * math.exp(13.3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("num_steps", [None, 10, 1000])
@pytest.mark.parametrize("prediction", ["v", "eps", "x"])
def test_float32_keeps_its_digits(
    schedule: type[LinearSchedule], kind: str, num_steps: int | None, prediction: Prediction
) -> None:
    """Every sample's diffusion loss to 5e-5 of float64's, where differences of gammas and means lose four digits."""
    torch.manual_seed(1)
    made = schedule(width=32) if schedule is MonotoneSchedule else schedule()
    double = small_model(kind, schedule=made, num_steps=num_steps, prediction=prediction)
    single = copy.deepcopy(double).float()
    found, expected = (
        model.elbo_terms(**batch(100, dtype)) for model, dtype in ((single, torch.float32), (double, torch.float64))
    )
    torch.testing.assert_close(found.diffusion.double(), expected.diffusion, rtol=5e-5, atol=0)
    torch.testing.assert_close(found.latent.double(), expected.latent, rtol=0, atol=1e-6)
    assert found.reconstruction.mean().item() == pytest.approx(expected.reconstruction.mean().item(), rel=1e-3)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("num_steps", [None, 10])
def test_a_batch_is_its_samples(kind: str, num_steps: int | None) -> None:
    """O25: each term of a batch equals that of its samples one by one, labels included."""
    torch.manual_seed(0)
    network, inner = Smooth(4, num_labels=3), Smooth(4, num_labels=3)
    encoder = TrainableEncoder(inner) if kind == "diffenc" else ENCODERS[kind]()
    model = model_of(network, encoder, dims=4, counter_term=True, num_steps=num_steps)
    drawn = batch(6) | {"labels": torch.tensor([0, 1, 2, 0, 1, 1])}
    together = model.elbo_terms(**drawn)
    for i in range(6):
        alone = model.elbo_terms(**{name: value[i : i + 1] for name, value in drawn.items()})
        for found, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(found, expected[i : i + 1], rtol=1e-11, atol=1e-14)
    other = model.elbo_terms(**(drawn | {"labels": torch.zeros(6, dtype=torch.long)}))
    assert not torch.allclose(other.diffusion, together.diffusion)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), levels=st.sampled_from([256, 17, 2]))
def test_total_is_the_sum(seed: int, levels: int) -> None:
    torch.manual_seed(seed)
    model = small_model(levels=levels)
    terms = model.elbo_terms(**batch(5, levels=levels))
    assert torch.equal(terms.total, terms.reconstruction + terms.latent + terms.diffusion)
    assert all((term >= 0).all() for term in terms)


@pytest.mark.parametrize("kind", ENCODERS)
def test_lean_form(kind: str) -> None:
    """x_0 = x moves the reconstruction by what its 3.4e-6 can; the latent term's mean over quarters is exact."""
    model, drawn = small_model(kind), batch(16)
    exact, lean = model.elbo_terms(**drawn), model.elbo_terms(**drawn, lean=True)
    assert torch.equal(lean.diffusion, exact.diffusion)
    torch.testing.assert_close(lean.reconstruction, exact.reconstruction, rtol=0.2, atol=1e-3)
    torch.testing.assert_close(lean.latent, exact.latent[:4].mean().expand(16))
    quarters = [{name: value.roll(4 * i, 0) for name, value in drawn.items()} for i in range(4)]
    means = torch.stack([model.elbo_terms(**part, lean=True).latent.mean() for part in quarters])
    torch.testing.assert_close(means.mean(), exact.latent.mean())


@pytest.mark.parametrize("num_steps", [None, 10])
def test_every_parameter_is_trained(num_steps: int | None) -> None:
    model = small_model(schedule=AffineSchedule(), num_steps=num_steps)
    model.ratio = LearnedRatio().double() if num_steps else None
    model.elbo_terms(**batch(8)).total.mean().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert idle == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("num_steps", [None, 10])
def test_gradients_are_those_of_the_loss(num_steps: int | None) -> None:
    """By finite differences in float64, through schedule, both networks and every term."""
    model, drawn = small_model(schedule=AffineSchedule(-6.0, 4.0), num_steps=num_steps), batch(3)
    parameters = [model.schedule.b, model.schedule.w, model.network.last.bias, model.encoder.network.first.bias]

    def loss(*values: Tensor) -> Tensor:
        names = ["schedule.b", "schedule.w", "network.last.bias", "encoder.network.first.bias"]
        replaced = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, replaced, (), drawn)

    model.forward = lambda **arguments: model.elbo_terms(**arguments).total.sum()  # type: ignore[method-assign]
    assert torch.autograd.gradcheck(loss, parameters, atol=1e-4, rtol=1e-4)


def test_autocast_leaves_the_mathematics_in_float32() -> None:
    """O25: bfloat16 in the networks' layers only moves the terms by less than 3 %."""
    torch.manual_seed(0)
    model, drawn = small_model(schedule=MonotoneSchedule()).float(), batch(64, torch.float32)
    expected = model.elbo_terms(**drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.elbo_terms(**drawn)
    for term, exact in zip(found, expected, strict=True):
        assert term.dtype == torch.float32
        assert term.mean().item() == pytest.approx(exact.mean().item(), rel=3e-2)


def test_features_see_the_mean_without_noise() -> None:
    model, drawn = small_model(), batch(4)
    gamma = model.schedule(drawn["t"])
    mean = model.encoder(scaled(drawn["images"], 256, torch.float64), gamma)
    expected = model.network.features(torch.sigmoid(-gamma).sqrt()[:, None] * mean, gamma)
    torch.testing.assert_close(model.features(drawn["images"], drawn["t"]), expected)


def test_predict_inverts_the_prediction() -> None:
    z, gamma = torch.randn(5, 4, dtype=torch.float64), torch.linspace(-5, 5, 5, dtype=torch.float64)
    for prediction in ("v", "eps", "x"):
        model = model_of(Smooth(4), dims=4, prediction=prediction)
        output, x = model.network(z, gamma), model.predict(z, gamma)
        a, s = torch.sigmoid(-gamma).sqrt()[:, None], torch.sigmoid(gamma).sqrt()[:, None]
        back = {"v": (a * z - x) / s, "eps": (z - a * x) / s, "x": x}[prediction]
        torch.testing.assert_close(back, output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels must be at least 2, got 1"),
        ({"prediction": "score"}, "prediction must be one of v, eps, x, got 'score'"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"ratio": ConstantRatio()}, r"infinite depth \(num_steps=None\).*got ConstantRatio"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_of(Echo(), dims=4, **options)


def test_a_ratio_is_refused_in_infinite_depth_whenever_it_comes() -> None:
    model = small_model(num_steps=10, ratio=LearnedRatio().double())
    with pytest.raises(ValueError, match="got LearnedRatio"):
        model.num_steps = None
    late = small_model()
    late.ratio = ConstantRatio()
    with pytest.raises(ValueError, match="got ConstantRatio"):
        late.elbo_terms(**batch(2))


def test_infinite_depth_has_no_steps() -> None:
    drawn = batch(2)
    with pytest.raises(ValueError, match=r"no steps: set num_steps"):
        small_model().step_error(drawn["eps"], drawn["t"], drawn["eps"])


@pytest.mark.parametrize(
    ("value", "levels", "message"),
    [
        (256, 256, r"grey level 256 lies outside 0\.\.255 \(levels=256\)"),
        (17, 17, r"grey level 17 lies outside 0\.\.16"),
        (-1, 256, r"grey level -1 lies outside"),
        (3.5, 256, "whole grey levels, got 3.5"),
    ],
)
def test_pixels_are_checked(value: float, levels: int, message: str) -> None:
    drawn = batch(2, levels=levels)
    images = drawn["images"].double() if isinstance(value, float) else drawn["images"]
    images[1, 2] = value
    with pytest.raises(ValueError, match=message):
        small_model(levels=levels).elbo_terms(**(drawn | {"images": images}))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_any_type_of_whole_pixels_is_the_same(dtype: torch.dtype) -> None:
    drawn = batch(4)
    expected = small_model().elbo_terms(**drawn)
    found = small_model().elbo_terms(**(drawn | {"images": drawn["images"].to(dtype)}))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
