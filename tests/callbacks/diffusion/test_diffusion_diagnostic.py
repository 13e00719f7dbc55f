"""What the diagnostics of diffusion models share: when they look, and that the training does not notice."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

from callbacks.diffusion.base import DiffusionDiagnostic, evaluating
from callbacks.diffusion.elbo import DepthCurve, ElboDiagnostics
from callbacks.diffusion.encoder import EncoderDiagnostics
from callbacks.diffusion.gamma import GradientNorms, LossByGamma, ScheduleDiagnostics
from callbacks.diffusion.samples import SampleFigures
from callbacks.loggers import RunCSVLogger
from likeness.diffusion import MonotoneSchedule
from likeness.protocols import Diffuser
from tests.callbacks.diffusion.toy_diffusion import LIMITS, ToyDiffuser, fit, not_drawn


def all_of_them(every: int | None = 1) -> list[pl.Callback]:
    """Each diagnostic, small."""
    return [
        ElboDiagnostics(every, gap_samples=10),
        LossByGamma(num_bins=4, every_n_validations=every),
        ScheduleDiagnostics(every, num_samples=10),
        EncoderDiagnostics(every, num_samples=5, num_times=3, num_images=2),
        DepthCurve((3, 5), num_samples=10, every_n_validations=every),
        SampleFigures(num_samples=4, num_steps=3, path_samples=2, path_length=3, every_n_validations=every),
        GradientNorms(every_n_steps=3, num_bins=2, num_samples=4),
    ]


class Eye(DiffusionDiagnostic):
    """Remembers what it saw."""

    prefix = "eye"

    def __init__(self, every_n_validations: int | None) -> None:
        super().__init__(every_n_validations)
        self.seen: list[tuple[int, bool]] = []
        self.weight = torch.empty(0)

    def _look(self, trainer: pl.Trainer, module: Diffuser, *, final: bool) -> None:
        self.seen.append((trainer.global_step, final))
        self.weight = module.diffusion.network.first.weight.clone()
        torch.randn(3)
        assert not any(layer.training for layer in module.diffusion.modules())
        assert not torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore:Found . module.s. in eval mode")
@pytest.mark.parametrize(("every", "num_steps"), [(1, 6), (None, None)])
def test_training_does_not_notice(
    tmp_path: Path, every: int | None, num_steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and losses are the same bit for bit, modes of layers and the random state too."""
    monkeypatch.setattr("callbacks.run.publishing.save_formats", not_drawn)  # half a second each

    def train(*callbacks: pl.Callback) -> tuple[ToyDiffuser, torch.Tensor]:
        schedule = MonotoneSchedule(*LIMITS, width=8)
        model = ToyDiffuser(schedule=schedule, num_steps=num_steps, draws=2)
        model.diffusion.encoder.eval()  # a frozen part stays in its mode
        fit(tmp_path, *callbacks, model=model, max_epochs=2)
        return model, torch.rand(3)

    torch.manual_seed(1)
    with_schedule = torch.random.get_rng_state()
    watched, after = train(*all_of_them(every))
    torch.random.set_rng_state(with_schedule)
    alone, expected = train()
    assert torch.equal(torch.stack(watched.losses), torch.stack(alone.losses))
    for one, other in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    modes = ([layer.training for layer in model.modules()] for model in (watched, alone))
    assert next(modes) == next(modes)
    assert torch.equal(after, expected)


@pytest.mark.parametrize(("every", "seen"), [(1, [4, 8, 12]), (2, [8, 12]), (None, [12])])
def test_it_looks_at_its_cadence_and_when_training_ends(tmp_path: Path, every: int | None, seen: list[int]) -> None:
    eye = Eye(every)
    fit(tmp_path, eye, max_epochs=3, logger=RunCSVLogger(str(tmp_path)))
    assert [step for step, _ in eye.seen] == seen
    assert [final for _, final in eye.seen] == [step == 12 and every != 1 for step in seen]
    with (tmp_path / "metrics.csv").open() as file:
        costs = {int(row["step"]) + 1: float(row["eye/seconds"]) for row in csv.DictReader(file) if row["eye/seconds"]}
    assert list(costs) == seen
    assert all(seconds > 0 for seconds in costs.values())


def test_the_cadence_survives_a_restart(tmp_path: Path) -> None:
    first, second = Eye(3), Eye(3)
    fit(tmp_path, first, max_epochs=2)
    second.load_state_dict(first.state_dict())
    fit(tmp_path, second, max_epochs=1)
    assert second.seen == [(4, False)]


@pytest.mark.parametrize("every", [1, None])
@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_what_is_seen(tmp_path: Path, every: int | None, first: bool) -> None:
    eye, averages = Eye(every), EMAWeightAveraging(decay=0.9, use_buffers=False)
    model = ToyDiffuser()
    fit(tmp_path, *([eye, averages] if first else [averages, eye]), model=model)
    averaged = averages._average_model.module.diffusion.network.first.weight
    assert torch.equal(eye.weight, averaged)
    assert torch.equal(model.diffusion.network.first.weight, averaged)


def test_a_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    fit(tmp_path, *all_of_them(), fast_dev_run=True)
    assert not (tmp_path / "figures").exists()


def test_a_run_without_validation_is_told_so(tmp_path: Path) -> None:
    eye = Eye(1)
    with pytest.warns(UserWarning, match="Eye looks at validation, but this training has none"):
        fit(tmp_path, eye, limit_val_batches=0, max_epochs=1)
    assert not eye.seen


@pytest.mark.parametrize("callback", all_of_them())
def test_what_is_no_diffusion_model_is_refused(callback: pl.Callback) -> None:
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} looks at diffusion models .* Plain is none"):
        callback.setup(SimpleNamespace(), type("Plain", (pl.LightningModule,), {})(), "fit")


def test_a_cadence_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="every_n_validations must be at least 1, got 0"):
        Eye(0)


def test_modes_return_after_an_error() -> None:
    model = ToyDiffuser().train()
    model.diffusion.encoder.eval()
    with pytest.raises(RuntimeError, match="within"), evaluating(model):
        raise RuntimeError("within")
    assert model.training
    assert not model.diffusion.encoder.training


def test_on_two_ranks_one_writes(tmp_path: Path) -> None:
    callbacks = [LossByGamma(num_bins=4), GradientNorms(every_n_steps=3, num_bins=2), DepthCurve([3], num_samples=10)]
    fit(tmp_path, *callbacks, max_epochs=1, strategy="ddp_fork", devices=2)
    written = {path.name for path in (tmp_path / "figures").glob("*.csv")}
    assert written == {"loss_by_gamma.csv", "gradient_norms.csv", "depth_curve.csv"}
