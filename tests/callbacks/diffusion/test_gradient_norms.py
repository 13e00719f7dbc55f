"""Gradient norms by gamma during a training."""

from pathlib import Path

import pytest
import torch

from callbacks.diffusion.gamma import GradientNorms
from tests.callbacks.diffusion.toy_diffusion import LIMITS, ToyDiffuser, fit, keep_figures, table


def test_they_are_measured_at_their_cadence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch)
    fit(tmp_path, GradientNorms(every_n_steps=3, num_bins=2, num_samples=4), max_epochs=2)
    rows = table(tmp_path, "gradient_norms")
    assert [row["step"] for row in rows] == ["3", "3", "6", "6"]
    low, high = LIMITS
    assert [float(row["gamma"]) for row in rows[:2]] == pytest.approx([low + (high - low) * t for t in (0.25, 0.75)])
    assert all(float(row["squared_gradient_norm"]) > 0 for row in rows)
    names = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert names == {f"gradient_norms{suffix}.png" for suffix in ("", "-step=000003", "-step=000006")}


def test_accumulated_batches_measure_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch)
    options = {"accumulate_grad_batches": 2, "max_epochs": 1}
    fit(tmp_path, GradientNorms(every_n_steps=1, num_bins=2), model=ToyDiffuser(class_conditional=True), **options)
    assert [row["step"] for row in table(tmp_path, "gradient_norms")] == ["1", "1", "2", "2"]


def test_weights_that_carry_gradients_keep_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(monkeypatch)
    watched, alone = ToyDiffuser(), ToyDiffuser()
    options = {"accumulate_grad_batches": 4, "max_epochs": 1}
    fit(tmp_path, GradientNorms(every_n_steps=1, num_bins=2), model=watched, **options)
    fit(tmp_path, model=alone, **options)
    for one, other in zip(watched.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one, other)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        GradientNorms(num_bins=0)
