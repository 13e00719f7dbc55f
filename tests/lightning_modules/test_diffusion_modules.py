"""What training and evaluating diffusion models adds to the mathematics in ``likeness.diffusion``."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch._dynamo.testing import CompileCounter

from datamodules import Digits
from lightning_modules.checkpoints import load_module
from lightning_modules.diffusion import VariationalDiffusion
from likeness.batch import Batch
from likeness.diffusion import (
    AdaptiveDensity,
    AffineSchedule,
    CascadeSchedule,
    ContextPolynomial,
    GaussianContext,
    Haar,
    LearnedRatio,
    LearnedVolatility,
    MonotoneSchedule,
    MultivariatePolynomial,
    SignalDensity,
)
from likeness.diffusion.elbo import bits_per_dim
from likeness.diffusion.process import evaluation_noise, training_noise
from tests.lightning_modules.tiny_diffusion import ENCODER, LEVELS, SCORE, SHAPE, awake, batch, diffenc, vdm

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
DIMS = 64


def evaluated(module: VariationalDiffusion, parts: list[slice], size: int = 12) -> dict[str, float]:
    whole = batch(size)
    with torch.no_grad():
        for part in parts:
            module.eval()._evaluate(Batch(*(field[part] for field in whole)), module.test_bound)
    answers = {name: value.item() for name, value in module.test_bound.compute().items()}
    module.test_bound.reset()
    return answers


@pytest.mark.parametrize("build", [vdm, diffenc])
def test_the_bound_does_not_depend_on_how_samples_are_batched(build: partial) -> None:
    module = awake(build(eval_draws=3)).double()
    whole = evaluated(module, [slice(None)])
    parts = evaluated(module, [slice(7, 12), slice(0, 1), slice(1, 7)])
    assert whole == pytest.approx(parts, rel=1e-12)
    names = {"bpd", "reconstruction", "latent", "diffusion"}
    assert set(whole) == names | {f"{name}_{error}" for name in names for error in ("sample_se", "draw_se")}
    assert whole["bpd"] == pytest.approx(whole["reconstruction"] + whole["latent"] + whole["diffusion"], rel=1e-12)


def test_the_training_loss_is_the_mean_bound_in_bits_at_the_step_s_noise() -> None:
    module, losses = awake(vdm(seed=4)), []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
            losses.append((outputs["loss"].item(), batch))

    data = Digits(batch_size=16, seed=4)
    reference = awake(vdm(seed=4))
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        callbacks=[Losses()],
        limit_val_batches=0,
        use_distributed_sampler=False,
        **QUIET,
    )
    trainer.fit(module, data)
    noise = training_noise(torch.empty(16, *SHAPE), 4, 0, 0, 1)
    expected = bits_per_dim(reference.elbo_terms(losses[0][1].x, **noise._asdict()).total, DIMS).mean()
    assert losses[0][0] == pytest.approx(expected.item(), rel=1e-6)


def test_a_new_diffenc_is_the_one_without_parameters_and_its_score_network_vdm_s() -> None:
    trained, free, plain = diffenc(seed=3), diffenc(seed=3, encoder=None), vdm(seed=3)
    for name, value in plain.diffusion.network.state_dict().items():
        assert torch.equal(value, trained.diffusion.network.state_dict()[name]), name
    noise = evaluation_noise(torch.empty(5, *SHAPE), torch.arange(5), 0, 0)._asdict()
    for a, b in zip(trained.elbo_terms(batch(5).x, **noise), free.elbo_terms(batch(5).x, **noise), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_lean_form_differs_by_what_it_states() -> None:
    module = awake(diffenc()).double()
    noise = evaluation_noise(torch.empty(8, *SHAPE, dtype=torch.float64), torch.arange(8), 0, 0)._asdict()
    exact = module.diffusion.elbo_terms(batch(8).x, **noise)
    lean = module.diffusion.elbo_terms(batch(8).x, **noise, lean=True)
    assert torch.equal(lean.diffusion, exact.diffusion)
    torch.testing.assert_close(lean.latent, exact.latent[:2].mean().expand(8), rtol=1e-12, atol=0)
    shift = torch.sigmoid(torch.tensor(-7.9)) * 2  # sigma_0^2 |y - x|
    assert (lean.reconstruction - exact.reconstruction).abs().max() < DIMS * shift * torch.exp(torch.tensor(7.9))


def test_the_schedule_s_shape_is_trained_on_the_squared_loss() -> None:
    schedule = partial(MonotoneSchedule, gamma_min=-7.9, width=8, minimise_variance=True)
    module = awake(vdm(schedule=schedule)).double()
    own = module.diffusion.schedule
    with torch.no_grad():
        own.scale.add_(1.0)
    noise = evaluation_noise(torch.empty(6, *SHAPE, dtype=torch.float64), torch.arange(6), 0, 0)._asdict()
    loss = bits_per_dim(module.elbo_terms(batch(6).x, **noise).diffusion, DIMS)
    own.weigh_gradient(loss)
    loss.mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in own.named_parameters() if parameter.grad is not None}
    own.minimise_variance = False
    module.zero_grad()
    bits_per_dim(module.elbo_terms(batch(6).x, **noise).diffusion, DIMS).square().mean().backward()
    assert found
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, own.get_parameter(name).grad, rtol=1e-9, atol=1e-12)


def test_ratio_and_volatility_have_their_own_rates_and_no_decay() -> None:
    parts = {"ratio": partial(LearnedRatio, width=4), "volatility": partial(LearnedVolatility, width=4)}
    module = vdm(num_steps=4, **parts, ratio_lr=0.02, volatility_lr=0.03)
    groups = module.configure_optimizers()["optimizer"].param_groups
    for name, rate in (("ratio", 0.02), ("volatility", 0.03)):
        members = {id(parameter) for parameter in getattr(module.diffusion, name).parameters()}
        own = [group for group in groups if {id(parameter) for parameter in group["params"]} & members]
        assert len(own) == 1
        assert {id(parameter) for parameter in own[0]["params"]} == members
        assert own[0]["weight_decay"] == 0
        assert own[0]["initial_lr"] == rate
    with pytest.raises(ValueError, match=r"in infinite depth .* got LearnedRatio"):
        vdm(ratio=LearnedRatio)


def test_the_plug_in_drift_replaces_the_counter_term(tmp_path: Path) -> None:
    module = diffenc(plug_in=True)
    assert module.diffusion.plug_in
    assert not module.diffusion.counter_term
    pl.Trainer(default_root_dir=tmp_path, max_steps=2, limit_val_batches=1, **QUIET).fit(module, Digits(batch_size=20))
    assert not vdm().diffusion.plug_in
    with pytest.raises(ValueError, match="plug_in does not go with counter_term"):
        diffenc(plug_in=True, counter_term=True)


def test_options_that_choose_the_same_thing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"times \(SignalDensity\) and a schedule's minimise_variance both say where"):
        vdm(schedule=partial(MonotoneSchedule, width=4, minimise_variance=True), times=SignalDensity)
    with pytest.raises(ValueError, match=r"times.num_bins must divide num_steps=10, got num_bins=4"):
        vdm(num_steps=10, times=partial(AdaptiveDensity, num_bins=4))


def test_averaging_what_a_density_counts_is_refused(tmp_path: Path) -> None:
    run = pl.Trainer(default_root_dir=tmp_path, callbacks=[EMAWeightAveraging(decay=0.9)], max_steps=1, **QUIET)
    with pytest.raises(ValueError, match="EMAWeightAveraging would average what AdaptiveDensity counts: set its use_b"):
        run.fit(vdm(times=AdaptiveDensity), Digits(batch_size=20))


def test_training_draws_times_from_the_density_and_shows_it_the_losses(tmp_path: Path) -> None:
    """Step n draws from what steps before n have shown: replayed by hand, bit for bit; evaluation changes nothing."""
    seen: list[dict[str, Any]] = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            seen.append(outputs)

    module = vdm(times=partial(AdaptiveDensity, num_bins=2), seed=3)
    options = {"max_steps": 4, "val_check_interval": 1, "limit_val_batches": 1} | QUIET
    pl.Trainer(default_root_dir=tmp_path, callbacks=[Keep()], **options).fit(module, Digits(batch_size=20))
    replay = AdaptiveDensity(num_bins=2)
    for step, outputs in enumerate(seen):
        drawn = training_noise(torch.empty(20, *SHAPE), 3, step, 0, 1)
        noise = drawn.at_times_of(replay)
        assert torch.equal(noise.t, outputs["t"])
        torch.testing.assert_close(outputs["terms"].diffusion, noise.weight * outputs["rate"])
        replay.observe(noise.t, outputs["rate"] / DIMS)
    assert torch.equal(replay.sums, module.times.sums)
    assert (replay.density != 1).all()
    assert not torch.equal(seen[-1]["t"], drawn.t)


@pytest.mark.parametrize("build", [vdm, diffenc])
def test_layout_does_not_change_results(build: partial) -> None:
    noise = evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0)._asdict()
    last, first = (awake(build(channels_last=wanted)).elbo_terms(batch(4).x, **noise) for wanted in (True, False))
    for a, b in zip(last, first, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("build", [vdm, diffenc])
def test_bfloat16_is_near_float32_in_value_and_gradient(build: partial) -> None:
    noise = evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0)._asdict()
    found = []
    for enabled in (False, True):
        module = awake(build())
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = module.elbo_terms(batch(4).x, **noise)
        assert all(term.dtype == torch.float32 for term in terms)
        terms.total.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
        found.append((terms, gradient))
    (exact, exact_gradient), (rough, rough_gradient) = found
    for a, b in zip(rough, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=3e-2, atol=1e-5)
    assert torch.cosine_similarity(rough_gradient, exact_gradient, dim=0) > 0.99


@pytest.mark.parametrize("build", [vdm, pytest.param(diffenc, marks=pytest.mark.long)])
def test_the_compiled_loss_is_the_loss(build: partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead of time, tangents included; the machine code is left out, which takes minutes."""
    traced = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr("lightning_modules.diffusion.torch.compile", traced)
    noise = evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0)._asdict()
    data, classes = batch(4), {"class_conditional": True, "num_classes": 10}
    plain, compiled = (awake(build(compiled=wanted, **classes)) for wanted in (False, True))
    for module in (plain, compiled):
        module._training_terms()(data.x, **noise, labels=data.y, lean=False).total.mean().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-4 * a.grad.abs().max().item() + 1e-4, msg=name)


TOLD = partial(SCORE, gamma_map=True)
CONTEXT = {
    "context": partial(GaussianContext, size=4),
    "network": partial(TOLD, context_size=4),
    "schedule": partial(ContextPolynomial, context_size=4),
}
ALL = {
    "network": TOLD,
    "volatility": LearnedVolatility,
    "times": SignalDensity,
    "schedule": MultivariatePolynomial,
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("build", "options"),
    [
        (vdm, {"class_conditional": True, "num_classes": 10}),
        (vdm, {"num_steps": 10, "ratio": LearnedRatio}),
        (vdm, {"network": TOLD, "basis": Haar, "schedule": CascadeSchedule}),
        (vdm, CONTEXT),
        (vdm, {"schedule": AffineSchedule}),
        (diffenc, {"class_conditional": True, "num_classes": 10}),
        (diffenc, {"lean": True}),
        (diffenc, {"flow_head": True}),
        (diffenc, {"plug_in": True}),
        (diffenc, {"basis": Haar}),
        (diffenc, ALL),
        (diffenc, {"num_steps": 10}),
    ],
)
def test_the_loss_is_compiled_in_one_piece(build: partial, options: dict[str, Any]) -> None:
    """With dropout: pieces would run between uncompiled ones, and the many blocks of a network pass dynamo's limit."""
    networks = {"network": SCORE, **({"encoder": ENCODER} if build is diffenc else {})} | options
    dropped = {name: partial(networks[name], dropout=0.1) for name in ("network", "encoder") if name in networks}
    module, compiler = build(compiled=True, **options | dropped), CompileCounter()
    torch.compiler.reset()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_modules.diffusion.torch.compile", partial(torch.compile, backend=compiler))
        terms = module._training_terms()
    for size in (4, 4, 3, 2):
        data = batch(size)
        drawn = training_noise(module._like(data.x), 0, 0, 0, 1, context_size=module.diffusion.context_size)
        noise = drawn.at_times_of(module.times)._asdict()
        terms(data.x, **noise, labels=module._labels(data), lean=module.lean).total.mean().backward()
    assert compiler.frame_count == 2, "one of a fixed number of images, one of any"


def test_a_wrong_label_is_named_where_the_loss_is_compiled() -> None:
    module = vdm(class_conditional=True, num_classes=4, compiled=True)
    with pytest.raises(ValueError, match=re.escape("label 9 lies outside 0..3 (num_classes=4)")):
        module.training_step(batch(10), 0)


def test_labels_reach_the_networks_where_they_are_wanted() -> None:
    module = diffenc(class_conditional=True, num_classes=10)
    with torch.no_grad():
        for network in (module.diffusion.network, module.diffusion.encoder.network):
            for name, parameter in network.named_parameters():
                if "label" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    awake(module)
    images, noise = batch(4).x, evaluation_noise(torch.empty(4, *SHAPE), torch.arange(4), 0, 0)._asdict()
    zeros, ones = (module.elbo_terms(images, **noise, labels=torch.full((4,), k)).diffusion for k in (0, 1))
    assert (zeros - ones).abs().min() > 1e-4
    with pytest.raises(ValueError, match="class_conditional needs num_classes, got None"):
        vdm(class_conditional=True)


def test_embeddings_and_means_of_stored_images() -> None:
    module = awake(diffenc()).eval()
    images = batch(3).x
    assert module.embed(images).shape == (3, 8)
    x = 2 * (images.float() + 0.5) / LEVELS - 1
    torch.testing.assert_close(module.encode(images, 0.0), x, rtol=0, atol=2 * 3.8e-4)  # sigma_0^2 |y - x|
    free = diffenc(encoder=None)
    gamma = torch.tensor(-7.9 + 12.9 * 0.7)
    torch.testing.assert_close(free.encode(images, 0.7), torch.sigmoid(-gamma) * x)


@pytest.mark.parametrize("build", [vdm, diffenc])
def test_a_checkpoint_is_the_module(build: partial, tmp_path: Path) -> None:
    from scripts.import_published import save

    module = awake(build(eval_draws=2))
    save(module, tmp_path / "model.ckpt")
    loaded = load_module(tmp_path / "model.ckpt").eval()
    assert type(loaded) is type(module)
    assert evaluated(loaded, [slice(None)]) == evaluated(module, [slice(None)])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, *SHAPE), 17, dtype=torch.uint8), r"grey level 17 lies outside 0\.\.16"),
        (torch.full((1, *SHAPE), -1), r"grey level -1 lies outside 0\.\.16"),
        (torch.full((1, *SHAPE), 0.5), "whole grey levels, got 0.5"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "3, 8, 8"),
        (torch.zeros(1, 1, 9, 8, dtype=torch.uint8), "9"),
    ],
)
def test_images_that_no_model_can_take(images: torch.Tensor, message: str) -> None:
    noise = evaluation_noise(torch.empty(images.shape), torch.arange(1), 0, 0)._asdict()
    with pytest.raises(ValueError, match=message):
        diffenc().elbo_terms(images, **noise)
