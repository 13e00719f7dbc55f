"""Gradient norms against the backward pass of the same loss."""

import math

import pytest
import torch

from likeness.diffusion.diagnostics.by_depth import gradient_norms
from likeness.diffusion.encoders import TrainableEncoder
from likeness.diffusion.model import DiffusionModel
from likeness.diffusion.process import stratified
from likeness.diffusion.schedules import MonotoneSchedule
from likeness.seeding import generator
from tests.likeness.diffusion.exact_models import Smooth, model_of

IMAGES = torch.randint(0, 256, (6, 3), generator=torch.Generator().manual_seed(0))


def smooth_model(**options: object) -> DiffusionModel:
    torch.manual_seed(0)
    return model_of(Smooth(), TrainableEncoder(Smooth()), dims=3, counter_term=True, **options)


@pytest.mark.parametrize("num_steps", [None, 10])
def test_the_norm_is_that_of_the_backward_pass(num_steps: int | None) -> None:
    model = smooth_model(num_steps=num_steps)
    for index, found in enumerate(gradient_norms(model, IMAGES, 4, seed=3)):
        source = generator(3, index)
        t = (index + stratified(torch.rand((), generator=source), 6).double()) / 4
        eps = torch.randn(6, 3, generator=source).double()
        model.zero_grad()
        loss = model.diffusion_loss(model.scale(IMAGES, torch.float64), t, eps).mean() / (3 * math.log(2))
        loss.backward()
        expected = sum(float(w.grad.square().sum()) for w in model.parameters() if w.grad is not None)
        assert float(found) == pytest.approx(expected, rel=1e-6)  # times are float32 there


def test_gradients_of_the_training_are_not_touched() -> None:
    model = smooth_model()
    gradient_norms(model, IMAGES, 2, seed=0)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_schedule_that_is_trained_on_the_variance_stays_out_of_it() -> None:
    model = smooth_model(schedule=MonotoneSchedule(width=8, minimise_variance=True))
    norms = gradient_norms(model, IMAGES, 3, seed=0)
    assert (norms > 0).all()
    assert all(weight.grad is None for weight in model.schedule.parameters())


def test_without_gradients_around_it_too() -> None:
    with torch.no_grad():
        assert (gradient_norms(smooth_model(), IMAGES, 2, seed=0) > 0).all()
