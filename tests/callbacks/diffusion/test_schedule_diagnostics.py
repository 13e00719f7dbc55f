"""Figures of the schedule and of the variance ratio."""

from pathlib import Path

import pytest
import torch

from callbacks.diffusion.gamma import ScheduleDiagnostics
from likeness.diffusion import (
    ConstantRatio,
    IdentityEncoder,
    LearnedVolatility,
    MultivariatePolynomial,
    NoiseSchedule,
    PolynomialSchedule,
)
from likeness.figures.diffusion import schedule_figure
from tests.callbacks.diffusion.toy_diffusion import LIMITS, ToyDiffuser, fit, keep_figures, table


@pytest.mark.parametrize(("schedule", "panels"), [(None, 3), (PolynomialSchedule(*LIMITS), 4)])
def test_the_derivative_is_drawn_where_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: NoiseSchedule | None, panels: int
) -> None:
    figures = keep_figures(monkeypatch)
    model = ToyDiffuser(schedule=schedule)
    fit(tmp_path, ScheduleDiagnostics(), model=model, max_epochs=1)
    assert figures.keys() == {"schedule", "volatility"}  # in infinite depth there is no ratio
    axes = figures["schedule"].axes
    assert len(axes) == panels
    t, gamma = axes[0].lines[0].get_data()
    expected, slope = model.diffusion.schedule.with_derivative(torch.as_tensor(t, dtype=torch.float32))
    assert gamma == pytest.approx(expected.numpy(), rel=1e-5)
    assert axes[2].lines[0].get_ydata() == pytest.approx(torch.exp(-expected).numpy(), rel=1e-4)
    if panels == 4:
        assert axes[3].lines[0].get_ydata() == pytest.approx(slope.numpy(), rel=1e-5)


def test_the_spread_over_dimensions() -> None:
    """Means as lines, and from the least to the largest in grey."""
    schedule = MultivariatePolynomial(*LIMITS, dims=(6,)).requires_grad_(False)
    schedule.b.copy_(torch.arange(6.0))
    found = schedule.with_derivative(torch.linspace(0, 1, 65))
    level, *_, slope = schedule_figure(*(values.numpy() for values in found)).axes
    for axes, values in zip((level, slope), found, strict=True):
        assert axes.lines[0].get_ydata() == pytest.approx(values.mean(1).numpy(), rel=1e-5, abs=1e-5)
        heights = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == pytest.approx((values.min().item(), values.max().item()), rel=1e-5)


@pytest.mark.parametrize("ratio", [None, ConstantRatio()])
def test_the_ratio_in_finite_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: ConstantRatio | None
) -> None:
    figures = keep_figures(monkeypatch)
    fit(tmp_path, ScheduleDiagnostics(num_samples=40), model=ToyDiffuser(num_steps=5, ratio=ratio), max_epochs=1)
    rows = table(tmp_path, "variance_ratio")
    assert len(rows) == 5
    assert all(float(row["optimal"]) > 0 for row in rows)
    expected = 0 if ratio is None else ratio.rho.item()
    assert [float(row["rho"]) for row in rows] == pytest.approx([expected] * 5)
    assert len(figures["variance_ratio"].axes[0].get_legend().get_texts()) == 1 + (ratio is not None)


@pytest.mark.parametrize("own", [False, True])
def test_the_volatility(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """Of an encoder: the model's kappa, the best, and that of the encoder without parameters."""
    figures = keep_figures(monkeypatch)
    volatility = LearnedVolatility(width=4) if own else None
    model = ToyDiffuser(volatility=volatility)
    fit(tmp_path, ScheduleDiagnostics(num_samples=40), model=model, max_epochs=1)
    rows = [row for row in table(tmp_path, "volatility") if row["gamma"] != "nan"]
    gamma = torch.tensor([float(row["gamma"]) for row in rows])
    kappa = torch.ones(len(rows)) if volatility is None else volatility(gamma).detach()
    assert [float(row["kappa"]) for row in rows] == pytest.approx(kappa.tolist(), rel=1e-2)
    assert any(abs(float(row["optimal"]) - 1) > 0.02 for row in rows)
    expected = (1 + 2 * torch.sigmoid(gamma)).tolist()
    assert [float(row["without_parameters"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert len(figures["volatility"].axes[0].get_legend().get_texts()) == 2 + own


def test_nothing_is_drawn_of_a_volatility_that_has_nothing_to_gain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = keep_figures(monkeypatch)
    fit(tmp_path, ScheduleDiagnostics(), model=ToyDiffuser(encoder=IdentityEncoder()), max_epochs=1)
    assert figures.keys() == {"schedule"}
