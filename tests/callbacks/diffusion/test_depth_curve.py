"""The curve over depths of a training's model."""

from pathlib import Path

import pytest

from callbacks.diffusion.elbo import DepthCurve, ElboDiagnostics
from tests.callbacks.diffusion.toy_diffusion import ToyDiffuser, fit, keep_figures, table


@pytest.mark.parametrize("num_steps", [4, None])
def test_the_model_s_own_depth_is_the_validation_s_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_steps: int | None
) -> None:
    figures = keep_figures(monkeypatch)
    model = ToyDiffuser(num_steps=num_steps)
    run = fit(tmp_path, ElboDiagnostics(None), DepthCurve((8, 4)), model=model, max_epochs=1)
    rows = {row["num_steps"]: row for row in table(tmp_path, "depth_curve")}
    assert list(rows) == ["4", "8", "inf"]
    own = rows["inf" if num_steps is None else str(num_steps)]
    assert float(own["bpd"]) == pytest.approx(float(run.callback_metrics["elbo/val/bpd"]), rel=1e-5)
    assert float(own["bpd_se"]) == pytest.approx(float(run.callback_metrics["elbo/val/bpd_sample_se"]), rel=1e-4)
    assert all(float(row["fitted"]) <= float(row["bpd"]) for row in rows.values())
    assert figures.keys() == {"depth_curve"}
    assert model.diffusion.num_steps == num_steps


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"depths must be numbers of steps, at least 1, got \[10, 0\]"):
        DepthCurve((10, 0))
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        DepthCurve(num_samples=0)
