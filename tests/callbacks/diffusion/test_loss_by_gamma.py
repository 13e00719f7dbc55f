"""Bins of gamma in real trainings of a tiny model."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.diffusion.elbo import ElboDiagnostics
from callbacks.diffusion.gamma import LossByGamma
from likeness.diffusion import AffineSchedule, PolynomialSchedule
from likeness.diffusion.process import evaluation_noise
from tests.callbacks.diffusion.toy_diffusion import LIMITS, ToyDiffuser, ToyImages, fit, keep_figures, table


def test_validation_bins_are_those_of_all_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = keep_figures(monkeypatch)
    callback, model, data = LossByGamma(num_bins=3), ToyDiffuser(schedule=PolynomialSchedule(*LIMITS)), ToyImages()
    fit(tmp_path, callback, model=model, data=data, max_epochs=1)
    batch = data.val[torch.arange(len(data.val))]
    noise = evaluation_noise(torch.empty(batch.x.shape), batch.id, model.seed, 0)
    with torch.no_grad():
        terms = model.eval().diffusion.elbo_terms(batch.x, **noise._asdict())
    loss = terms.diffusion.numpy() / (6 * math.log(2))
    gamma = model.diffusion.schedule(noise.t).numpy()
    rows = [row for row in table(tmp_path, "loss_by_gamma") if row["split"] == "val"]
    assert [float(row["gamma"]) for row in rows] == pytest.approx([-3.5, -0.5, 2.5])
    for row, low in zip(rows, (-5, -2, 1), strict=True):
        inside = (gamma >= low) & (gamma < low + 3)
        assert int(row["samples"]) == inside.sum()
        assert float(row["loss"]) == pytest.approx(loss[inside].mean(), rel=1e-5)
        assert float(row["variance"]) == pytest.approx(loss[inside].var(ddof=1), rel=1e-4)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    legend = figures["loss_by_gamma"].axes[0].get_legend()
    assert f"validation, area {callback.values['val'].area:.3f} bits/dim" in [t.get_text() for t in legend.get_texts()]


def test_the_area_is_the_diffusion_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many draws of few samples, whose times cover the bins."""
    keep_figures(monkeypatch)
    callback, terms = LossByGamma(num_bins=3), ElboDiagnostics(None)
    run = fit(tmp_path, callback, terms, model=ToyDiffuser(draws=100), max_epochs=1, num_sanity_val_steps=0)
    expected = float(run.callback_metrics["elbo/val/diffusion"])
    assert callback.values["val"].area == pytest.approx(expected, rel=0.01)


def test_training_bins_hold_the_batches_since_the_last_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_figures(monkeypatch)
    callback, model = LossByGamma(num_bins=3), ToyDiffuser()
    fit(tmp_path, callback, model=model, max_epochs=2, check_val_every_n_epoch=2)
    assert callback.values["train"].samples.sum() == 80
    fit(tmp_path, callback, model=model, max_epochs=2)
    assert callback.values["train"].samples.sum() == 40


def test_bins_follow_the_ends_of_a_learned_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch)
    callback, model = LossByGamma(num_bins=4), ToyDiffuser(schedule=AffineSchedule(*LIMITS))
    fit(tmp_path, callback, model=model, max_epochs=1)
    schedule = model.diffusion.schedule
    with torch.no_grad():
        ends = [float(end) for end in schedule.ends(torch.empty(()))]
    np.testing.assert_allclose(callback.values["val"].edges[[0, -1]], ends, rtol=1e-5)


def test_figures_at_the_cadence_are_kept_under_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch)
    fit(tmp_path, LossByGamma(every_n_validations=2), max_epochs=3)
    assert {path.name for path in (tmp_path / "figures").glob("*.p*")} == {
        *("loss_by_gamma.png", "loss_by_gamma.pdf", "loss_by_gamma-step=000008.png")
    }


def test_too_few_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 1"):
        LossByGamma(num_bins=1)
