"""Terms and gap in real trainings of a tiny model."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from callbacks.diffusion.elbo import ElboDiagnostics
from callbacks.loggers import RunCSVLogger
from likeness.diffusion import AffineSchedule
from likeness.diffusion.elbo import ElboTerms
from likeness.diffusion.process import evaluation_noise
from tests.callbacks.diffusion.toy_diffusion import LIMITS, ToyDiffuser, ToyImages, fit
from tests.callbacks.toy_siblings import ToyData, ToySiblings, trainer
from tests.lightning_modules.tiny_diffusion import SHAPE, vdm

TERMS = (*ElboTerms._fields, "bpd")


def logged(run: pl.Trainer) -> dict[str, float]:
    return {key: float(value) for key, value in run.callback_metrics.items() if key.startswith("elbo/")}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def evaluated(model: ToyDiffuser, data: Any, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Bits per dimension, [n], of samples at ``places`` with the noise of ``ids``."""
    batch = data[places]
    noise = evaluation_noise(torch.empty(batch.x.shape), ids, model.seed, 0)
    with torch.no_grad():
        terms = model.eval().diffusion.elbo_terms(batch.x, **noise._asdict())
    return terms.total / (batch.x[0].numel() * math.log(2))


def test_training_terms_are_means_over_the_batches_since_the_last_logging(tmp_path: Path) -> None:
    model = ToyDiffuser()
    logger = RunCSVLogger(str(tmp_path))
    fit(tmp_path, ElboDiagnostics(), model=model, max_epochs=2, log_every_n_steps=3, logger=logger)
    found = [row for row in rows(tmp_path) if row["elbo/train/bpd"]]
    losses = torch.stack(model.losses).double()
    assert [int(row["step"]) for row in found] == [2, 5]
    for row, own in zip(found, (losses[:3], losses[3:6]), strict=True):
        assert float(row["elbo/train/bpd"]) == pytest.approx(float(own.mean()), rel=1e-6)
        assert float(row["elbo/train/bpd_se"]) == pytest.approx(float(own.std() / math.sqrt(3)), rel=1e-5)
        parts = sum(float(row[f"elbo/train/{name}"]) for name in ElboTerms._fields)
        assert parts == pytest.approx(float(row["elbo/train/bpd"]), rel=1e-6)


def test_one_batch_has_no_standard_error(tmp_path: Path) -> None:
    values = logged(fit(tmp_path, ElboDiagnostics(), log_every_n_steps=1, max_epochs=1))
    assert "elbo/train/bpd" in values
    assert "elbo/train/bpd_se" not in values


def test_accumulated_batches_are_logged_once(tmp_path: Path) -> None:
    model = ToyDiffuser()
    logger = RunCSVLogger(str(tmp_path))
    options = {"accumulate_grad_batches": 2, "log_every_n_steps": 1, "logger": logger, "max_epochs": 1}
    fit(tmp_path, ElboDiagnostics(), model=model, **options)
    found = [float(row["elbo/train/bpd"]) for row in rows(tmp_path) if row["elbo/train/bpd"]]
    losses = torch.stack(model.losses)
    assert found == pytest.approx([float(losses[:2].mean()), float(losses[2:].mean())], rel=1e-6)


def test_validation_terms_are_those_of_all_samples(tmp_path: Path) -> None:
    model, data = ToyDiffuser(), ToyImages()
    values = logged(fit(tmp_path, ElboDiagnostics(), model=model, data=data, max_epochs=1))
    ids = torch.arange(len(data.val))
    bits = evaluated(model, data.val, ids, ids)
    assert values["elbo/val/bpd"] == pytest.approx(float(bits.mean()), rel=1e-5)
    assert values["elbo/val/bpd_sample_se"] == pytest.approx(float(bits.std() / math.sqrt(len(bits))), rel=1e-4)
    assert {f"elbo/val/{name}{se}" for name in TERMS for se in ("", "_sample_se")} <= values.keys()
    assert "elbo/val/bpd_draw_se" not in values
    assert (values["elbo/gamma_0"], values["elbo/gamma_1"]) == LIMITS


def test_draws_have_an_error_of_their_own(tmp_path: Path) -> None:
    values = logged(fit(tmp_path, ElboDiagnostics(), model=ToyDiffuser(draws=3), max_epochs=1))
    assert 0 < values["elbo/val/bpd_draw_se"] < values["elbo/val/bpd"]


def test_the_gap_is_between_splits_at_the_same_weights(tmp_path: Path) -> None:
    model, data = ToyDiffuser(), ToyImages()
    callback = ElboDiagnostics(gap_every_n_validations=1, gap_samples=20)
    values = logged(fit(tmp_path, callback, model=model, data=data, max_epochs=1))
    ids = torch.arange(len(data.val))
    val = evaluated(model, data.val, ids, ids)
    train = evaluated(model, data.train, torch.arange(20), 2 * torch.arange(20))
    assert values["elbo/gap"] == pytest.approx(float(val.mean() - train.mean()), abs=1e-5)
    error = math.hypot(float(val.std()) / math.sqrt(len(val)), float(train.std()) / math.sqrt(20))
    assert values["elbo/gap_se"] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("every", [2, None])
def test_the_gap_has_a_cadence(tmp_path: Path, every: int | None) -> None:
    fit(tmp_path, ElboDiagnostics(every), max_epochs=5, logger=RunCSVLogger(str(tmp_path)))
    measured = [row["epoch"] for row in rows(tmp_path) if row.get("elbo/gap")]
    assert measured == ([] if every is None else ["1", "3"])


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_what_is_measured(tmp_path: Path, first: bool) -> None:
    callback, averages = ElboDiagnostics(1, gap_samples=10), EMAWeightAveraging(decay=0.9, use_buffers=False)
    data = ToyImages()
    values = logged(fit(tmp_path, *([callback, averages] if first else [averages, callback]), data=data))
    averaged = averages._average_model.module
    ids = torch.arange(len(data.val))
    val = evaluated(averaged, data.val, ids, ids).mean()
    train = evaluated(averaged, data.train, torch.arange(10), 4 * torch.arange(10)).mean()
    assert values["elbo/val/bpd"] == pytest.approx(float(val), rel=1e-5)
    assert values["elbo/gap"] == pytest.approx(float(val - train), abs=1e-5)


def test_the_ends_of_a_learned_schedule(tmp_path: Path) -> None:
    model = ToyDiffuser(schedule=AffineSchedule(*LIMITS))
    values = logged(fit(tmp_path, ElboDiagnostics(), model=model, max_epochs=3))
    schedule = model.diffusion.schedule
    assert values["elbo/gamma_0"] == pytest.approx(float(schedule.b.detach()))
    assert values["elbo/gamma_0"] != LIMITS[0]


def test_class_conditional_models(tmp_path: Path) -> None:
    callback = ElboDiagnostics(1, gap_samples=10)
    values = logged(fit(tmp_path, callback, model=ToyDiffuser(class_conditional=True), max_epochs=1))
    assert math.isfinite(values["elbo/gap"])


def test_validation_alone_has_terms_too(tmp_path: Path) -> None:
    run = trainer(tmp_path, ElboDiagnostics())
    run.validate(ToyDiffuser(), datamodule=ToyImages(), verbose=False)
    assert {"elbo/val/bpd", "elbo/seconds"} <= run.callback_metrics.keys()


def test_what_trains_no_diffusion_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ElboDiagnostics looks at diffusion models .*; ToySiblings is none"):
        fit(tmp_path, ElboDiagnostics(), model=ToySiblings(), data=ToyData())


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="gap_samples must be at least 1, got 0"):
        ElboDiagnostics(gap_samples=0)
    with pytest.raises(ValueError, match="gap_every_n_validations must be at least 1, got 0"):
        ElboDiagnostics(0)


class KeepMetrics(pl.Callback):
    """Each rank's metrics, in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(logged(trainer), self.folder / f"{trainer.global_rank}.pt")


def test_two_ranks_log_what_one_does(tmp_path: Path) -> None:
    """The learning rate is zero and no dropout is drawn, for gradients are not what is compared."""

    def run(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
        model = ToyDiffuser(learning_rate=0.0)
        for network in (model.diffusion.network, model.diffusion.encoder):
            network.register_forward_pre_hook(lambda module, inputs: module.eval() and None)
        callback = ElboDiagnostics(1, gap_samples=7)
        return fit(tmp_path, callback, *callbacks, model=model, max_epochs=1, log_every_n_steps=4, **options)

    expected = logged(run())
    run(KeepMetrics(tmp_path), strategy="ddp_fork", devices=2)
    for rank in range(2):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values.keys() == expected.keys()
        for key in values.keys() - {"elbo/seconds"}:
            if not (key.startswith("elbo/train/") and key.endswith("_se")):  # of twice as many batches
                assert values[key] == pytest.approx(expected[key], rel=1e-5), key


@pytest.mark.parametrize("draws", [1, 2])
def test_a_diffusion_module_logs_the_same_bound(tmp_path: Path, draws: int) -> None:
    callback = ElboDiagnostics(None)
    data = ToyImages(SHAPE)
    values = fit(tmp_path, callback, model=vdm(eval_draws=draws), data=data, max_epochs=1).callback_metrics
    for name in TERMS:
        assert float(values[f"elbo/val/{name}"]) == pytest.approx(float(values[f"val/{name}"]), rel=1e-5)
    if draws == 2:
        assert float(values["elbo/val/bpd_draw_se"]) == pytest.approx(float(values["val/bpd_draw_se"]), rel=1e-4)
