"""Samples with the noise of their evaluation."""

import torch

from likeness.diffusion.diagnostics.by_depth import noisy_batches
from likeness.diffusion.process import evaluation_noise
from tests.likeness.diffusion.exact_models import Smooth, model_of

IMAGES = torch.randint(0, 256, (10, 3), generator=torch.Generator().manual_seed(0))
IDS = torch.arange(5, 15)


def test_noise_is_that_of_the_ids_at_any_batch_size() -> None:
    model = model_of(Smooth(), dims=3)
    whole = evaluation_noise(torch.empty(10, 3, dtype=torch.float64), IDS, 7, 2)
    for size in (3, 10, 64):
        parts = list(noisy_batches(model, IMAGES, IDS, None, seed=7, draw=2, size=size))
        assert torch.equal(torch.cat([part.images for part in parts]), IMAGES)
        for name in ("t", "eps_0", "eps"):
            expected = getattr(whole, name)
            assert torch.equal(torch.cat([getattr(part.noise, name) for part in parts]), expected)


def test_terms_and_errors_are_the_model_s() -> None:
    model = model_of(Smooth(num_labels=2), dims=3, num_steps=5)
    labels = torch.arange(10) % 2
    (batch,) = noisy_batches(model, IMAGES, IDS, labels, seed=0, draw=0, size=16)
    x, noise = model.scale(IMAGES, torch.float64), batch.noise
    expected = model.elbo_terms(IMAGES, t=noise.t, eps_0=noise.eps_0, eps=noise.eps, labels=labels)
    assert all(torch.equal(*pair) for pair in zip(batch.terms(model), expected, strict=True))
    assert torch.equal(batch.step_error(model).error, model.step_error(x, noise.t, noise.eps, labels).error)
    assert torch.equal(batch.rate_error(model)[0], model.rate_error(x, noise.t, noise.eps, labels)[0])
