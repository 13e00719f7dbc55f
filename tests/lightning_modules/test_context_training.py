"""Training a model with a context: its parameters, its term in what is logged, resuming, and what is kept of it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from callbacks import ElboDiagnostics
from datamodules import Digits
from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import VariationalDiffusion
from likeness.diffusion import ContextPolynomial, GaussianContext, TopKContext
from likeness.diffusion.process import evaluation_noise
from tests.lightning_modules.test_multivariate_training import QUIET, SaveEach
from tests.lightning_modules.tiny_diffusion import SCORE, SHAPE, awake, batch, diffenc, vdm

SIZE = 3
TOLD: dict[str, Any] = {
    "context": partial(GaussianContext, size=SIZE),
    "schedule": partial(ContextPolynomial, gamma_min=-7.9, context_size=SIZE, width=8),
    "network": partial(SCORE.func, **SCORE.keywords, gamma_map=True, context_size=SIZE),
}


def fit(
    folder: Path, told: dict[str, Any], resume: Path | None = None
) -> tuple[VariationalDiffusion, dict[str, torch.Tensor]]:
    """Four steps, or what is left of them, and what was logged."""
    limits: dict[str, Any] = {"max_steps": 4, "limit_val_batches": 1, "val_check_interval": 4, "log_every_n_steps": 2}
    callbacks = [SaveEach(), ElboDiagnostics(gap_samples=4)]
    trainer = pl.Trainer(default_root_dir=folder, callbacks=callbacks, use_distributed_sampler=False, **limits, **QUIET)
    trained = vdm(**told, seed=2, eval_draws=2)
    trainer.fit(trained, Digits(batch_size=10, seed=2), ckpt_path=resume)
    return trained, dict(trainer.logged_metrics)


@pytest.mark.parametrize("context", [partial(GaussianContext, size=SIZE), partial(TopKContext, size=SIZE, k=1)])
def test_it_trains_logs_and_resumes_bit_for_bit(context: Any, tmp_path: Path) -> None:
    """Two steps and two more are four; every part of the context has moved, and its KL is in the sum."""
    told = TOLD | {"context": context}
    start = vdm(**told, seed=2)
    whole, logged = fit(tmp_path / "whole", told)
    resumed, _ = fit(tmp_path / "resumed", told, tmp_path / "whole" / "2.ckpt")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    moved = dict(whole.diffusion.named_parameters())
    for name, before in start.diffusion.named_parameters():
        if name.startswith(("context", "schedule")):
            assert not torch.equal(before, moved[name]), name
    terms = ("reconstruction", "latent", "diffusion", "context")
    for prefix in ("val", "elbo/val"):
        found = [logged[f"{prefix}/{name}"] for name in terms]
        assert found[-1] > 0
        torch.testing.assert_close(sum(found), logged[f"{prefix}/bpd"])
    assert "elbo/train/context" in logged
    assert isinstance(load_module(tmp_path / "whole" / "4.ckpt").diffusion.context, context.func)


def test_the_heads_of_the_schedule_have_its_rate_and_no_decay() -> None:
    own = diffenc(**TOLD, schedule_lr=0.02)
    groups = own.configure_optimizers()["optimizer"].param_groups
    members = {id(parameter) for parameter in own.diffusion.schedule.parameters()}
    (group,) = [group for group in groups if {id(parameter) for parameter in group["params"]} & members]
    assert (group["weight_decay"], group["initial_lr"], len(group["params"])) == (0, 0.02, 10)
    assert sum(len(group["params"]) for group in groups) == sum(1 for _ in own.diffusion.parameters())


def test_the_first_weights_are_those_of_the_seed() -> None:
    """The hidden layers of the schedule and the context too; the score network's are as without them."""
    one, two = (diffenc(**TOLD, seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    plain = {
        name: weight
        for name, weight in diffenc(seed=3).state_dict().items()
        if name.startswith("diffusion.network.body.")
    }
    assert plain
    assert all(torch.equal(weight, one[name]) for name, weight in plain.items())


def test_what_is_looked_at_without_noise_is_of_the_mean_context() -> None:
    own = awake(diffenc(**TOLD)).eval()
    x = batch(4).x
    noise = evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0, SIZE)._asdict()
    assert own.elbo_terms(x, **noise).context.shape == (4,)  # type: ignore[union-attr]
    assert own.embed(x).shape[0] == 4
    assert torch.equal(own.encode(x, 0.4), own.encode(x, 0.4))
