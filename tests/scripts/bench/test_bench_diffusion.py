"""The diffusion bench's verdicts, and the losses that it compares; never how fast anything is."""

import functools

import pytest
import torch

from lightning_modules import VariationalDiffusion
from likeness.networks import ScoreUNet
from scripts.bench.diffusion import MANY, VDM, DiffusionReport, _bits, _step, _wake
from scripts.bench.timing import Contestant


def test_verdicts_on_times_memory_and_losses() -> None:
    times = {
        VDM: Contestant(VDM, [1.0, 9.0, 2.0]),
        MANY: Contestant(MANY, [2.1, 2.3, 2.2]),
        "rough": Contestant("", [1.0]),
    }
    memory, bits = {VDM: 100.0, MANY: 111.0, "rough": 50.0}, {VDM: 5.0, MANY: 6.0, "rough": 5.002}
    report = DiffusionReport("", times, memory, {(MANY, VDM): 1.1}, {(MANY, VDM): 1.1}, bits, {"rough": VDM})
    of_time, of_memory, of_loss = report.verdicts()
    assert of_time.endswith("is asked for: yes (1.10)")
    assert of_memory.endswith("times the memory of VDM-v is asked for: NO (1.11)")
    assert of_loss == "rough: the loss within 0.001 bits per dimension is asked for: NO (2.0e-03)"
    assert report.as_dict()["bits_per_dim"] == bits


def test_losses_are_of_the_same_noise() -> None:
    """In bfloat16 near and not equal; before its layers have weights it would hardly depend on a network."""
    module = VariationalDiffusion((3, 8, 8), 256, functools.partial(ScoreUNet, width=32, depth=1))
    images = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    before = _bits(module, images, False)
    _wake(module)
    plain, again, rough = (_bits(module, images, False, bfloat16=low) for low in (False, False, True))
    assert plain == again
    assert plain != before
    assert plain != rough
    assert rough == pytest.approx(plain, rel=3e-3)
    assert module.training
    _step(module, images, False)
    assert all(weight.grad is not None for weight in module.diffusion.network.parameters())
