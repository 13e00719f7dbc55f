"""Diffusion models on a GPU: float32 as on the CPU, bfloat16 and compiled code near it."""

from functools import partial

import pytest
import torch

from likeness.diffusion.process import evaluation_noise
from tests.lightning_modules.tiny_diffusion import SHAPE, awake, batch, diffenc, vdm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SIZE = 16


def terms_and_gradient(
    build: partial, device: str, *, bfloat16: bool = False, compiled: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The three terms [3, B] and the gradient of their mean, on the CPU."""
    module = awake(build(compiled=compiled)).to(device)
    noise = evaluation_noise(torch.empty(SIZE, *SHAPE, device=device), torch.arange(SIZE), 0, 0)._asdict()
    with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
        terms = module._training_terms()(batch(SIZE).x.to(device), **noise, labels=None, lean=False)
    terms.total.mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    return torch.stack(terms).detach().cpu(), gradient.cpu()


@pytest.mark.parametrize("build", [vdm, diffenc])
@pytest.mark.parametrize(
    ("options", "tolerance", "alike"),
    [({}, 1e-3, 0.999), ({"bfloat16": True}, 3e-2, 0.99), ({"compiled": True}, 1e-3, 0.999)],
)
def test_a_gpu_answers_what_the_cpu_answers(
    build: partial, options: dict[str, bool], tolerance: float, alike: float
) -> None:
    expected, gradient = terms_and_gradient(build, "cpu")
    found, other = terms_and_gradient(build, "cuda", **options)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-4)
    assert torch.cosine_similarity(other, gradient, dim=0) > alike
