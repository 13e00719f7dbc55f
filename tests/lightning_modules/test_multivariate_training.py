"""Training a noise schedule for each dimension: its rate, its parameters, resuming, averaging, and what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from datamodules import Digits
from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import VariationalDiffusion
from likeness.diffusion import CascadeSchedule, Haar, MultivariatePolynomial
from likeness.diffusion.process import evaluation_noise
from tests.lightning_modules.tiny_diffusion import SCORE, SHAPE, awake, batch, diffenc, vdm

SCHEDULE = partial(MultivariatePolynomial, gamma_min=-7.9)
TOLD = partial(SCORE.func, **SCORE.keywords, gamma_map=True)
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}


def module(build: partial[VariationalDiffusion] = diffenc, **options: Any) -> VariationalDiffusion:
    return build(schedule=SCHEDULE, network=TOLD, **options)


class SaveEach(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(f"{trainer.default_root_dir}/{trainer.global_step}.ckpt")


def fit(folder: Path, resume: Path | None = None) -> VariationalDiffusion:
    """Four steps, or what is left of them."""
    callbacks = [EMAWeightAveraging(decay=0.5, use_buffers=False), SaveEach()]
    limits = {"max_steps": 4, "limit_val_batches": 0, "use_distributed_sampler": False}
    trainer = pl.Trainer(default_root_dir=folder, callbacks=callbacks, **limits, **QUIET)
    trained = module(seed=2, schedule_lr=4e-3)
    trainer.fit(trained, Digits(batch_size=20, seed=2), ckpt_path=resume)
    return trained


@pytest.mark.parametrize("build", [vdm, diffenc])
@pytest.mark.parametrize("num_steps", [None, 6])
def test_it_starts_as_the_scalar_model(build: partial[VariationalDiffusion], num_steps: int | None) -> None:
    """L3, in float32: all terms, where the network has no use yet for what it is told."""
    noise = evaluation_noise(torch.empty(5, *SHAPE), torch.arange(5), 0, 0)._asdict()
    own, plain = (awake(build(num_steps=num_steps, **options)) for options in ({"schedule": SCHEDULE}, {}))
    for coefficients in (own.diffusion.schedule.a, own.diffusion.schedule.b):
        torch.nn.init.zeros_(coefficients)
    for found, expected in zip(own.elbo_terms(batch(5).x, **noise), plain.elbo_terms(batch(5).x, **noise), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_schedule_has_its_own_rate_and_no_decay() -> None:
    """The step moves it; a scalar schedule stays among the networks' parameters."""
    own = module(schedule_lr=0.02)
    groups = own.configure_optimizers()["optimizer"].param_groups
    assert [tuple(parameter.shape) for parameter in own.diffusion.schedule.parameters()] == [SHAPE] * 3
    members = {id(parameter) for parameter in own.diffusion.schedule.parameters()}
    (group,) = [group for group in groups if {id(parameter) for parameter in group["params"]} & members]
    assert {id(parameter) for parameter in group["params"]} == members
    assert (group["weight_decay"], group["initial_lr"]) == (0, 0.02)
    total = sum(len(group["params"]) for group in groups)
    assert total == sum(1 for _ in own.diffusion.parameters())


def test_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    """With averaged weights: two steps and two more are four; the schedule has left its line, the average lags."""
    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", tmp_path / "whole" / "2.ckpt")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    schedule = whole.diffusion.schedule
    assert all(parameter.abs().max() > 1e-4 for parameter in (schedule.a, schedule.b))
    loaded = load_module(tmp_path / "whole" / "4.ckpt").diffusion.schedule
    assert isinstance(loaded, MultivariatePolynomial)
    assert loaded.dims == SHAPE


def test_a_checkpoint_is_the_module(tmp_path: Path) -> None:
    from scripts.import_published import save

    own = awake(module())
    save(own, tmp_path / "model.ckpt")
    noise = evaluation_noise(torch.empty(5, *SHAPE), torch.arange(5), 0, 0)._asdict()
    loaded = load_module(tmp_path / "model.ckpt").eval()
    assert torch.equal(loaded.elbo_terms(batch(5).x, **noise).total, own.eval().elbo_terms(batch(5).x, **noise).total)
    assert torch.equal(loaded.embed(batch(5).x), own.embed(batch(5).x))
    assert torch.equal(loaded.encode(batch(5).x, 0.3), own.encode(batch(5).x, 0.3))


def test_a_cascade_in_another_basis(tmp_path: Path) -> None:
    """Its checkpoint is the module; what is encoded are images; every weight is trained, none of a fixed schedule."""
    from scripts.import_published import save

    options = {"schedule": partial(CascadeSchedule, gamma_min=-7.9), "network": TOLD, "basis": Haar}
    own = awake(diffenc(**options)).eval()
    groups = own.configure_optimizers()["optimizer"].param_groups
    assert sum(len(group["params"]) for group in groups) == sum(1 for _ in own.diffusion.parameters())
    assert all(group["params"] for group in groups)
    save(own, tmp_path / "model.ckpt")
    noise = evaluation_noise(torch.empty(5, *SHAPE), torch.arange(5), 0, 0)._asdict()
    loaded = load_module(tmp_path / "model.ckpt").eval()
    found = own.elbo_terms(batch(5).x, **noise)
    assert torch.equal(loaded.elbo_terms(batch(5).x, **noise).total, found.total)
    plain = awake(diffenc(network=TOLD)).eval()
    assert not torch.allclose(found.diffusion, plain.elbo_terms(batch(5).x, **noise).diffusion)
    torch.testing.assert_close(own.encode(batch(5).x, 0.0), plain.encode(batch(5).x, 0.0), rtol=0, atol=1e-3)
    found.total.mean().backward()
    assert all(weight.grad is not None for weight in own.diffusion.parameters())


def test_pairs_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(
        ValueError, match="MultivariatePolynomial with floor=0 and TrainableEncoder: the mean would move"
    ):
        diffenc(schedule=partial(SCHEDULE, floor=0.0))
    with pytest.raises(ValueError, match=r"the schedule's dims are \[3\], the samples \[1, 8, 8\]"):
        vdm(schedule=partial(SCHEDULE, dims=(3,)))


def test_bfloat16_leaves_gamma_alone() -> None:
    """A map in bfloat16 would lose .03 of gamma, and the latent and diffusion terms with it."""
    own = awake(module())
    noise = evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0)._asdict()
    exact = own.elbo_terms(batch(4).x, **noise)
    with torch.autocast("cpu", torch.bfloat16):
        rough = own.elbo_terms(batch(4).x, **noise)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=3e-2, atol=1e-5)
